"""Reading with the real client: what a repository is, what is in it, and its files."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from huggingface_hub.utils import get_session

from .conftest import CARD, CONFIG, WEIGHTS, World


def test_model_info_tells_what_the_files_say(world: World) -> None:
    info = world.bot_api.model_info(world.repo)
    assert (info.id, info.author, info.private, info.gated, info.disabled) == (
        world.repo,
        world.owner,
        False,
        False,
        False,
    )
    assert info.pipeline_tag == "fill-mask"
    assert info.library_name == "transformers"
    assert info.safetensors is None  # its weights here are no real ones
    assert {"transformers", "safetensors", "bert", "fill-mask", "tiny", "en", "license:mit"} <= set(info.tags or [])
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    assert info.config == {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    assert info.last_modified is not None
    assert [sibling.size for sibling in info.siblings or []] == [None] * 4


def test_parameters_are_counted_by_dtype_over_all_shards(world: World) -> None:
    tensors = {"a": ("F32", [3, 4]), "b": ("F16", [5]), "c": ("F32", [])}
    header = json.dumps({n: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for n, (d, s) in tensors.items()}).encode()
    shard = struct.pack("<Q", len(header)) + header
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = dict.fromkeys([*names, "adapter.safetensors"], shard)
    world.hub.push(world.repo, files, delete=["model.safetensors"])
    listed = world.bot_api.model_info(world.repo).safetensors
    assert listed is not None
    assert (listed.parameters, listed.total) == ({"F32": 26, "F16": 10}, 36)


def test_the_card_overrules_what_the_files_suggest(world: World) -> None:
    world.hub.push(world.repo, {"README.md": "---\npipeline_tag: feature-extraction\nlibrary_name: timm\n---\n"})
    info = world.bot_api.model_info(world.repo)
    assert (info.pipeline_tag, info.library_name) == ("feature-extraction", "timm")


def test_files_metadata_gives_sizes_and_real_git_and_lfs_ids(world: World) -> None:
    info = world.bot_api.model_info(world.repo, files_metadata=True, securityStatus=True)
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert files["config.json"].blob_id == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert files["config.json"].size == len(CONFIG)
    lfs = files["model.safetensors"].lfs
    assert lfs is not None
    assert (lfs.sha256, lfs.size) == (hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    assert lfs.pointer_size == len(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 10240\n")
    assert files[".gitattributes"].blob_id == "a6344aac8c09253b3b630fb776ae94478aa0275b", "the Hub's own default"
    assert info.security_repo_status


def test_expand_gives_only_what_is_asked_for(world: World) -> None:
    info = world.bot_api.model_info(world.repo, expand=["sha", "siblings"])
    assert info.sha
    assert info.siblings
    assert info.tags is None
    with pytest.raises(BadRequestError):
        world.bot_api.model_info(world.repo, expand=["nonsense"])  # type: ignore[list-item]


def test_every_kind_of_revision_is_understood(world: World) -> None:
    first = world.bot_api.model_info(world.repo).sha
    assert first
    world.owner_api.create_branch(world.repo, branch="dev/x")
    world.owner_api.create_tag(world.repo, tag="v1", tag_message="the first")
    number = world.pull_request()
    second = world.hub.push(world.repo, {"notes.txt": b"more"})
    revisions = {"main": second, "dev/x": first, "v1": first, first: first, first[:8]: first, second: second}
    for revision, sha in revisions.items():
        assert world.bot_api.model_info(world.repo, revision=revision).sha == sha
    head = world.bot_api.model_info(world.repo, revision=f"refs/pr/{number}").sha
    assert head == world.hub.pull_requests(world.repo)[0]["head"]


def test_refs_list_branches_tags_and_pull_requests(world: World) -> None:
    sha = world.bot_api.model_info(world.repo).sha
    world.owner_api.create_branch(world.repo, branch="dev")
    world.owner_api.create_tag(world.repo, tag="v1")
    world.pull_request()
    refs = world.bot_api.list_repo_refs(world.repo, include_pull_requests=True)
    assert [(ref.name, ref.ref) for ref in refs.branches] == [("dev", "refs/heads/dev"), ("main", "refs/heads/main")]
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", sha)]
    assert [ref.ref for ref in refs.pull_requests or []] == ["refs/pr/1"]
    assert world.bot_api.list_repo_refs(world.repo).pull_requests is None


def test_branches_and_tags_that_exist_are_a_conflict_and_can_be_deleted(world: World) -> None:
    api = world.owner_api
    for create, delete in (
        (lambda: api.create_branch(world.repo, branch="x"), lambda: api.delete_branch(world.repo, branch="x")),
        (lambda: api.create_tag(world.repo, tag="x"), lambda: api.delete_tag(world.repo, tag="x")),
    ):
        create()
        with pytest.raises(HfHubHTTPError) as error:
            create()
        assert error.value.response.status_code == 409
        delete()
    api.create_branch(world.repo, branch="x", exist_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(world.repo, branch="main")


def test_the_tree_is_listed_whole_by_folder_and_in_pages(world: World) -> None:
    world.hub.push(world.repo, {f"onnx/{name}.json": b"{}" for name in "abc"} | {"onnx/deep/er.json": b"{}"})
    api = world.bot_api
    flat = {entry.path for entry in api.list_repo_tree(world.repo)}
    assert flat == {".gitattributes", "README.md", "config.json", "model.safetensors", "onnx"}
    assert {entry.path for entry in api.list_repo_tree(world.repo, "onnx")} == {
        "onnx/a.json",
        "onnx/b.json",
        "onnx/c.json",
        "onnx/deep",
    }
    whole = [entry.path for entry in api.list_repo_tree(world.repo, recursive=True)]
    world.hub.configure(tree_page=2)
    world.hub.clear_journal()
    assert [entry.path for entry in api.list_repo_tree(world.repo, recursive=True)] == whole
    assert len(world.hub.journal()) == 5
    with pytest.raises(HfHubHTTPError):
        list(api.list_repo_tree(world.repo, "nowhere"))


def test_an_expanded_tree_names_the_last_commit_of_each_path(world: World) -> None:
    sha = world.hub.push(world.repo, {"notes.txt": b"more"}, message="Add notes")
    entries = {entry.path: entry for entry in world.bot_api.list_repo_tree(world.repo, expand=True)}
    assert entries["notes.txt"].last_commit["oid"] == sha
    assert entries["config.json"].last_commit["title"] == "Upload model"


def test_paths_info_leaves_out_what_does_not_exist(world: World) -> None:
    world.hub.push(world.repo, {"onnx/config.json": b"{}"})
    found = world.bot_api.get_paths_info(world.repo, ["config.json", "model.safetensors", "onnx", "nope"])
    assert [entry.path for entry in found] == ["config.json", "model.safetensors", "onnx"]
    assert found[1].lfs["size"] == len(WEIGHTS)  # type: ignore[union-attr]


def test_commits_are_listed_newest_first_in_pages_with_their_authors(world: World) -> None:
    for number in range(4):
        world.hub.push(world.repo, {"notes.txt": str(number)}, message=f"Note {number}", author="someone")
    world.hub.configure(commits_page=2)
    commits = world.bot_api.list_repo_commits(world.repo)
    assert [commit.title for commit in commits] == [
        "Note 3",
        "Note 2",
        "Note 1",
        "Note 0",
        "Upload model",
        "initial commit",
    ]
    assert commits[0].authors == ["someone"]


def test_models_are_listed_by_author_tag_and_name(world: World) -> None:
    world.hub.seed_repo(f"{world.owner}/gpt", {"config.json": b'{"model_type": "gpt2"}'})
    world.hub.seed_repo(f"{world.owner}/secret", private=True)
    api = world.bot_api

    def names(client: HfApi = api, **query: object) -> set[str]:
        return {info.id.split("/")[1] for info in client.list_models(author=world.owner, **query)}  # type: ignore[arg-type]

    assert names() == {"model", "gpt"}
    assert names(world.owner_api) == {"model", "gpt", "secret"}
    assert names(filter="bert") == {"model"}
    assert names(filter=["transformers", "gpt2"]) == {"gpt"}
    assert names(search="GP") == {"gpt"}
    assert len(names(limit=1)) == 1
    world.hub.configure(models_page=1)
    assert names() == {"model", "gpt"}
    full = next(iter(api.list_models(author=world.owner, search="model", full=True, cardData=True)))
    assert full.sha
    assert full.card_data


def test_a_snapshot_holds_every_byte_and_a_warm_cache_asks_once(world: World, tmp_path: Path) -> None:
    folder = Path(world.bot_api.snapshot_download(world.repo, cache_dir=tmp_path))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == world.hub.files(world.repo)
    world.hub.clear_journal()
    assert world.bot_api.snapshot_download(world.repo, cache_dir=tmp_path) == str(folder)
    assert [entry["route"] for entry in world.hub.journal()] == ["repo_info"]


def test_the_storage_never_sees_a_token(world: World, tmp_path: Path) -> None:
    path = world.bot_api.hf_hub_download(world.repo, "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    journal = world.hub.journal()
    assert [(entry["route"], entry["status"], entry["authorization"]) for entry in journal] == [
        ("resolve", 302, True),
        ("storage_get", 200, False),
    ]
    assert journal[1]["repo"] == world.repo


def test_small_files_come_from_the_resolve_cache(world: World, tmp_path: Path) -> None:
    metadata = world.bot_api.get_hf_file_metadata(url=f"{world.hub.url}/{world.repo}/resolve/main/config.json")
    assert metadata.commit_hash == world.bot_api.model_info(world.repo).sha
    assert metadata.size == len(CONFIG)
    assert metadata.etag == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    routes = [(entry["route"], entry["status"]) for entry in world.hub.journal()]
    assert routes[:2] == [("resolve", 307), ("resolve_cache", 200)]


def test_ranges_are_served_for_small_files_and_for_objects(world: World) -> None:
    for path, content in (("README.md", CARD), ("model.safetensors", WEIGHTS)):
        url = f"{world.hub.url}/{world.repo}/resolve/main/{path}"
        answer = get_session().get(url, headers={"Range": "bytes=10-19"})
        assert (answer.status_code, answer.content) == (206, content[10:20])
        assert answer.headers["Content-Range"] == f"bytes 10-19/{len(content)}"
        assert get_session().get(url, headers={"Range": "bytes=-5"}).content == content[-5:]
        assert get_session().get(url, headers={"Range": f"bytes={len(content)}-"}).status_code == 416


def test_a_signed_url_is_good_for_one_object_and_for_its_time(world: World) -> None:
    def location() -> str:
        url = f"{world.hub.url}/{world.repo}/resolve/main/model.safetensors"
        return str(get_session().head(url, follow_redirects=False).headers["Location"])

    assert location().startswith(world.hub.storage_url)
    assert get_session().get(location()).content == WEIGHTS
    assert get_session().get(location().replace("sig=", "sig=0")).status_code == 403
    assert get_session().get(location(), headers={"Authorization": "Bearer x"}).status_code == 400
    world.hub.configure(download_url_lifetime=-1)
    expired = get_session().get(location())
    assert expired.status_code == 403
    assert expired.headers["Content-Type"] == "application/xml"


def test_datasets_live_beside_models(world: World, tmp_path: Path) -> None:
    world.hub.seed_repo(world.repo, {"data.csv": b"a,b\n"}, repo_type="dataset")
    path = world.bot_api.hf_hub_download(world.repo, "data.csv", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"a,b\n"
    assert world.bot_api.dataset_info(world.repo).id == world.repo


def test_the_agent_registry_is_there_and_empty(world: World) -> None:
    answer = get_session().get(f"{world.hub.url}/api/agent-harnesses")
    assert answer.json() == {"standardEnvVars": [], "harnesses": {}}


def test_there_is_no_xet_storage(world: World) -> None:
    answer = get_session().get(f"{world.hub.url}/api/models/{world.repo}/xet-write-token/main?create_pr=1")
    assert answer.status_code == 404
