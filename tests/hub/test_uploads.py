"""Writing with the real client: what becomes LFS, what is refused, what a commit holds."""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.utils import get_session

from .conftest import WEIGHTS, World

MIB = 1024 * 1024


def routes(world: World) -> list[str]:
    return [entry["route"] for entry in world.hub.journal()]


def raw_commit(world: World, *lines: Any, revision: str = "main", content_type: str = "application/x-ndjson") -> Any:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    headers = {"Authorization": f"Bearer {world.owner_token}", "Content-Type": content_type}
    url = f"{world.hub.url}/api/models/{world.repo}/commit/{revision}"
    return get_session().post(url, content=body.encode(), headers=headers)


def header(**more: str) -> dict[str, Any]:
    return {"key": "header", "value": {"summary": "Commit", **more}}


def file(path: str, content: bytes = b"text") -> dict[str, Any]:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def add(world: World, path: str, content: bytes, **options: Any) -> Any:
    return world.owner_api.create_commit(
        world.repo, [CommitOperationAdd(path, content)], commit_message=f"Add {path}", **options
    )


def test_a_commit_takes_the_documented_way(world: World) -> None:
    world.owner_api.create_commit(
        world.repo,
        [
            CommitOperationAdd("onnx/model.onnx", b"\0\1\2"),
            CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n"),
        ],
        commit_message="Add ONNX",
        commit_description="Made by a test",
    )
    assert routes(world) == [
        "validate_yaml",
        "preupload",
        "lfs_batch",
        "storage_put",
        "lfs_verify",
        "commit",
    ]
    assert [entry["route"] for entry in world.hub.journal() if entry["wrote"]] == ["storage_put", "commit"]
    assert world.hub.files(world.repo)["onnx/model.onnx"] == b"\0\1\2"
    commit = world.hub.commits(world.repo)[0]
    assert (commit["title"], commit["message"], commit["authors"]) == ("Add ONNX", "Made by a test", [world.owner])
    assert commit["changed"] == ["README.md", "onnx/model.onnx"]


