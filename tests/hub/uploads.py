"""Before a commit: which files go to LFS, where their bytes are to be put, and whether they arrived."""

import base64
import secrets
import shutil
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import JSONResponse, Response

from .access import check_discuss, check_gate, check_ref, check_writer, find_repo, may_discuss
from .attributes import upload_mode
from .errors import HubError, bad_request, forbidden, revision_not_found
from .git import GitRepo
from .info import split_front_matter
from .lfs import SHA256
from .paths import check_path
from .records import Repo
from .routing import Call, Router
from .storage import assemble

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
LFS_JSON = "application/vnd.git-lfs+json"
METADATA_TYPES = {"license": (str, list), "tags": (list,), "pipeline_tag": (str,), "library_name": (str,)}


def branch_ref(git: GitRepo, revision: str) -> str:
    """The full name of the ref that a revision pushes to: a branch or a pull request. Raises `RevisionNotFound`."""
    for ref in (f"refs/heads/{revision}", revision):
        if ref.startswith(("refs/heads/", "refs/pr/")) and git.ref(ref):
            return ref
    raise revision_not_found(revision)


def target_ref(hub: "Hub", call: Call, repo: Repo) -> str:
    """The ref that an upload or commit is for, once the caller is known to be allowed to push or propose to it."""
    check_gate(hub, call, repo)
    check_writer(call, repo)
    if call.flag("create_pr"):
        check_discuss(hub, call, repo)
        ref = branch_ref(hub.git(repo), call.params["revision"])
        if not ref.startswith("refs/heads/"):
            raise revision_not_found(call.params["revision"])
        return ref
    ref = branch_ref(hub.git(repo), call.params["revision"])
    check_ref(hub, call, repo, ref)
    return ref


@router.add("POST", "/api/{kind}/{repo}/preupload/{revision}")
async def preupload(hub: "Hub", call: Call) -> Response:
    """For each file: LFS or regular, ignored by .gitignore or not, and the id of what is there now."""
    repo = find_repo(hub, call)
    git = hub.git(repo)
    commit = git.ref(target_ref(hub, call, repo))
    body = await call.json()
    files = body.get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) and "path" in file for file in files):
        raise bad_request("`files` must be a list of {path, sample, size}")
    gitattributes = body["gitAttributes"].encode() if "gitAttributes" in body else git.gitattributes(commit)
    present = git.listing(commit).files if commit else {}
    if "gitIgnore" in body:
        gitignore = str(body["gitIgnore"])
    else:
        gitignore = git.read(present[".gitignore"].blob).decode("utf-8", "replace") if ".gitignore" in present else ""
    answers = []
    for file in files:
        path = check_path(str(file["path"]))
        sample = base64.b64decode(file.get("sample", ""))
        answer: dict[str, Any] = {
            "path": path,
            "uploadMode": upload_mode(path, int(file.get("size", 0)), sample, gitattributes),
            "shouldIgnore": _ignored(path, gitignore),
        }
        if path in present:
            answer["oid"] = present[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers})


def _ignored(path: str, gitignore: str) -> bool:
    """Whether .gitignore leaves a path out: names, globs and folders; the last matching line wins."""
    ignored = False
    for line in gitignore.splitlines():
        pattern = line.strip().rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        parts = path.split("/")
        parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if "/" in pattern:
            hit = any(fnmatch(parent, pattern.removeprefix("/")) for parent in parents)
        else:
            hit = any(fnmatch(part, pattern) for part in parts)
        ignored = not keep if hit else ignored
    return ignored


