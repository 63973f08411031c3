"""huggingface_hub 0.36, the exporter's version, against the same Hub, in an interpreter that has it.

MODELEXPORT_EXPORTER_PYTHON names that interpreter.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import CONFIG, WEIGHTS, World

PYTHON = os.environ.get("MODELEXPORT_EXPORTER_PYTHON")
pytestmark = pytest.mark.skipif(not PYTHON, reason="MODELEXPORT_EXPORTER_PYTHON is not set")

PRELUDE = """
import json, sys
import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
assert huggingface_hub.__version__.startswith("0.36"), huggingface_hub.__version__
api, repo = HfApi(), sys.argv[1]
def show(value): print(json.dumps(value))
"""


def run(world: World, home: Path, script: str, token: str | None = None) -> Any:
    """What a script shows, run by the old client as the bot."""
    assert PYTHON is not None
    environment = world.hub.environment(home, token or world.bot_token) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    result = subprocess.run(
        [PYTHON, "-c", PRELUDE + script, world.repo], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_it_reads_models_snapshots_and_files_of_pull_requests(world: World, tmp_path: Path) -> None:
    number = world.pull_request("onnx/config.json", b'{"onnx": true}')
    shown = run(
        world,
        tmp_path,
        f"""
info = api.model_info(repo, files_metadata=True)
folder = snapshot_download(repo)
path = hf_hub_download(repo, "onnx/config.json", revision="refs/pr/{number}")
weights = open(folder + "/model.safetensors", "rb").read()
show([info.sha, info.pipeline_tag, len(info.siblings), open(folder + "/config.json").read(), len(weights),
      open(path).read(), [d.status for d in api.get_repo_discussions(repo)]])
""",
    )
    sha = world.bot_api.model_info(world.repo).sha
    assert shown == [sha, "fill-mask", 4, CONFIG.decode(), len(WEIGHTS), '{"onnx": true}', ["open"]]


def test_it_opens_pushes_to_and_describes_pull_requests(world: World, tmp_path: Path) -> None:
    shown = run(
        world,
        tmp_path,
        r"""
commit = api.create_commit(repo, [CommitOperationAdd("onnx/model.onnx", b"\0\1"), CommitOperationAdd("a.txt", b"a")],
                           commit_message="Add ONNX", create_pr=True)
api.create_commit(repo, [CommitOperationAdd("b.txt", b"b")], commit_message="More", revision="refs/pr/1")
api.comment_discussion(repo, 1, "Hello")
details = api.get_discussion_details(repo, 1)
show([commit.pr_num, details.status, [event.type for event in details.events], details.conflicting_files,
      sorted(api.list_repo_files(repo, revision="refs/pr/1"))])
""",
    )
    files = [".gitattributes", "README.md", "a.txt", "b.txt", "config.json", "model.safetensors", "onnx/model.onnx"]
    assert shown == [1, "open", ["comment", "commit", "commit", "comment"], [], files]
    assert world.hub.files(world.repo, "refs/pr/1")["onnx/model.onnx"] == b"\0\1"


def test_it_names_errors_as_the_new_one_does(world: World, tmp_path: Path) -> None:
    world.hub.seed_repo(f"{world.owner}/gated", {"config.json": b"{}"}, gated="manual")
    shown = run(
        world,
        tmp_path,
        """
def name(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as error:
        return type(error).__name__
gated = repo.split("/")[0] + "/gated"
show([name(api.model_info, "nobody/nothing"), name(api.model_info, repo, revision="nope"),
      name(hf_hub_download, repo, "nope"), name(hf_hub_download, gated, "config.json"),
      name(api.create_commit, repo, [CommitOperationAdd("x", b"x")], commit_message="x"),
      name(api.whoami, token="hf_unknown")])
""",
    )
    assert shown == [
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "EntryNotFoundError",
        "GatedRepoError",
        "HfHubHTTPError",
        "HTTPError",
    ]


def test_a_rate_limited_download_reads_like_a_missing_file(world: World, tmp_path: Path) -> None:
    world.hub.configure(rate_limits={"resolvers": [0, 300]})
    shown = run(
        world,
        tmp_path,
        """
try:
    hf_hub_download(repo, "config.json")
except Exception as error:
    show(type(error).__name__)
""",
    )
    assert shown == "LocalEntryNotFoundError"
