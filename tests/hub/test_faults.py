"""Faults on demand, as the real client meets them."""

import contextlib
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

from .client import ControlError
from .conftest import WEIGHTS, World


def add(world: World, **options: Any) -> Any:
    return world.owner_api.create_commit(
        world.repo, [CommitOperationAdd("new.txt", b"new")], commit_message="Add", **options
    )


def fault_of(world: World, route: str) -> list[str | None]:
    return [entry["fault"] for entry in world.hub.journal() if entry["route"] == route]


@pytest.mark.parametrize(
    ("kind", "error"), [("refuse", httpx2.RemoteProtocolError), ("reset_before", httpx2.NetworkError)]
)
def test_a_connection_lost_before_the_commit_leaves_nothing(world: World, kind: str, error: type[Exception]) -> None:
    world.hub.inject(kind, route="commit")
    with pytest.raises(error):
        add(world, create_pr=True)
    assert world.hub.pull_requests(world.repo) == []
    entry = next(entry for entry in world.hub.journal() if entry["route"] == "commit")
    assert (entry["status"], entry["wrote"], entry["fault"]) == (None, False, kind)
    assert add(world, create_pr=True).pr_num == 1


def test_a_connection_lost_after_the_commit_leaves_the_pull_request(world: World) -> None:
    world.hub.inject("reset_after", route="commit")
    with pytest.raises(httpx2.NetworkError):
        add(world, create_pr=True)
    assert [request["title"] for request in world.hub.pull_requests(world.repo)] == ["Add"]
    entry = next(entry for entry in world.hub.journal() if entry["route"] == "commit")
    assert (entry["status"], entry["wrote"], entry["fault"]) == (200, True, "reset_after")


@pytest.mark.parametrize("code", [401, 403, 429, 500, 502, 503, 504])
def test_a_status_can_come_before_or_after_the_commit(world: World, code: int) -> None:
    for when, count in (("before", 0), ("after", 1)):
        world.hub.inject("status", code=code, when=when, route="commit")
        with pytest.raises(HfHubHTTPError) as error:
            add(world, create_pr=True)
        assert error.value.response.status_code == code
        assert len(world.hub.pull_requests(world.repo)) == count


def test_a_status_may_say_when_to_come_back(world: World) -> None:
    world.hub.inject("status", code=503, retry_after=7, route="repo_info")
    world.hub.inject("status", code=429, retry_after=9, rate_limit=True, route="repo_info")
    world.hub.inject("status", code=429, route="repo_info")
    answers = []
    for _ in range(3):
        with pytest.raises(HfHubHTTPError) as error:
            world.bot_api.model_info(world.repo)
        answers.append(error.value.response)
    assert [answer.headers.get("Retry-After") for answer in answers] == ["7", "9", None]
    assert [answer.headers.get("RateLimit") for answer in answers] == [None, '"api";r=0;t=9', None]
    world.bot_api.model_info(world.repo)


@pytest.mark.usefixtures("impatient")
def test_the_client_retries_what_it_retries_and_not_the_commit(world: World) -> None:
    world.hub.inject("status", code=503, route="preupload", times=2)
    world.hub.inject("reset_after", route="lfs_batch")
    world.hub.inject("status", code=500, route="storage_put")
    world.hub.inject("reset_before", route="lfs_verify")
    world.owner_api.create_commit(world.repo, [CommitOperationAdd("a.bin", b"\0a")], commit_message="Add")
    counts = {route: len(fault_of(world, route)) for route in ("preupload", "lfs_batch", "storage_put", "lfs_verify")}
    assert counts == {"preupload": 3, "lfs_batch": 2, "storage_put": 2, "lfs_verify": 2}
    assert world.hub.files(world.repo)["a.bin"] == b"\0a"


