"""`model_info` and `list_models`: what the Hub tells about a repository as a whole."""

import io
import json
import math
import re
import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import yaml
from starlette.responses import JSONResponse, Response

from .access import can_read, find_repo
from .errors import bad_request, revision_not_found
from .git import File, GitRepo
from .lfs import LfsObjects
from .records import Repo, iso
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
MAX_PARSED = 4 * 1024 * 1024
MAX_HEADER = 25 * 1024 * 1024
SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")

EXPANDABLE = frozenset(
    {
        "author",
        "baseModels",
        "cardData",
        "childrenModelCount",
        "config",
        "createdAt",
        "disabled",
        "downloads",
        "downloadsAllTime",
        "evalResults",
        "gated",
        "gguf",
        "inference",
        "inferenceProviderMapping",
        "lastModified",
        "library_name",
        "likes",
        "mask_token",
        "model-index",
        "pipeline_tag",
        "private",
        "resourceGroup",
        "safetensors",
        "sha",
        "siblings",
        "spaces",
        "tags",
        "transformersInfo",
        "trendingScore",
        "usedStorage",
        "widgetData",
        "xetEnabled",
    }
)
CONFIG_KEYS = ("architectures", "auto_map", "model_type", "quantization_config")

# Suffix of the architecture's class name -> task, as the Hub guesses it from config.json.
TASKS = {
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForConditionalGeneration": "text2text-generation",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
    "Model": "feature-extraction",
}


def split_front_matter(readme: str) -> tuple[str | None, str]:
    """The YAML between the two `---` lines at the top of a README (`None` without), and the text after it."""
    lines = readme.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "---":
        return None, readme
    for number, line in enumerate(lines[1:], 1):
        if line.strip() == "---":
            return "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    return None, readme


