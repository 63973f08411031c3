"""Code of a repo: whose is run is the operator's decision alone, by exact name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelexport.contract import Options
from modelexport.contract.errors import CustomCodeError, OptionsInvalidError, UsageError
from modelexport_bot import inputs, policy, settings
from modelexport_bot.hub import HubFile
from modelexport_bot.job import Job
from modelexport_bot.resolve import Plan
from modelexport_bot.settings import Settings
from tests.bot.world import PublishingJob, World

CODE = {"modeling_own.py": "from .layers import x\n", "layers.py": "x = 1\n", "folder/other.py": "", "train.sh": ""}


def test_the_operators_file_names_repos_exactly(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('trust_remote_code = ["acme/model-1", "bert"]\n')
    loaded = settings.load(file)
    assert [policy.may_run_code_of(repo, loaded) for repo in ("acme/model-1", "bert")] == [True, True]
    for other in ("acme/model-2", "acme/model-1x", "Acme/model-1", "acme/Model-1", "acme", "x/bert", ""):
        assert not policy.may_run_code_of(other, loaded)
    assert not policy.may_run_code_of("acme/model-1", Settings())


@pytest.mark.parametrize("name", ["*", "acme/*", "acme/model-?", "acme/[a-z]", "", "acme/model/part", "acme/model\\n"])
def test_patterns_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "bot.toml").write_text(f'trust_remote_code = ["{name}"]\n')
    with pytest.raises(UsageError, match="trust_remote_code"):
        settings.load(tmp_path / "bot.toml")


@pytest.mark.parametrize("value", [True, ["alice/model"]])
def test_a_repo_cannot_allow_it_itself(world: World, value: Any) -> None:
    with pytest.raises(OptionsInvalidError, match="trust_remote_code"):
        policy.repo_options({"modelexport": {"trust_remote_code": value}}, None)
    world.hub.push(world.repo, {".modelexport.yaml": "trust_remote_code: true\n"}, message="Trust me")
    with pytest.raises(OptionsInvalidError, match="trust_remote_code"):
        world.run()


def test_code_is_fetched_only_where_it_is_allowed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hub.push(world.repo, CODE, message="Code")
    seen: list[set[str]] = []
    fabricated = PublishingJob.export

    def export(job: PublishingJob, plan: Plan, snapshot: Path, folder: Path) -> Path:
        seen.append({path.name for path in snapshot.rglob("*.py")})
        return fabricated(job, plan, snapshot, folder)

    monkeypatch.setattr(PublishingJob, "export", export)
    assert world.run(dry_run=True).outcome == "dry_run"
    assert world.run(dry_run=True, trust_remote_code=("alice/another",)).outcome == "dry_run"
    assert world.run(dry_run=True, trust_remote_code=(world.repo,)).outcome == "dry_run"
    assert seen == [set(), set(), {"modeling_own.py", "layers.py"}]


def test_new_code_makes_a_new_export_where_it_is_run(world: World) -> None:
    world.hub.push(world.repo, CODE, message="Code")
    trusting = {"trust_remote_code": (world.repo,)}
    assert world.run(**trusting).outcome == "created"
    assert world.run(**trusting).outcome == "unchanged"
    world.hub.push(world.repo, {"layers.py": "x = 2\n"}, message="Other code")
    assert world.run(**trusting).outcome == "updated"
    num = next(found["num"] for found in world.pull_requests())
    world.merge(num)
    assert world.run(**trusting).outcome == "unchanged"
    world.assert_sound()


def test_without_permission_code_is_no_input(world: World) -> None:
    world.hub.push(world.repo, CODE, message="Code")
    assert world.run().outcome == "created"
    world.hub.push(world.repo, {"layers.py": "x = 2\n"}, message="Other code")
    assert world.run().outcome == "unchanged"


def test_code_counts_for_what_has_to_fit() -> None:
    files = {name: HubFile(name, 1, name, None) for name in ("model.safetensors", "a.py", "b/c.py")}
    assert [file.path for file in inputs.inputs(files)] == ["model.safetensors"]
    assert [file.path for file in inputs.snapshot(files, code=True)] == ["a.py", "model.safetensors"]


class _Exporters:
    """Lends one exporter that notes what it is asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self._error = error

    @contextmanager
    def lent(self, *_: object) -> Iterator["_Exporters"]:
        yield self

    def export(self, arguments: Sequence[str], **_: object) -> None:
        self.calls.append(list(arguments))
        if self._error:
            raise self._error

    def close(self) -> None:
        self.calls.append("closed")


@pytest.mark.parametrize("error", [None, CustomCodeError("refused")])
def test_the_exporter_is_told_and_not_used_again(tmp_path: Path, error: Exception | None) -> None:
    plan = Plan("alice/own", "a" * 40, (), Options(), None, None)  # type: ignore[arg-type]
    given = Settings(cache=tmp_path, exporter_python=Path("python"))

    def exported(**changes: Any) -> list[Any]:
        exporters = _Exporters(error)
        job = Job(replace(given, **changes), exporters=exporters)  # type: ignore[arg-type]
        job._python = Path("python")
        if error is None:
            job.export(plan, tmp_path / "snapshot", tmp_path / "onnx")
        else:
            with pytest.raises(CustomCodeError):
                job.export(plan, tmp_path / "snapshot", tmp_path / "onnx")
        return exporters.calls

    (arguments,) = exported()
    assert "--trust-remote-code" not in arguments
    (arguments,) = exported(trust_remote_code=("alice/ow",))
    assert "--trust-remote-code" not in arguments
    arguments, closed = exported(trust_remote_code=("alice/own",))
    assert arguments.count("--trust-remote-code") == 1 and closed == "closed"
