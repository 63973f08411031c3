"""Keyless login: a CI job's identity token becomes a short-lived token for one repository."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub._oidc import exchange_oidc_token, oidc_login
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from .conftest import World

CLAIMS = {
    "repository": "acme/training",
    "ref": "refs/heads/main",
    "workflow_ref": "acme/training/.github/workflows/publish.yml@refs/heads/main",
}
TRUSTED = {"repository": "acme/training", "branch": "main", "workflow": "publish.yml"}


@pytest.fixture
def job(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """We are a GitHub Actions job."""
    for name, value in world.hub.github_job(CLAIMS).items():
        monkeypatch.setenv(name, value)
    return world


def login(world: World, resource: str) -> str:
    return str(oidc_login(resource=resource, endpoint=world.hub.url)["access_token"])


def test_a_trusted_job_gets_a_token_for_one_repository(job: World) -> None:
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo)
    answer = oidc_login(resource=job.repo, endpoint=job.hub.url)
    assert (answer["token_type"], answer["expires_in"]) == ("bearer", 3600)
    assert answer["access_token"].startswith("hf_jwt_")
    api = job.api(answer["access_token"])
    commit = api.create_commit(
        job.repo, [CommitOperationAdd("onnx/model.onnx", b"\0\1")], commit_message="Add ONNX", create_pr=True
    )
    assert job.hub.pull_requests(job.repo)[0]["author"]["name"] == "[OIDC]"
    assert commit.pr_num is not None
    api.comment_discussion(job.repo, commit.pr_num, "Done")
    other = f"{job.owner}/other"
    job.hub.seed_repo(other)
    for refuse in (
        lambda: api.create_pull_request(other, "Add"),
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=other),
        lambda: api.create_repo(f"{job.owner}/third"),
        api.whoami,
    ):
        with pytest.raises(HfHubHTTPError) as error:
            refuse()
        assert error.value.response.status_code in (401, 403)


def test_the_token_sees_its_own_private_repository_and_no_other(job: World) -> None:
    job.hub.set_repo(job.repo, private=True, gated="manual")
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo)
    secret = f"{job.owner}/secret"
    job.hub.seed_repo(secret, private=True)
    api = job.api(login(job, job.repo))
    assert api.model_info(job.repo).private is True
    assert api.file_exists(job.repo, "config.json")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(secret)


def test_the_token_dies_after_its_time(job: World) -> None:
    job.hub.configure(publisher_token_lifetime=0.2)
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo)
    api = job.api(login(job, job.repo))
    api.model_info(job.repo)
    time.sleep(0.25)
    with pytest.raises(HfHubHTTPError) as error:
        api.model_info(job.repo)
    assert error.value.response.status_code == 401


def test_a_read_only_publisher_writes_nothing(job: World) -> None:
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo, read_only=True)
    api = job.api(login(job, job.repo))
    api.model_info(job.repo)
    with pytest.raises(HfHubHTTPError):
        api.create_pull_request(job.repo, "Add")


def test_a_users_publisher_reads_gated_repositories_and_nothing_private(job: World) -> None:
    job.hub.trust_publisher({"repository": "acme/training"}, user=job.bot)
    job.hub.set_repo(job.repo, gated="manual", let_in=[job.bot])
    token = login(job, job.bot)
    assert token.startswith("hf_oauth_")
    job.api(token).auth_check(job.repo)
    private = f"{job.bot}/private"
    job.hub.seed_repo(private, private=True)
    with pytest.raises(RepositoryNotFoundError):
        job.api(token).model_info(private)
    with pytest.raises(HfHubHTTPError):
        job.api(token).create_pull_request(job.repo, "Add")


@pytest.mark.parametrize(
    "trusted",
    [
        {"repository": "acme/other"},
        {"repository": "acme/training", "branch": "release"},
        {"repository": "acme/training", "workflow": "test.yml"},
        {"ref": "refs/heads/mai"},
        {"sub": "anything"},
    ],
)
def test_a_job_with_other_claims_is_refused(job: World, trusted: dict[str, str]) -> None:
    job.hub.trust_publisher(trusted, repo_id=job.repo)
    with pytest.raises(BadRequestError) as error:
        login(job, job.repo)
    assert error.value.response.json()["error"] == "invalid_grant"


def test_what_is_not_a_valid_identity_token_is_refused(job: World) -> None:
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo)
    with pytest.raises(BadRequestError):
        exchange_oidc_token(subject_token="a.b.c", resource=job.repo, endpoint=job.hub.url)
    with pytest.raises(BadRequestError):
        oidc_login(resource=job.repo, audience="https://somewhere.else", endpoint=job.hub.url)
    with pytest.raises(BadRequestError):
        login(job, "nobody/nothing")


def test_the_client_logs_in_by_itself_with_hf_oidc_resource(job: World, tmp_path: Path) -> None:
    job.hub.trust_publisher(TRUSTED, repo_id=job.repo)
    environment = job.hub.environment(tmp_path) | {"HF_OIDC_RESOURCE": job.repo} | job.hub.github_job(CLAIMS)
    script = (
        "import sys; from huggingface_hub import HfApi;"
        "HfApi().upload_file(path_or_fileobj=b'x', path_in_repo='x.txt', repo_id=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, job.repo], env=environment, check=True)
    assert job.hub.files(job.repo)["x.txt"] == b"x"
    routes = [entry["route"] for entry in job.hub.journal()]
    assert routes[:2] == ["github_id_token", "exchange_token"]