@pytest.mark.usefixtures("impatient")
def test_a_body_cut_short_is_resumed_where_it_broke(world: World, tmp_path: Path) -> None:
    world.hub.inject("truncate", route="storage_get")
    path = world.bot_api.hf_hub_download(world.repo, "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    assert fault_of(world, "storage_get") == ["truncate", None]


def test_wrong_bytes_of_the_right_length_are_not_noticed(world: World, tmp_path: Path) -> None:
    world.hub.inject("wrong_bytes", route="storage_get")
    path = world.bot_api.hf_hub_download(world.repo, "model.safetensors", cache_dir=tmp_path)
    content = Path(path).read_bytes()
    assert len(content) == len(WEIGHTS)
    assert content != WEIGHTS


def test_a_truncated_json_answer_is_a_protocol_error(world: World) -> None:
    world.hub.inject("truncate", route="repo_info")
    with pytest.raises(httpx2.RemoteProtocolError):
        world.bot_api.model_info(world.repo)


def test_a_request_that_hangs_ends_with_the_clients_patience_or_with_ours(world: World) -> None:
    world.hub.inject("timeout", seconds=0.2, route="repo_info")
    started = time.monotonic()
    with pytest.raises(httpx2.RemoteProtocolError):
        world.bot_api.model_info(world.repo)
    assert 0.2 <= time.monotonic() - started < 2
    world.hub.inject("timeout", seconds=1, route="repo_info")
    with pytest.raises(httpx2.ReadTimeout):
        world.bot_api.model_info(world.repo, timeout=0.1)


def test_upload_urls_expire_between_the_batch_and_the_put(world: World) -> None:
    world.hub.inject("expire_upload_urls", route="lfs_batch", when="after")
    with pytest.raises(RuntimeError, match="Error while uploading"):
        world.owner_api.create_commit(world.repo, [CommitOperationAdd("a.bin", b"\0a")], commit_message="Add")
    assert [entry["status"] for entry in world.hub.journal() if entry["route"] == "storage_put"] == [403]
    world.owner_api.create_commit(world.repo, [CommitOperationAdd("a.bin", b"\0a")], commit_message="Add")


def test_a_token_expires_in_the_middle_of_an_upload(world: World) -> None:
    world.hub.inject("expire_token", route="commit")
    with pytest.raises(HfHubHTTPError) as error:
        add(world)
    assert error.value.response.status_code == 401
    assert [entry["status"] for entry in world.hub.journal()] == [200, 401]
    with pytest.raises(HfHubHTTPError):
        world.owner_api.whoami()


def test_a_fault_meets_the_nth_request_and_only_that(world: World) -> None:
    world.hub.inject("status", code=500, index=2)
    outcomes = []
    for _ in range(3):
        try:
            world.bot_api.model_info(world.repo)
            outcomes.append(True)
        except HfHubHTTPError:
            outcomes.append(False)
    assert outcomes == [True, False, True]
    assert [entry["index"] for entry in world.hub.journal() if entry["fault"]] == [2]


def test_a_fault_can_skip_some_match_a_path_and_last_for_ever(world: World) -> None:
    world.hub.inject("status", code=500, path=r"/revision/main\?", skip=1, times=None, method="GET")

    def works(**options: Any) -> bool:
        try:
            world.bot_api.model_info(world.repo, **options)
        except HfHubHTTPError:
            return False
        return True

    assert works()
    asked = [works(revision="main", files_metadata=True) for _ in range(4)]
    assert asked == [True, False, False, False]
    assert world.hub.faults()[0]["fired"] == 3
    world.hub.clear_faults()
    assert works(revision="main", files_metadata=True)


def test_an_unknown_fault_is_refused(world: World) -> None:
    for fault in ({"kind": "explode"}, {"kind": "refuse", "nonsense": 1}):
        with pytest.raises(ControlError):
            world.hub.inject(**fault)  # type: ignore[arg-type]


def test_after_every_kind_of_fault_the_hub_goes_on(world: World) -> None:
    url = f"{world.hub.url}/api/models/{world.repo}"
    for kind in ("refuse", "reset_before", "reset_after", "truncate", "wrong_bytes", "status"):
        for method in ("GET", "HEAD"):
            world.hub.inject(kind, route="repo_info")
            with contextlib.suppress(httpx2.TransportError):
                get_session().request(method, url)
            assert get_session().get(url).status_code == 200, (kind, method)


def test_a_large_upload_is_refused_without_confusing_the_connection(world: World) -> None:
    content = bytes(3_000_000)
    for kind, options in (("status", {"code": 503}), ("reset_before", {}), ("refuse", {})):
        world.hub.inject(kind, route="storage_put", **options)
        world.hub.clear_journal()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
            world.owner_api.create_commit(
                world.repo, [CommitOperationAdd("large.bin", content + kind.encode())], commit_message="Add"
            )
        assert fault_of(world, "storage_put") == [kind, None]
