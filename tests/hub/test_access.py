"""Who may do what, and with which error the client refuses the rest."""

import time

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from .conftest import World

ADD = {"path_in_repo": "new.txt", "path_or_fileobj": b"new"}


def commit(api: HfApi, repo: str, **options: object) -> object:
    return api.create_commit(repo, [CommitOperationAdd(**ADD)], commit_message="Add", **options)  # type: ignore[arg-type]


def refused(error: pytest.ExceptionInfo[HfHubHTTPError]) -> tuple[int, str | None, str]:
    response = error.value.response
    message = response.headers["X-Error-Message"]
    assert response.request.method == "HEAD" or response.json()["error"] == message
    return response.status_code, response.headers.get("X-Error-Code"), message


def test_a_missing_repository_is_401_without_a_token_and_404_with_one(world: World) -> None:
    with pytest.raises(RepositoryNotFoundError) as error:
        world.anonymous.model_info("nobody/nothing")
    assert refused(error) == (401, "RepoNotFound", "Invalid username or password.")
    with pytest.raises(RepositoryNotFoundError) as error:
        world.bot_api.model_info("nobody/nothing")
    assert refused(error) == (404, "RepoNotFound", "Repository not found")


def test_a_private_repository_looks_missing_to_everyone_else(world: World) -> None:
    world.hub.set_repo(world.repo, private=True)
    with pytest.raises(RepositoryNotFoundError) as error:
        world.anonymous.model_info(world.repo)
    assert refused(error)[:2] == (401, "RepoNotFound")
    with pytest.raises(RepositoryNotFoundError) as error:
        world.bot_api.model_info(world.repo)
    assert refused(error)[:2] == (404, "RepoNotFound")
    with pytest.raises(RepositoryNotFoundError):
        world.bot_api.hf_hub_download(world.repo, "config.json")
    assert world.owner_api.model_info(world.repo).private is True


def test_an_unknown_token_is_refused_even_on_a_public_repository(world: World) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        world.api("hf_unknown").model_info(world.repo)
    assert refused(error) == (401, None, "Invalid credentials in Authorization header")
    assert not isinstance(error.value, RepositoryNotFoundError)


def test_a_token_is_refused_once_its_time_is_over(world: World) -> None:
    token = world.hub.create_token(world.bot, expires_in=0.15)
    assert world.api(token).whoami()["name"] == world.bot
    time.sleep(0.2)
    with pytest.raises(HfHubHTTPError) as error:
        world.api(token).model_info(world.repo)
    assert refused(error)[0] == 401


def test_a_gated_repository_shows_its_card_and_keeps_its_files(world: World, tmp_path: object) -> None:
    world.hub.set_repo(world.repo, gated="manual")
    info = world.anonymous.model_info(world.repo, files_metadata=True)
    assert info.gated == "manual"
    assert "model.safetensors" in world.anonymous.list_repo_files(world.repo)
    assert world.anonymous.hf_hub_download(world.repo, "README.md", cache_dir=str(tmp_path))
    for api, status in ((world.anonymous, 401), (world.bot_api, 403)):
        with pytest.raises(GatedRepoError) as error:
            api.hf_hub_download(world.repo, "config.json", cache_dir=str(tmp_path))
        assert refused(error)[:2] == (status, "GatedRepo")
        with pytest.raises(GatedRepoError):
            api.auth_check(world.repo)
    with pytest.raises(GatedRepoError):
        commit(world.bot_api, world.repo, create_pr=True)
    with pytest.raises(GatedRepoError):
        world.bot_api.create_discussion(world.repo, "Hello")
    assert list(world.bot_api.get_repo_discussions(world.repo)) == []


def test_who_was_let_in_may_use_a_gated_repository(world: World, tmp_path: object) -> None:
    world.hub.set_repo(world.repo, gated="auto", let_in=[world.bot])
    assert world.bot_api.hf_hub_download(world.repo, "config.json", cache_dir=str(tmp_path))
    assert world.bot_api.create_pull_request(world.repo, "Add").num == 1
    assert world.owner_api.auth_check(world.repo) is None


def test_a_fine_grained_token_reads_gated_repositories_only_when_it_says_so(world: World, tmp_path: object) -> None:
    world.hub.set_repo(world.repo, gated="auto", let_in=[world.bot])
    token = world.hub.create_token(world.bot, role="fineGrained", permissions={"global": []})
    with pytest.raises(GatedRepoError):
        world.api(token).auth_check(world.repo)
    token = world.hub.create_token(world.bot, role="fineGrained", permissions={"canReadGatedRepos": True})
    world.api(token).auth_check(world.repo)


