"""The Hub as a process: what survives a restart, and nobody listening."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from .client import REPOSITORY, ControlError, LocalHub


def test_a_killed_hub_comes_back_with_everything(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        hub.create_org("acme", {"alice": "write"})
        token = hub.create_user("alice")
        hub.seed_repo("acme/bert", {"config.json": b"{}", "model.onnx": b"\0\1"}, private=True, gated="auto")
        hub.configure(tree_page=7)
        api = HfApi(endpoint=hub.url, token=token)
        api.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "org", "name": "acme"}], domains=["discussion"])
        commit = api.create_commit(
            "acme/bert", [CommitOperationAdd("a.bin", b"\0a")], commit_message="Add", create_pr=True
        )
        before = (hub.url, hub.files("acme/bert", "refs/pr/1"), hub.pull_requests("acme/bert"), hub.journal())
        hub.restart()
        after = (hub.url, hub.files("acme/bert", "refs/pr/1"), hub.pull_requests("acme/bert"), hub.journal())
        assert before == after
        assert hub.configure()["tree_page"] == 7
        assert api.model_info("acme/bert", revision="refs/pr/1").sha == commit.oid
        assert len(api.list_webhooks()) == 1
        assert api.create_pull_request("acme/bert", "Another").num == 2


def test_nobody_listening_is_connection_refused_until_the_hub_listens_again(hub: LocalHub) -> None:
    url = f"{hub.url}/api/agent-harnesses"
    assert get_session().get(url).status_code == 200
    hub.pause_listening()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(hub.storage_url)
    hub.resume_listening()
    assert get_session().get(url).status_code == 200
    hub.pause_listening()
    hub.resume_listening()
    assert httpx2.get(url).status_code == 200


def test_the_command_prints_its_url_and_ends_with_its_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hub", "--root", str(tmp_path), "--until-eof"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx2.get(f"{url}/api/agent-harnesses").status_code == 200
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_folder_is_seeded_as_it_is(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.safetensors").write_bytes(b"\0weights")
    (tmp_path / "config.json").write_text("{}")
    hub.seed_repo("folders/one", tmp_path)
    files = hub.files("folders/one")
    assert sorted(files) == [".gitattributes", "config.json", "sub/model.safetensors"]
    hub.push("folders/one", {"config.json": b'{"a": 1}'}, delete=["sub"], message="Change")
    assert sorted(hub.files("folders/one")) == [".gitattributes", "config.json"]
    with pytest.raises(ControlError, match="exists already"):
        hub.seed_repo("folders/one")


def test_unknown_paths_and_methods_are_refused(hub: LocalHub) -> None:
    assert get_session().get(f"{hub.url}/api/nonsense/x/y/z/w").status_code == 404
    assert get_session().delete(f"{hub.url}/api/whoami-v2").status_code == 405


def test_the_repository_on_disk_is_real_git(hub: LocalHub) -> None:
    sha = hub.seed_repo("disk/one", {"config.json": b"{}"})
    found = [
        path.parent
        for path in hub.root.glob("repos/*/git/HEAD")
        if (path.parent / "refs/heads/main").read_text().strip() == sha
    ]
    assert len(found) == 1
    result = subprocess.run(
        ["git", "-C", str(found[0]), "fsck", "--strict"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