@router.add("POST", r"/{prefix}{repo}\.git/info/lfs/objects/batch")
async def lfs_batch(hub: "Hub", call: Call) -> Response:
    """Where to put the objects that this repository does not have, or where to get those that it has."""
    repo = find_repo(hub, call)
    body = await call.json()
    operation = body.get("operation")
    if operation not in ("upload", "download") or not isinstance(body.get("objects"), list):
        raise HubError(422, "Expected an operation and a list of objects")
    if operation == "upload":
        _check_upload(hub, call, repo, (body.get("ref") or {}).get("name"))
    else:
        check_gate(hub, call, repo)
    transfer, answers = "basic", []
    for wanted in body["objects"]:
        oid, size = str(wanted.get("oid")), wanted.get("size")
        if not SHA256.fullmatch(oid) or not isinstance(size, int) or size < 0:
            raise HubError(422, "An object needs a sha256 `oid` and a `size`")
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if operation == "download":
            answer |= _download(hub, repo, oid, size)
        elif hub.lfs(repo).size(oid) != size:
            actions = _upload_actions(hub, call, repo, oid, size)
            transfer = "multipart" if "chunk_size" in actions["upload"]["header"] else transfer
            answer |= {"authenticated": True, "actions": actions}
        answers.append(answer)
    return JSONResponse({"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, media_type=LFS_JSON)


def _check_upload(hub: "Hub", call: Call, repo: Repo, revision: str | None) -> None:
    """With a ref, the caller must be able to push to it; without one, to propose a pull request is enough."""
    check_gate(hub, call, repo)
    identity = check_writer(call, repo)
    if revision is None:
        if not may_discuss(identity, repo):
            raise forbidden("Authorization error.")
        return
    check_ref(hub, call, repo, branch_ref(hub.git(repo), revision), "Authorization error.")


def _download(hub: "Hub", repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if hub.lfs(repo).size(oid) != size:
        return {"error": {"code": 404, "message": "Object does not exist"}}
    url = hub.signer.sign("GET", f"/_storage/lfs/{repo.id}/{oid}", hub.settings.download_url_lifetime)
    return {"authenticated": True, "actions": {"download": {"href": hub.storage_url + url, "header": {}}}}


def _upload_actions(hub: "Hub", call: Call, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    lifetime = hub.settings.upload_url_lifetime
    verify = {"href": f"{call.base_url}{repo.web_path}.git/info/lfs/objects/verify", "header": {}}
    if size <= hub.settings.multipart_threshold:
        href = hub.storage_url + hub.signer.sign("PUT", f"/_storage/lfs/{repo.id}/{oid}/{size}", lifetime)
        return {"upload": {"href": href, "header": {}, "expires_in": int(lifetime)}, "verify": verify}
    upload = secrets.token_hex(8)
    hub.multipart_folder(upload).mkdir(parents=True)
    chunk = hub.settings.multipart_chunk
    header = {"chunk_size": str(chunk)}
    for number in range(1, -(-size // chunk) + 1):
        part = hub.signer.sign("PUT", f"/_storage/parts/{upload}/{number}", lifetime)
        header[f"{number:05d}"] = hub.storage_url + part
    href = call.base_url + hub.signer.sign("POST", f"/api/complete_multipart/{upload}/{repo.id}/{oid}/{size}", lifetime)
    return {"upload": {"href": href, "header": header, "expires_in": int(lifetime)}, "verify": verify}


@router.add("POST", "/api/complete_multipart/{upload}/{repo_id}/{oid}/{size}", writes=True, public=True)
async def complete_multipart(hub: "Hub", call: Call) -> Response:
    """Join the parts of a large object; the URL is signed, no token comes with it."""
    hub.signer.check("POST", call)
    body = await call.json()
    try:
        parts = [(int(part["partNumber"]), str(part["etag"]).strip('"')) for part in body["parts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request("Expected {oid, parts: [{partNumber, etag}]}") from error
    if body.get("oid") != call.params["oid"]:
        raise bad_request("`oid` is not the object that this upload is for")
    objects, oid, size = hub.lfs_by_id(call.params["repo_id"]), call.params["oid"], int(call.params["size"])
    if objects.size(oid) != size:  # a client that lost our first answer asks again
        folder = hub.multipart_folder(call.params["upload"])
        assemble(objects, folder, parts, oid, size)
        shutil.rmtree(folder)
    return JSONResponse({"success": True})


@router.add("POST", r"/{prefix}{repo}\.git/info/lfs/objects/verify")
async def lfs_verify(hub: "Hub", call: Call) -> Response:
    """Did the object arrive? 404 when it did not, 422 when its size is another."""
    repo = find_repo(hub, call)
    check_writer(call, repo)
    body = await call.json()
    size = hub.lfs(repo).size(str(body.get("oid")))
    if size is None:
        raise HubError(404, "Object not found")
    if size != body.get("size"):
        raise HubError(422, "The object has another size")
    return JSONResponse({"success": True}, media_type=LFS_JSON)


@router.add("POST", "/api/validate-yaml")
async def validate_yaml(hub: "Hub", call: Call) -> Response:
    """Checks the metadata at the top of a README.md before it is uploaded."""
    body = await call.json()
    front_matter, _ = split_front_matter(str(body.get("content", "")))
    if front_matter is None:
        warning = {"message": "empty or missing yaml metadata in repo card"}
        return JSONResponse({"errors": [], "warnings": [warning]})
    try:
        metadata = yaml.safe_load(front_matter)
    except yaml.YAMLError as error:
        return _invalid(f"Invalid YAML: {error}")
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        return _invalid("The metadata must be a mapping")
    errors = [
        f'"{name}" must be {" or ".join("a list" if kind is list else "a string" for kind in kinds)}'
        for name, kinds in METADATA_TYPES.items()
        if name in metadata and not isinstance(metadata[name], kinds)
    ]
    return _invalid(*errors) if errors else JSONResponse({"errors": [], "warnings": []})


def _invalid(*messages: str) -> Response:
    errors = [{"message": message} for message in messages]
    body: dict[str, object] = {"error": "Invalid metadata", "errors": errors, "warnings": []}
    raise HubError(400, "Invalid metadata in README.md", body=body)


@router.add("GET", "/api/{kind}/{repo}/xet-(?P<direction>read|write)-token/{revision}")
async def xet_token(hub: "Hub", call: Call) -> Response:
    """This Hub has no Xet storage: clients have to be started with HF_HUB_DISABLE_XET=1."""
    find_repo(hub, call)
    raise HubError(404, "Xet is not available here: set HF_HUB_DISABLE_XET=1")