def test_an_unknown_revision_is_named(world: World) -> None:
    with pytest.raises(RevisionNotFoundError) as error:
        world.bot_api.model_info(world.repo, revision="nope")
    assert refused(error) == (404, "RevisionNotFound", "Invalid rev id: nope")
    with pytest.raises(RevisionNotFoundError):
        world.bot_api.hf_hub_download(world.repo, "config.json", revision="refs/pr/7")


def test_an_unknown_file_names_the_commit(world: World) -> None:
    with pytest.raises(RemoteEntryNotFoundError) as error:
        world.bot_api.hf_hub_download(world.repo, "nope.json")
    assert error.value.response.headers["X-Error-Code"] == "EntryNotFound"
    assert error.value.response.headers["X-Repo-Commit"] == world.bot_api.model_info(world.repo).sha
    assert isinstance(error.value, EntryNotFoundError)
    assert world.bot_api.file_exists(world.repo, "nope.json") is False
    assert world.bot_api.file_exists(world.repo, "config.json") is True


def test_deleting_a_file_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        world.owner_api.create_commit(world.repo, [CommitOperationDelete("nope.txt")], commit_message="Delete")
    with pytest.raises(EntryNotFoundError):
        world.owner_api.create_commit(world.repo, [CommitOperationDelete("nope/")], commit_message="Delete")


def test_a_disabled_repository_refuses_everything(world: World) -> None:
    world.hub.set_repo(world.repo, disabled=True)
    for refuse in (
        lambda: world.owner_api.model_info(world.repo),
        lambda: world.bot_api.create_pull_request(world.repo, "Add"),
        lambda: commit(world.owner_api, world.repo),
    ):
        with pytest.raises(DisabledRepoError) as error:
            refuse()
        assert refused(error) == (403, None, "Access to this resource is disabled.")


def test_pushing_without_write_access_asks_for_a_pull_request(world: World) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        commit(world.bot_api, world.repo)
    assert refused(error)[2] == "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
    assert error.value.response.status_code == 403


def test_a_batch_for_a_ref_without_write_access_is_an_authorization_error(world: World) -> None:
    body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}], "ref": {"name": "main"}}
    headers = {"Authorization": f"Bearer {world.bot_token}"}
    url = f"{world.hub.url}/{world.repo}.git/info/lfs/objects/batch"
    answer = get_session().post(url, json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "Authorization error.")
    del body["ref"]
    assert get_session().post(url, json=body, headers=headers).status_code == 200


