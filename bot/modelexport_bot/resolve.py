"""Resolve: what is there, what its owner and the operator say, and what is to be done. Reads only."""

import hashlib
from dataclasses import dataclass, replace

from modelexport.contract import Options
from modelexport.contract.architectures import require_known
from modelexport.contract.errors import ForbiddenError, OptedOutError, OptionsInvalidError, RepoEmptyError
from modelexport_bot import decision, inputs, policy, pull_request
from modelexport_bot.decision import Action, Decision
from modelexport_bot.fetch import verified
from modelexport_bot.hub import Hub, HubFile, RepoAt
from modelexport_bot.ledger import Ledger
from modelexport_bot.policy import RepoOptions
from modelexport_bot.pull_request import Wanted
from modelexport_bot.result import Outcome
from modelexport_bot.settings import Settings

_MIRROR = "hub-sync"
"""In the commit messages of the GitHub action huggingface/hub-sync; its ``--delete`` removes what GitHub lacks."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, pinned to one commit. Plain data, so that a durable runner can keep it.

    Attributes:
        repo: canonical id.
        sha: commit of the source; everything that follows is about this commit.
        snapshot: the files to fetch.
        options: of the export.
        wanted: the export, by its digests.
        decision: what to do.
        warnings: what the operator, and the owner in the body, should know.
    """

    repo: str
    sha: str
    snapshot: tuple[HubFile, ...]
    options: Options
    wanted: Wanted
    decision: Decision
    warnings: tuple[str, ...] = ()


class RepoOptionsInvalidError(OptionsInvalidError):
    """The repo's own options are wrong (not the operator's), and its owner should hear of it."""

    def __init__(self, message: str, repo: str) -> None:
        super().__init__(message)
        self.repo = repo
        self.digest = hashlib.sha256(message.encode()).hexdigest()[:16]


def resolve(hub: Hub, repo: str, settings: Settings) -> Plan:
    """The plan for a repo.

    Raises:
        RepoNotFoundError, RevisionNotFoundError, GatedError, UnauthorizedError, ...: see :mod:`modelexport_bot.hub`.
        ForbiddenError: the token can only read, or there is none, and this is no dry run.
        RepoEmptyError: the repo holds no weights.
        OptedOutError: the repo's owner does not want us.
        RepoOptionsInvalidError: the repo's options cannot be understood.
        UnsupportedArchitectureError: nothing can export the model, as its config says.
        TooLargeError: the weights pass the operator's limit, or cannot be exported on this machine.
    """
    if reason := policy.not_ours_to_touch(repo, settings.limits):
        return _kept_out(repo, reason)
    _must_be_able_to_write(hub, settings)
    main = hub.repo(repo)
    if main.id != repo and (reason := policy.not_ours_to_touch(main.id, settings.limits)):
        return _kept_out(main.id, reason)
    source = main if settings.revision is None else hub.repo(main.id, settings.revision)
    wishes = _wishes(hub, source)
    if not inputs.weights(source.files):
        raise RepoEmptyError(
            f"{source.id} at {source.sha[:7] or 'its first commit'} has no weights to export: no model.safetensors or "
            "pytorch_model.bin, whole or in shards."
        )
    policy.must_not_be_too_large(source, settings.limits)
    code = policy.may_run_code_of(main.id, settings)
    state = pull_request.observe(hub, source, main, code=code)
    options = policy.export_options(settings.overrides, state.asked_task(), wishes)
    wanted = Wanted.of(source, options.digest(), code=code)
    decided = decision.decide(state, wanted, settings)
    if decided.action is Action.CREATE and (
        spent := Ledger(settings.cache / "ledger.jsonl").exhausted(main.id, settings.limits)
    ):
        decided = Decision(Action.NOTHING, Outcome.SKIPPED, spent)
    if decided.needs_export:
        require_known(source.config)
        policy.must_fit(source, options, settings)
    plan = Plan(main.id, source.sha, tuple(inputs.snapshot(source.files, code=code)), options, wanted, decided)
    return replace(plan, warnings=tuple(_warnings(hub, plan, asked_for=repo)))


def _kept_out(repo: str, reason: str) -> Plan:
    nothing = Wanted(sha="", weights="", inputs="", options="")
    return Plan(repo, "", (), Options(), nothing, Decision(Action.NOTHING, Outcome.SKIPPED, reason))


def _must_be_able_to_write(hub: Hub, settings: Settings) -> None:
    account = hub.account()
    if settings.dry_run:
        return
    if account is None:
        raise ForbiddenError(
            "Opening a pull request takes a token: --token, HF_TOKEN, or hf auth login. --dry-run works without one."
        )
    if account.read_only:
        raise ForbiddenError(
            f"The token of {account.name} can only read. Create one with the role write, or a fine-grained one with "
            "discussion.write, at https://huggingface.co/settings/tokens."
        )


def _wishes(hub: Hub, source: RepoAt) -> RepoOptions:
    file = source.files.get(policy.OPTIONS_FILE)
    text = verified(hub, source.id, source.sha, file).read_text(errors="replace") if file else None
    try:
        wishes = policy.repo_options(source.card, text)
    except OptionsInvalidError as error:
        raise RepoOptionsInvalidError(error.message, source.id) from error
    if not wishes.enabled:
        raise OptedOutError(f"{source.id} has opted out (modelexport: enabled: false). Nothing was done.")
    return wishes


def _warnings(hub: Hub, plan: Plan, *, asked_for: str) -> list[str]:
    found = []
    if plan.repo != asked_for:
        found.append(f"{asked_for} is called {plan.repo} now.")
    if plan.decision.action is not Action.NOTHING and any(
        _MIRROR in entry.title for entry in hub.commits(plan.repo, "main", 20)
    ):
        found.append(
            "This repo is filled from GitHub by hub-sync. If that runs with --delete, its next push removes the "
            "folder onnx/ after a merge; exclude onnx/ from the deletion, or add the folder on GitHub as well."
        )
    return found