class Snapshot:
    """A repository at one commit, with what the Hub reads out of its files."""

    def __init__(self, git: GitRepo, lfs: LfsObjects, commit: str):
        self.git, self.lfs, self.commit = git, lfs, commit
        self.files = git.listing(commit).files

    def text(self, path: str) -> str | None:
        file = self.files.get(path)
        if file is None or file.lfs is not None or file.size > MAX_PARSED:
            return None
        return self.git.read(file.blob).decode("utf-8", "replace")

    def json(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self.text(path) or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def card_data(self) -> dict[str, Any]:
        front_matter, _ = split_front_matter(self.text("README.md") or "")
        try:
            value = yaml.safe_load(front_matter or "")
        except yaml.YAMLError:
            return {}
        # Through JSON, because YAML knows dates and the API does not.
        return json.loads(json.dumps(value, default=str)) if isinstance(value, dict) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The part of config.json that the Hub shows."""
        config, tokenizer = self.json("config.json"), self.json("tokenizer_config.json")
        shown = {name: config[name] for name in CONFIG_KEYS if name in config}
        special = {
            name: value["content"] if isinstance(value, dict) and "content" in value else value
            for name, value in tokenizer.items()
            if name == "chat_template" or (name.endswith("_token") and not name.startswith("add_"))
        }
        if tokenizer:
            shown["tokenizer_config"] = special
        return shown

    @cached_property
    def library(self) -> str | None:
        declared = self.card_data.get("library_name")
        if declared:
            return str(declared)
        if "modules.json" in self.files:
            return "sentence-transformers"
        return "transformers" if {"architectures", "model_type"} & self.json("config.json").keys() else None

    @cached_property
    def task(self) -> str | None:
        declared = self.card_data.get("pipeline_tag")
        if declared:
            return str(declared)
        if self.library != "transformers":
            return None
        for architecture in self.json("config.json").get("architectures") or []:
            for suffix, task in TASKS.items():
                if str(architecture).endswith(suffix):
                    return task
        return None

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters by dtype, from the headers of the model's safetensors files; nothing if one is damaged."""
        found: dict[str, int] = {}
        try:
            for path, file in self.files.items():
                if SAFETENSORS.fullmatch(path):
                    for name, tensor in self._safetensors_header(file).items():
                        if name != "__metadata__":
                            dtype, shape = tensor["dtype"], tensor["shape"]
                            found[dtype] = found.get(dtype, 0) + math.prod(shape)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error):
            return {}
        return found

    def _safetensors_header(self, file: File) -> dict[str, Any]:
        path = self.lfs.path(file.lfs.sha256) if file.lfs else None
        with path.open("rb") if path else io.BytesIO(self.git.read(file.blob)) as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER:
                raise ValueError(length)
            value = json.loads(stream.read(length))
        return value if isinstance(value, dict) else {}

    @cached_property
    def tags(self) -> list[str]:
        card, found = self.card_data, []
        if library := self.library:
            found.append(library)
        suffixes = {path.rsplit(".", 1)[-1] for path in self.files}
        names = {path.rsplit("/", 1)[-1] for path in self.files}
        found += ["pytorch"] if names & {"pytorch_model.bin", "pytorch_model.bin.index.json"} else []
        found += ["tf"] if "tf_model.h5" in names else []
        found += ["jax"] if "flax_model.msgpack" in names else []
        found += ["onnx"] if "onnx" in suffixes else []
        found += ["safetensors"] if "safetensors" in suffixes else []
        found += ["gguf"] if "gguf" in suffixes else []
        config = self.json("config.json")
        found += [str(config["model_type"])] if config.get("model_type") else []
        found += [self.task or ""]
        found += ["custom_code"] if config.get("auto_map") else []
        found += _strings(card.get("tags")) + _strings(card.get("language"))
        found += [f"dataset:{name}" for name in _strings(card.get("datasets"))]
        found += [f"base_model:{name}" for name in _strings(card.get("base_model"))]
        found += [f"license:{name}" for name in _strings(card.get("license"))]
        found.append("region:us")
        return list(dict.fromkeys(tag for tag in found if tag))

    def everything(self, repo: Repo) -> dict[str, Any]:
        """`model_info` without `blobs` or `expand`: what the files say and what the records say."""
        card = self.card_data
        commit = self.git.commit_info(self.commit)
        found: dict[str, Any] = {
            "_id": repo.id,
            "id": repo.name,
            "modelId": repo.name,
            "author": repo.namespace if "/" in repo.name else None,
            "sha": self.commit,
            "lastModified": iso(commit.time),
            "createdAt": iso(repo.created),
            "private": repo.private,
            "gated": repo.gated,
            "disabled": repo.disabled,
            "downloads": repo.downloads,
            "likes": repo.likes,
            "tags": self.tags,
            "cardData": card,
            "config": self.config,
            "siblings": [{"rfilename": path} for path in self.files],
            "spaces": [],
            "usedStorage": sum({file.lfs.sha256: file.size for file in self.files.values() if file.lfs}.values()),
            "model-index": card.get("model-index"),
        }
        if library := self.library:
            found["library_name"] = library
        if task := self.task:
            found["pipeline_tag"] = task
        if architectures := self.config.get("architectures"):
            found["transformersInfo"] = {"auto_model": _auto_model(architectures[0]), "pipeline_tag": self.task}
        if self.parameters:
            found["safetensors"] = {"parameters": self.parameters, "total": sum(self.parameters.values())}
        if repo.kind != "model":
            for name in (
                "modelId",
                "safetensors",
                "config",
                "library_name",
                "pipeline_tag",
                "transformersInfo",
                "model-index",
            ):
                found.pop(name, None)
        return found


def _auto_model(architecture: str) -> str:
    suffix = next((suffix for suffix in TASKS if str(architecture).endswith(suffix)), "Model")
    return f"AutoModel{'' if suffix == 'Model' else suffix}"


def _strings(value: object) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def tags_of(hub: "Hub", repo: Repo, commit: str) -> list[str]:
    return hub.snapshot(repo, commit).tags