def test_a_read_token_writes_nothing(world: World) -> None:
    api = world.api(world.hub.create_token(world.owner, role="read"))
    number = world.pull_request()
    for refuse in (
        lambda: commit(api, world.repo),
        lambda: commit(api, world.repo, create_pr=True),
        lambda: api.create_pull_request(world.repo, "Add"),
        lambda: api.comment_discussion(world.repo, number, "Hello"),
        lambda: api.merge_pull_request(world.repo, number),
        lambda: api.create_branch(world.repo, branch="x"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refuse()
        assert error.value.response.status_code == 403
        assert "you must use a write token to upload to a repository." in refused(error)[2]


def test_a_fine_grained_token_may_only_what_it_lists(world: World) -> None:
    discuss = world.api(
        world.hub.create_token(world.bot, role="fineGrained", permissions={"global": ["discussion.write"]})
    )
    number = commit(discuss, world.repo, create_pr=True).pr_num  # type: ignore[attr-defined]
    discuss.comment_discussion(world.repo, number, "Hello")
    discuss.create_commit(
        world.repo, [CommitOperationAdd("b.bin", b"\0\1")], commit_message="More", revision=f"refs/pr/{number}"
    )
    nothing = world.api(world.hub.create_token(world.bot, role="fineGrained", permissions={"global": []}))
    for refuse in (
        lambda: commit(nothing, world.repo, create_pr=True),
        lambda: nothing.comment_discussion(world.repo, number, "Hello"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refuse()
        assert error.value.response.status_code == 403


def test_a_scoped_fine_grained_token_writes_where_its_scope_says(world: World) -> None:
    other = f"{world.owner}/other"
    world.hub.seed_repo(other)
    scope = {"entity": {"type": "model", "name": world.repo}, "permissions": ["repo.write"]}
    api = world.api(world.hub.create_token(world.owner, role="fineGrained", permissions={"scoped": [scope]}))
    commit(api, world.repo)
    with pytest.raises(HfHubHTTPError) as error:
        commit(api, other)
    assert error.value.response.status_code == 403


def test_roles_in_an_organisation_decide_who_writes(world: World) -> None:
    org = world.user("acme")
    reader, writer = world.user("reader"), world.user("writer")
    tokens = {name: world.hub.create_user(name) for name in (reader, writer)}
    world.hub.create_org(org, {reader: "read", writer: "write"})
    repo = f"{org}/secret"
    world.hub.seed_repo(repo, {"config.json": b"{}"}, private=True)
    assert world.api(tokens[reader]).model_info(repo).private is True
    commit(world.api(tokens[writer]), repo)
    with pytest.raises(HfHubHTTPError) as error:
        commit(world.api(tokens[reader]), repo)
    assert error.value.response.status_code == 403
    orgs = world.api(tokens[writer]).whoami()["orgs"]
    assert [(entry["name"], entry["roleInOrg"]) for entry in orgs] == [(org, "write")]


def test_disabled_discussions_refuse_pull_requests_of_every_kind(world: World) -> None:
    number = world.pull_request()
    world.hub.set_repo(world.repo, discussions=False)
    for refuse in (
        lambda: world.bot_api.create_pull_request(world.repo, "Add"),
        lambda: commit(world.bot_api, world.repo, create_pr=True),
        lambda: commit(world.bot_api, world.repo, revision=f"refs/pr/{number}"),
        lambda: list(world.bot_api.get_repo_discussions(world.repo)),
        lambda: world.bot_api.comment_discussion(world.repo, number, "Hello"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refuse()
        assert refused(error)[:2] == (403, None)
    commit(world.owner_api, world.repo)


def test_an_archived_repository_can_be_read_only(world: World) -> None:
    world.hub.set_repo(world.repo, archived=True)
    world.bot_api.model_info(world.repo)
    with pytest.raises(HfHubHTTPError) as error:
        world.bot_api.create_pull_request(world.repo, "Add")
    assert error.value.response.status_code == 403


def test_auth_check_tells_readers_from_writers(world: World) -> None:
    world.bot_api.auth_check(world.repo)
    world.owner_api.auth_check(world.repo, write=True)
    with pytest.raises(HfHubHTTPError) as error:
        world.bot_api.auth_check(world.repo, write=True)
    assert error.value.response.status_code == 403
    assert [entry["route"] for entry in world.hub.journal()].count("auth_check_write") == 2


def test_a_used_up_quota_is_429_with_the_time_to_wait(world: World) -> None:
    world.hub.configure(rate_limits={"api": [2, 300], "resolvers": [1, 300]})
    world.bot_api.model_info(world.repo)
    world.bot_api.model_info(world.repo)
    with pytest.raises(HfHubHTTPError, match="'api' rate limit") as error:
        world.bot_api.model_info(world.repo)
    headers = error.value.response.headers
    assert error.value.response.status_code == 429
    assert 0 < int(headers["Retry-After"]) <= 300
    assert headers["RateLimit"].startswith('"api";r=0;t=')
    assert headers["RateLimit-Policy"] == '"fixed window";"api";q=2;w=300'
    assert world.owner_api.model_info(world.repo), "quotas are per user"


def test_a_quota_is_free_again_after_its_window(world: World) -> None:
    world.hub.configure(rate_limits={"api": [1, 0.2]})
    world.bot_api.model_info(world.repo)
    with pytest.raises(HfHubHTTPError):
        world.bot_api.model_info(world.repo)
    time.sleep(0.25)
    world.bot_api.model_info(world.repo)


def test_a_renamed_repository_is_found_under_its_old_name(world: World, tmp_path: object) -> None:
    new = f"{world.owner}/renamed"
    number = world.pull_request()
    world.hub.set_repo(world.repo, moved_to=new)
    answer = get_session().get(f"{world.hub.url}/api/models/{world.repo}?blobs=true", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["Location"] == f"/api/models/{new}?blobs=true"
    assert world.bot_api.model_info(world.repo).id == new
    assert world.bot_api.hf_hub_download(world.repo, "config.json", cache_dir=str(tmp_path))
    assert world.bot_api.hf_hub_download(world.repo, "model.safetensors", cache_dir=str(tmp_path))
    assert world.bot_api.get_discussion_details(new, number).status == "open"
    assert commit(world.bot_api, world.repo, create_pr=True).pr_num == number + 1  # type: ignore[attr-defined]


def test_a_canonical_model_has_no_namespace(world: World, tmp_path: object) -> None:
    name = world.user("gpt")
    world.hub.seed_repo(name, {"config.json": b"{}", "onnx/model.onnx": b"\0\1"})
    assert world.anonymous.model_info(name).id == name
    assert world.anonymous.list_repo_files(name) == [".gitattributes", "config.json", "onnx/model.onnx"]
    assert world.anonymous.hf_hub_download(name, "onnx/model.onnx", cache_dir=str(tmp_path))
    world.hub.set_repo(name, moved_to=f"{world.owner}/{name}")
    assert world.anonymous.model_info(name).id == f"{world.owner}/{name}"


def test_whoami_tells_the_token_apart(world: World) -> None:
    me = world.bot_api.whoami()
    assert (me["type"], me["name"]) == ("user", world.bot)
    assert me["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        world.api("hf_unknown").whoami()
