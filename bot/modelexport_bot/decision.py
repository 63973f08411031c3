"""What to do about a repo, as a function of what the Hub holds. The behaviour table of ``docs/pull-requests.md``.

Nothing here asks the Hub or changes anything, so that every row can be read, tested and shown (``status``) by itself.
"""

from dataclasses import dataclass
from enum import StrEnum

from modelexport_bot.pull_request import IGNORED, State, Wanted
from modelexport_bot.result import Outcome
from modelexport_bot.settings import Settings


class Action(StrEnum):
    """What to do next."""

    NOTHING = "nothing"
    CREATE = "create"  # export, draft, upload, open
    FILL = "fill"  # our draft is unfinished: export, upload, open
    UPDATE = "update"  # our open pull request is out of date: export, one commit, new text
    REOPEN = "reopen"  # our closed pull request may come back: open, then as UPDATE
    FINISH = "finish"  # the files are right, the text or the status is not: a run was interrupted
    CLOSE = "close"  # ours is overtaken
    BLOCK = "block"  # somebody else pushed to ours


NEEDS_EXPORT = frozenset({Action.CREATE, Action.FILL, Action.UPDATE, Action.REOPEN})


@dataclass(frozen=True)
class Decision:
    """What to do, what that amounts to, and why.

    Attributes:
        action: what to do.
        outcome: what a run that carries it out ends with.
        reason: one sentence for people.
        num: our pull request it is about.
        url: its page.
    """

    action: Action
    outcome: Outcome
    reason: str
    num: int | None = None
    url: str | None = None

    @property
    def needs_export(self) -> bool:
        """Whether it takes a fresh export to carry it out."""
        return self.action in NEEDS_EXPORT


def decide(state: State, wanted: Wanted, settings: Settings) -> Decision:
    """The one thing to do about a repo now."""
    return _about_our_open_one(state, wanted, settings) if state.open else _without_an_open_one(state, wanted, settings)


def _about_our_open_one(state: State, wanted: Wanted, settings: Settings) -> Decision:
    ours = state.open[0]
    num, url = ours.thread.num, ours.thread.url

    def then(action: Action, outcome: Outcome, reason: str) -> Decision:
        return Decision(action, outcome, reason, num, url)

    assert state.account is not None
    if strangers := ours.strangers(state.account):
        return then(
            Action.BLOCK, Outcome.BLOCKED, f"{strangers[0]} has pushed to #{num}, and nothing of theirs is overwritten."
        )
    if state.main is not None and state.main.provides(wanted):
        return then(Action.CLOSE, Outcome.CLOSED, f"#{num} is overtaken: the default branch has this export already.")
    if state.main is not None and state.main.manifest is None and not (settings.replace or ours.marker.replaces):
        return then(
            Action.CLOSE, Outcome.CLOSED, f"#{num} is overtaken: the default branch has an onnx/ folder of its own now."
        )
    if state.ref is not None and state.ref.provides(wanted) and state.ref.intact() and not settings.rebuild:
        if ours.thread.status == "open" and wanted.described_by(ours.marker):
            return then(Action.NOTHING, Outcome.UNCHANGED, f"#{num} is open and up to date.")
        outcome = Outcome.CREATED if ours.thread.status == "draft" else Outcome.UPDATED
        return then(Action.FINISH, outcome, f"#{num} holds the right files; an earlier run did not get to finish it.")
    if ours.thread.status == "draft":
        return then(Action.FILL, Outcome.CREATED, f"#{num} is a draft that an earlier run did not get to fill.")
    return then(Action.UPDATE, Outcome.UPDATED, f"#{num} is open but not of this source and these options.")


def _without_an_open_one(state: State, wanted: Wanted, settings: Settings) -> Decision:
    last = state.last
    if state.main is not None and state.main.provides(wanted) and not settings.rebuild:
        merged = f" since #{last.thread.num} was merged" if last and last.thread.status == "merged" else ""
        return Decision(
            Action.NOTHING, Outcome.UNCHANGED, f"The default branch has this export{merged}.", *_about(state)
        )
    if last is not None and (refusal := _refusal(state, wanted, settings)):
        return Decision(Action.NOTHING, Outcome.DECLINED, refusal, *_about(state))
    if state.main is not None and state.main.manifest is None and not settings.replace:
        reason = "The repo has an onnx/ folder that is not ours; --replace opens a pull request that replaces it."
        return Decision(Action.NOTHING, Outcome.SKIPPED, reason)
    if last is not None and last.thread.status == "closed":
        return Decision(
            Action.REOPEN, Outcome.UPDATED, f"#{last.thread.num} was closed and may come back now.", *_about(state)
        )
    if state.main is not None:
        return Decision(Action.CREATE, Outcome.CREATED, "The onnx/ folder is not of this source and these options.")
    return Decision(Action.CREATE, Outcome.CREATED, "The repo has no onnx/ folder.")


def _refusal(state: State, wanted: Wanted, settings: Settings) -> str | None:
    """Why the last word of a person on our pull request was no; None if it was not, or holds no longer."""
    last = state.last
    assert last is not None
    assert state.account is not None
    num = last.thread.num
    if last.said(state.account, IGNORED):
        return f"Somebody asked in #{num} to stay away for good."
    removed = last.thread.status == "merged" and state.main is None
    if last.thread.status == "merged" and not removed:
        return None
    what = f"#{num} was merged and its folder removed later" if removed else f"#{num} was closed"
    if settings.rebuild:  # a person asked for it
        return None
    if last.marker.weights == wanted.weights:
        return f"{what}, and the weights are the same."
    if not settings.reopen:
        return f"{what}. The weights have changed since; --reopen comes back."
    return None


def _about(state: State) -> tuple[int | None, str | None]:
    return (state.last.thread.num, state.last.thread.url) if state.last else (None, None)