def sibling(file: File) -> dict[str, Any]:
    """A file as `blobs=True` lists it."""
    found: dict[str, Any] = {"rfilename": file.path, "blobId": file.blob, "size": file.size}
    if file.lfs:
        found["lfs"] = {"sha256": file.lfs.sha256, "size": file.lfs.size, "pointerSize": file.blob_size}
    return found


def commit_of(hub: "Hub", repo: Repo, revision: str) -> str:
    """Raises 404 `RevisionNotFound` when the repository has no such branch, tag, ref or commit."""
    commit = hub.git(repo).resolve(revision)
    if commit is None:
        raise revision_not_found(revision)
    return commit


@router.add("GET", "/api/{kind}/{repo}/revision/{revision}")
@router.add("GET", "/api/{kind}/{repo}")
async def repo_info(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    commit = commit_of(hub, repo, call.params.get("revision", "main"))
    everything = hub.snapshot(repo, commit).everything(repo)
    if wanted := call.query.get("expand", []) + call.query.get("expand[]", []):
        return JSONResponse(_expanded(everything, wanted))
    if call.flag("blobs"):
        everything["siblings"] = [sibling(file) for file in hub.git(repo).listing(commit).files.values()]
    if call.flag("securityStatus"):
        everything["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    return JSONResponse(everything)


def _expanded(everything: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    if unknown := [name for name in wanted if name not in EXPANDABLE]:
        raise bad_request(f"Invalid expand: {', '.join(unknown)}")
    kept = {"_id", "id", *wanted}
    return {name: value for name, value in everything.items() if name in kept}


@router.add("GET", "/api/{kind}")
async def list_repos(hub: "Hub", call: Call) -> Response:
    """Repositories that the caller may see, newest change first; paged by `Link`."""
    found = []
    for repo in hub.records.all(Repo):
        head = hub.head(repo) if repo.kind == call.kind and not repo.disabled else None
        if head is None or not can_read(hub.records, call.identity, repo) or not _selected(call, repo):
            continue
        everything = hub.snapshot(repo, head).everything(repo)
        pipeline = call.text("pipeline_tag")
        wanted = call.query.get("filter", [])
        if all(tag in everything["tags"] for tag in wanted) and pipeline in (None, everything.get("pipeline_tag")):
            found.append(everything)
    sort = call.text("sort") or "lastModified"
    number = sort in ("downloads", "likes")
    found.sort(key=lambda item: item.get(sort) or 0 if number else str(item.get(sort)), reverse=True)

    size = min(call.integer("limit", hub.settings.models_page), hub.settings.models_page)
    start = call.integer("cursor", 0)
    page = [_listed(call, everything) for everything in found[start : start + size]]
    return JSONResponse(page, headers=next_link(call, start + size) if start + size < len(found) else {})


def _selected(call: Call, repo: Repo) -> bool:
    author, search, gated = call.text("author"), call.text("search"), call.text("gated")
    return (
        (author is None or repo.namespace == author)
        and (search is None or search.lower() in repo.name.lower())
        and (gated is None or bool(repo.gated) == (gated.lower() == "true"))
    )


def _listed(call: Call, everything: dict[str, Any]) -> dict[str, Any]:
    """One entry of a list: short, unless more is asked for."""
    if wanted := call.query.get("expand", []):
        return _expanded(everything, wanted)
    kept = ["_id", "id", "modelId", "private", "tags", "createdAt", "downloads", "likes"]
    kept += ["library_name", "pipeline_tag"]
    if call.flag("full"):
        kept += ["author", "sha", "lastModified", "gated", "disabled", "siblings"]
    kept += ["config"] if call.flag("config") else []
    kept += ["cardData"] if call.flag("cardData") else []
    return {name: everything[name] for name in kept if name in everything}


def next_link(call: Call, cursor: int) -> dict[str, str]:
    """The `Link` header to the page that starts at `cursor`."""
    query = {name: values for name, values in call.query.items() if name != "cursor"} | {"cursor": [str(cursor)]}
    return {"Link": f'<{call.base_url}{call.raw_path}?{urlencode(query, doseq=True)}>; rel="next"'}