@pytest.mark.parametrize(
    ("path", "content", "mode"),
    [
        ("model.onnx", b"text, but the pattern says lfs", "lfs"),
        ("onnx/model.onnx_data", bytes(range(256)), "lfs"),
        ("noextension", b"\x00\x01\xff", "lfs"),
        ("random", hashlib.sha256(b"x").digest(), "lfs"),
        ("big.txt", b"a" * (10 * MIB + 1), "lfs"),
        ("limit.txt", b"a" * (10 * MIB), "regular"),
        ("empty.onnx", b"", "regular"),
        ("vocab.txt", "häß ☃".encode(), "regular"),
        ("cut.txt", ("a" * 511 + "☃" + "b" * 600).encode(), "regular"),
        ("latin.txt", "naïve café".encode("latin-1"), "regular"),
        ("saved_model/x/y", b"text", "lfs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_server_decides_what_becomes_lfs(world: World, path: str, content: bytes, mode: str) -> None:
    add(world, path, content)
    info = world.bot_api.get_paths_info(world.repo, path)[0]
    assert ("lfs" if info.lfs else "regular") == mode  # type: ignore[union-attr]
    assert world.hub.files(world.repo)[path] == content


def test_an_lfs_file_outside_every_pattern_adds_a_line_to_gitattributes(world: World) -> None:
    before = world.hub.files(world.repo)[".gitattributes"]
    add(world, "onnx/model.onnx", b"\0")
    assert world.hub.files(world.repo)[".gitattributes"] == before
    add(world, "onnx/model.onnx_data", b"\0")
    line = b"onnx/model.onnx_data filter=lfs diff=lfs merge=lfs -text\n"
    assert world.hub.files(world.repo)[".gitattributes"] == before + line
    assert world.hub.commits(world.repo)[0]["changed"] == [".gitattributes", "onnx/model.onnx_data"]
    add(world, "onnx/model.onnx_data", b"\0\0")
    assert world.hub.files(world.repo)[".gitattributes"] == before + line, "covered now"


def test_unchanged_content_makes_no_commit_and_no_pull_request(world: World) -> None:
    head = world.bot_api.model_info(world.repo).sha
    world.hub.clear_journal()
    commit = add(world, "model.safetensors", WEIGHTS, create_pr=True)
    assert (commit.pr_url, commit.pr_num, commit.oid) == (None, None, head)
    assert "commit" not in routes(world)
    assert "storage_put" not in routes(world)
    assert world.hub.pull_requests(world.repo) == []


def test_an_object_is_uploaded_once_per_repository(world: World) -> None:
    add(world, "a.bin", b"\0same")
    world.hub.clear_journal()
    add(world, "b.bin", b"\0same")
    assert "lfs_batch" in routes(world)
    assert "storage_put" not in routes(world)
    other = f"{world.owner}/other"
    world.hub.seed_repo(other)
    world.hub.clear_journal()
    world.owner_api.create_commit(other, [CommitOperationAdd("a.bin", b"\0same")], commit_message="Add")
    assert "storage_put" in routes(world)


def test_a_large_object_goes_up_in_parts(world: World) -> None:
    world.hub.configure(multipart_threshold=1000, multipart_chunk=400)
    content = bytes(range(256)) * 5
    add(world, "large.bin", content)
    assert routes(world).count("storage_put_part") == 4
    assert "complete_multipart" in routes(world)
    assert world.hub.files(world.repo)["large.bin"] == content
    complete = next(entry for entry in world.hub.journal() if entry["route"] == "complete_multipart")
    assert complete["authorization"] is False


def test_a_folder_is_uploaded_with_deletions(world: World, tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"\0new")
    world.hub.push(world.repo, {"onnx/old.onnx": b"\0old"})
    world.owner_api.upload_folder(
        repo_id=world.repo, folder_path=tmp_path, delete_patterns=["onnx/*"], commit_message="Upload"
    )
    files = world.hub.files(world.repo)
    assert "onnx/old.onnx" not in files
    assert files["onnx/model.onnx"] == b"\0new"


def test_files_and_folders_are_deleted(world: World) -> None:
    world.hub.push(world.repo, {"onnx/a.json": b"{}", "onnx/b.json": b"{}", "notes.txt": b"x"})
    world.owner_api.create_commit(
        world.repo, [CommitOperationDelete("onnx/"), CommitOperationDelete("notes.txt")], commit_message="Delete"
    )
    assert sorted(world.hub.files(world.repo)) == [".gitattributes", "README.md", "config.json", "model.safetensors"]


def test_files_are_copied_within_a_repository(world: World) -> None:
    world.owner_api.create_commit(
        world.repo,
        [CommitOperationCopy("model.safetensors", "copy.safetensors"), CommitOperationCopy("config.json", "copy.json")],
        commit_message="Copy",
    )
    files = world.hub.files(world.repo)
    assert files["copy.safetensors"] == WEIGHTS
    assert files["copy.json"] == files["config.json"]


def test_a_file_object_is_uploaded_like_bytes(world: World) -> None:
    world.owner_api.upload_file(path_or_fileobj=io.BytesIO(b"\0stream"), path_in_repo="stream.bin", repo_id=world.repo)
    assert world.hub.files(world.repo)["stream.bin"] == b"\0stream"


def test_gitignore_keeps_files_out(world: World) -> None:
    world.hub.push(world.repo, {".gitignore": "*.tmp\nbuild/\n!keep.tmp\n"})
    world.owner_api.create_commit(
        world.repo,
        [CommitOperationAdd(path, b"text") for path in ("a.tmp", "keep.tmp", "build/x.txt", "b.txt")],
        commit_message="Add",
    )
    assert {"keep.tmp", "b.txt"} == set(world.hub.commits(world.repo)[0]["changed"])


def test_a_parent_that_is_not_the_head_is_412(world: World) -> None:
    old = world.bot_api.model_info(world.repo).sha
    add(world, "a.txt", b"a", parent_commit=old)
    with pytest.raises(HfHubHTTPError) as error:
        add(world, "b.txt", b"b", parent_commit=old)
    assert error.value.response.status_code == 412
    assert "The branch was updated since you opened this page." in str(error.value)
    add(world, "b.txt", b"b", parent_commit=world.bot_api.model_info(world.repo).sha[:7])  # type: ignore[index]


def test_with_create_pr_the_parent_is_where_the_pull_request_starts(world: World) -> None:
    old = world.bot_api.model_info(world.repo).sha
    world.hub.push(world.repo, {"notes.txt": b"later"})
    commit = add(world, "a.txt", b"a", parent_commit=old, create_pr=True)
    assert world.hub.commits(world.repo, f"refs/pr/{commit.pr_num}")[0]["parent"] == old
    with pytest.raises(RevisionNotFoundError):
        add(world, "b.txt", b"b", parent_commit="0" * 40, create_pr=True)


def test_a_commit_sha_is_no_branch_to_open_a_pull_request_against(world: World) -> None:
    sha = world.bot_api.model_info(world.repo).sha
    world.owner_api.create_tag(world.repo, tag="v1")
    for revision in (sha, "v1", "nope"):
        with pytest.raises(RevisionNotFoundError) as error:
            add(world, "a.txt", b"a", revision=revision, create_pr=True)
        assert error.value.response.headers["X-Error-Message"] == f"Invalid rev id: {revision}"


def test_a_branch_is_committed_to_and_proposed_against(world: World) -> None:
    world.owner_api.create_branch(world.repo, branch="dev")
    add(world, "dev.txt", b"dev", revision="dev")
    assert "dev.txt" not in world.hub.files(world.repo)
    commit = add(world, "more.txt", b"more", revision="dev", create_pr=True)
    details = world.bot_api.get_discussion_details(world.repo, commit.pr_num)
    assert details.target_branch == "refs/heads/dev"
    world.owner_api.merge_pull_request(world.repo, commit.pr_num)
    assert "more.txt" in world.hub.files(world.repo, "dev")
    assert "more.txt" not in world.hub.files(world.repo)


@pytest.mark.parametrize(
    ("path", "content"), [("big.txt", b"a" * (10 * MIB + 1)), ("picture", b"\x89PNG\0\1"), ("model.bin", b"\0")]
)
def test_what_belongs_into_lfs_is_refused_as_a_regular_file(world: World, path: str, content: bytes) -> None:
    answer = raw_commit(world, header(), file(path, content))
    assert answer.status_code == 400
    assert answer.headers["X-Error-Message"].startswith("Your push was rejected because")


@pytest.mark.parametrize("path", ["../x", "a/../b", "a\\b", ".git/config", "a//b", "/a", "a/", "./a", ""])
def test_paths_that_lead_astray_are_refused(world: World, path: str) -> None:
    assert raw_commit(world, header(), file(path)).status_code == 422


def test_a_file_cannot_be_a_folder(world: World) -> None:
    assert raw_commit(world, header(), file("config.json/x")).status_code == 400


@pytest.mark.parametrize(
    "lines",
    [
        ["no json", file("a")],
        [file("a")],
        [header()],
        [{"key": "header", "value": {"summary": ""}}, file("a")],
        [header(), {"key": "rename", "value": {"path": "a"}}],
        [header(), {"path": "a"}],
    ],
)
def test_a_malformed_commit_is_refused(world: World, lines: list[Any]) -> None:
    assert raw_commit(world, *lines).status_code == 400


def test_a_commit_must_say_that_it_is_ndjson(world: World) -> None:
    assert raw_commit(world, header(), file("a"), content_type="application/json").status_code == 400
    assert raw_commit(world, header(), file("a")).status_code == 200


def test_a_pointer_without_its_object_is_refused(world: World) -> None:
    missing = {"path": "x.bin", "oid": hashlib.sha256(b"missing").hexdigest(), "size": 7, "algo": "sha256"}
    known = {"path": "x.bin", "oid": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS) + 1, "algo": "sha256"}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{missing['oid']}\nsize 7\n".encode()
    for operation in ({"key": "lfsFile", "value": missing}, {"key": "lfsFile", "value": known}, file("x.bin", pointer)):
        answer = raw_commit(world, header(), operation)
        assert answer.status_code == 400
        assert "an LFS pointer pointed to a file that does not exist" in answer.json()["error"]


def upload_url(world: World, content: bytes) -> str:
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    answer = get_session().post(
        f"{world.hub.url}/{world.repo}.git/info/lfs/objects/batch",
        json={"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256"},
        headers={"Authorization": f"Bearer {world.owner_token}"},
    )
    assert answer.headers["Content-Type"] == "application/vnd.git-lfs+json"
    return str(answer.json()["objects"][0]["actions"]["upload"]["href"])


def test_the_storage_takes_only_what_was_announced(world: World) -> None:
    put = get_session().put
    url = upload_url(world, b"announced")
    assert url.startswith(world.hub.storage_url)
    for content in (b"Announced", b"announced and more", b"short"):
        answer = put(url, content=content)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"] == "application/xml"
    assert put(url, content=b"announced", headers={"Authorization": "Bearer x"}).status_code == 400
    assert put(url.replace("sig=", "sig=0"), content=b"announced").status_code == 403
    assert put(url, content=iter([b"announced"])).status_code == 411
    assert put(url, content=b"").status_code == 501
    assert put(url, content=b"announced").status_code == 200


def test_an_upload_url_expires(world: World) -> None:
    world.hub.configure(upload_url_lifetime=-1)
    assert get_session().put(upload_url(world, b"late"), content=b"late").status_code == 403
    with pytest.raises(RuntimeError, match="Error while uploading"):
        add(world, "late.bin", b"\0late")


def test_verify_tells_whether_the_object_arrived(world: World) -> None:
    url = f"{world.hub.url}/{world.repo}.git/info/lfs/objects/verify"
    headers = {"Authorization": f"Bearer {world.owner_token}"}
    known = hashlib.sha256(WEIGHTS).hexdigest()
    for oid, size, status in ((known, len(WEIGHTS), 200), (known, 1, 422), ("0" * 64, 1, 404)):
        assert get_session().post(url, json={"oid": oid, "size": size}, headers=headers).status_code == status


def test_a_part_that_is_missing_makes_no_object(world: World) -> None:
    world.hub.configure(multipart_threshold=4, multipart_chunk=4)
    content = b"12345678"
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    answer = (
        get_session()
        .post(
            f"{world.hub.url}/{world.repo}.git/info/lfs/objects/batch",
            json={"operation": "upload", "transfers": ["multipart"], "objects": objects},
            headers={"Authorization": f"Bearer {world.owner_token}"},
        )
        .json()
    )
    assert answer["transfer"] == "multipart"
    upload = answer["objects"][0]["actions"]["upload"]
    etag = get_session().put(upload["header"]["00001"], content=b"1234").headers["etag"]
    body = {"oid": objects[0]["oid"], "parts": [{"partNumber": 1, "etag": etag}, {"partNumber": 2, "etag": etag}]}
    assert get_session().post(upload["href"], json=body).status_code == 400
    second = get_session().put(upload["header"]["00002"], content=b"5678").headers["etag"]
    body["parts"][1]["etag"] = second  # type: ignore[index]
    assert get_session().post(upload["href"], json=body).status_code == 200
    assert get_session().post(upload["href"], json=body).status_code == 200, "asked again after a lost answer"


def test_a_card_with_invalid_metadata_is_refused_before_the_upload(world: World) -> None:
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        add(world, "README.md", b"---\nlicense: [mit\n---\n")
    with pytest.raises(ValueError, match='"tags" must be a list'):
        add(world, "README.md", b"---\ntags: one\n---\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        add(world, "README.md", b"# No metadata\n")


def test_a_repository_is_created_once(world: World) -> None:
    api, name = world.owner_api, f"{world.owner}/created"
    url = api.create_repo(name, private=True)
    assert url.repo_id == name
    assert world.hub.commits(name)[0]["title"] == "initial commit"
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(name)
    assert error.value.response.status_code == 409
    assert error.value.response.json()["url"] == f"{world.hub.url}/{name}"
    assert api.create_repo(name, exist_ok=True).repo_id == name
    with pytest.raises(HfHubHTTPError) as error:
        world.bot_api.create_repo(f"{world.owner}/theirs")
    assert error.value.response.status_code == 403


def test_a_repository_is_moved_changed_and_deleted(world: World) -> None:
    api, new = world.owner_api, f"{world.owner}/moved"
    api.update_repo_settings(world.repo, private=True, gated="auto")
    assert api.model_info(world.repo).private is True
    api.move_repo(world.repo, new)
    assert api.model_info(new).gated == "auto"
    api.delete_repo(new)
    assert api.repo_exists(new) is False
    api.delete_repo(new, missing_ok=True)


def test_squashed_history_keeps_the_files(world: World) -> None:
    files = world.hub.files(world.repo)
    world.owner_api.super_squash_history(world.repo)
    assert [commit.title for commit in world.bot_api.list_repo_commits(world.repo)] == [
        "Super-squash branch 'main' using huggingface_hub"
    ]
    assert world.hub.files(world.repo) == files


def test_bad_requests_are_bad_request_errors(world: World) -> None:
    with pytest.raises(BadRequestError):
        world.owner_api.create_branch(world.repo, branch="a..b")
