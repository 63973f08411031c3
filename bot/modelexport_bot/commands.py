"""Commands in a pull request's thread: ``@modelexport-bot rebuild``, ``task=<task>``, ``close``, ``ignore``, ``help``.

1. Only in a pull request of ours, and only from people with a say in the repo. Others are told so, once each.
2. One command a comment: the first line that begins with our name. Each is answered once; the answer carries the
   comment's id in a hidden tag, so that neither a second webhook nor a restart makes us answer again.
3. ``rebuild`` is carried out first and answered with what came of it: interrupted, it is simply done again. ``task`` is
   answered first, because the answer is also how later runs know the task.
4. ``close`` and ``ignore`` are answered by the comment that closes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from modelexport.contract import ModelExportError
from modelexport.contract.errors import ForbiddenError, UsageError
from modelexport_bot import marker
from modelexport_bot.body import plain
from modelexport_bot.hub import Comment, Hub, Thread
from modelexport_bot.job import Job
from modelexport_bot.progress import Progress
from modelexport_bot.pull_request import IGNORED, TASK, is_ours
from modelexport_bot.result import Result
from modelexport_bot.settings import Settings

_ANSWER = "answer"
_STRANGER = "stranger"
_TASK_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Verb(StrEnum):
    """What can be asked."""

    REBUILD = "rebuild"
    TASK = "task"
    CLOSE = "close"
    IGNORE = "ignore"
    HELP = "help"


@dataclass(frozen=True)
class Command:
    """A comment that asks us something. ``verb`` is None where we do not understand it."""

    comment: Comment
    verb: Verb | None
    argument: str = ""


def reply(
    repo: str, num: int, settings: Settings, progress: Progress, *, job: Callable[[Settings, Progress], Job] = Job
) -> list[Verb | None]:
    """Answer what is unanswered in one thread; returns the commands that were.

    Raises:
        UsageError: the thread is no pull request of ours.
        ForbiddenError: there is no token.
        ModelExportError: the Hub did not let us read or answer.
    """
    hub = Hub.of(settings)
    account = hub.account()
    if account is None:
        raise ForbiddenError("Answering takes a token: --token, HF_TOKEN, or hf auth login.")
    thread = hub.thread(repo, num)
    if not is_ours(thread, account.name):
        raise UsageError(f"#{num} of {repo} is no pull request of {account.name}'s.")
    answered = []
    for command in unanswered(thread, account.name, settings.mention):
        if not hub.may_write(repo, command.comment.author):
            _tell_stranger(hub, repo, thread, account.name, command)
            continue
        progress.step("reply", f"{command.verb or 'unknown'} by {command.comment.author}")
        _Answer(hub, repo, thread, command, settings, lambda changed: job(changed, progress).run(repo)).give()
        answered.append(command.verb)
    return answered


def unanswered(thread: Thread, account: str, mention: str) -> list[Command]:
    """The commands in a thread that carry no answer of ours yet, oldest first."""
    ours = [c.text for c in thread.comments if c.author == account and marker.is_automatic(c.text)]
    return [
        command
        for comment in thread.comments[1:]
        if not comment.hidden and not (comment.author == account and marker.is_automatic(comment.text))
        if (command := read(comment, {mention, account})) is not None
        if not any(marker.tagged(text, _ANSWER, comment.id) for text in ours)
    ]


def read(comment: Comment, names: set[str]) -> Command | None:
    """The command in a comment; None where it asks nothing of us."""
    us = "|".join(re.escape(name) for name in sorted(names))
    line = re.search(rf"^[ \t]*@(?:{us})(?=[ \t]|$)[ \t]*(.*)$", comment.text, re.MULTILINE | re.IGNORECASE)
    if line is None:
        return None
    verb, equals, argument = line.group(1).strip().partition("=")
    verb = verb.strip().lower().rstrip(".!")
    if verb == Verb.TASK:
        task = argument.strip().lower()
        return Command(comment, Verb.TASK if _TASK_NAME.fullmatch(task) else None, task)
    known = verb in set(Verb) and not equals
    return Command(comment, Verb(verb) if known else None)


def _tell_stranger(hub: Hub, repo: str, thread: Thread, account: str, command: Command) -> None:
    """Once for each person, or anybody could make us fill the thread."""
    name = command.comment.author
    if not any(c.author == account and marker.tagged(c.text, _STRANGER, name) for c in thread.comments):
        said = f"I take commands from people with write access to this repo only, `{plain(name)}`."
        hub.comment(repo, thread.num, f"{said}\n\n{marker.tag(_STRANGER, name)}")


@dataclass(frozen=True)
class _Answer:
    """One command and its answer."""

    hub: Hub
    repo: str
    thread: Thread
    command: Command
    settings: Settings
    run: Callable[[Settings], Result]

    def give(self) -> None:
        match self.command.verb:
            case Verb.REBUILD:
                self._say(self._outcome_of(replace(self.settings, rebuild=True)))
            case Verb.TASK:
                task = self.command.argument
                said = f"From now on this is exported for `{task}`; the description above will say when it is done."
                self._say(said, marker.tag(TASK, task))
                failure = self._outcome_of(replace(self.settings, rebuild=True), only_failures=True)
                if failure:
                    self.hub.comment(
                        self.repo, self.thread.num, f"{failure}\n\n{marker.tag('failure', self.command.comment.id)}"
                    )
            case Verb.CLOSE:
                self._close(
                    "Closed as you asked. I come back when the weights change and I am asked to, not before.",
                    "declined",
                )
            case Verb.IGNORE:
                self._close("Understood: I do not open pull requests on this repo any more.", IGNORED)
            case Verb.HELP:
                self._say(self._help())
            case None:
                self._say("I do not know that command.\n\n" + self._help())

    def _outcome_of(self, settings: Settings, *, only_failures: bool = False) -> str:
        try:
            result = self.run(settings)
        except ModelExportError as error:
            return f"That did not work ({error.code}): {plain(error.message)}"
        return "" if only_failures else f"Done, {result.outcome}: {result.reason}"

    def _say(self, text: str, *tags: str) -> None:
        self.hub.comment(self.repo, self.thread.num, self._signed(text, *tags))

    def _close(self, text: str, purpose: str) -> None:
        signed = self._signed(text, marker.tag(purpose))
        if self.hub.thread(self.repo, self.thread.num).status in ("open", "draft"):
            self.hub.set_status(self.repo, self.thread.num, "closed", signed)
        else:
            self.hub.comment(self.repo, self.thread.num, signed)

    def _signed(self, text: str, *tags: str) -> str:
        return "\n".join([text, "", marker.tag(_ANSWER, self.command.comment.id), *tags])

    def _help(self) -> str:
        name = self.settings.mention
        return (
            f"- `@{name} rebuild`: export again, with the current version\n"
            f"- `@{name} task=<task>`: export for another task, such as `text-classification`\n"
            f"- `@{name} close`: close this pull request; I come back when the weights change and I am asked to\n"
            f"- `@{name} ignore`: close it and stay away for good\n"
            f"- `@{name} help`: this list"
        )
