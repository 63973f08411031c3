"""The whole story of one export: inspect -> load -> trace -> project -> write -> bundle -> check -> manifest."""

import errno
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from modelexport import bridge, checkpoint, isolation, model_card, output, task, temporary
from modelexport.bundle import bundle, verify
from modelexport.check import Checked, check
from modelexport.checkpoint import Checkpoint
from modelexport.contract.cost import estimate, memory_limit, require_fits
from modelexport.contract.errors import DiskFullError
from modelexport.contract.events import Note, Stage, StageName
from modelexport.contract.manifest import MANIFEST_NAME, FileEntry, Manifest, Options, Source, WeightFile
from modelexport.convert import Converted, convert
from modelexport.graph import IR_VERSION
from modelexport.isolation import Emit
from modelexport.parity.numbers import tolerance

_VERSIONS = ("modelexport", "torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnx-ir", "onnxruntime")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Origin:
    """Which commit of which repo the folder is a snapshot of; both None for a folder of unknown origin."""

    repo: str | None = None
    sha: str | None = None


def export(
    source: Path,
    out: Path,
    options: Options,
    *,
    origin: Origin,
    overwrite: bool,
    emit: Emit,
    max_memory: int | None = None,
    trust_remote_code: bool = False,
) -> Manifest:
    """Export the model in ``source`` to the folder ``out``, checked.

    Args:
        max_memory: bytes that the export may use; None for what the machine or container has.
        trust_remote_code: the operator allows code in ``source`` to be run; in a process without network only, see
            :mod:`modelexport.confinement`.

    Raises:
        ModelExportError: any of :mod:`modelexport.contract.errors`; ``out`` is then as it was before.
    """
    try:
        with (
            output.staged(out, overwrite=overwrite) as folder,
            temporary.folder() as scratch,
        ):
            emit(Stage(stage=StageName.INSPECT, detail=source.name))
            read = checkpoint.read(source, trust_remote_code=trust_remote_code)
            cost = estimate(_exported(read, options), _computed(read, options))
            require_fits(cost, memory_limit(max_memory), shutil.disk_usage(folder).free, source.name)
            manifest = _export(read, folder, scratch, options, origin, emit)
            (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(
                f"The disk is full ({error.strerror}). {out} was not written. Free space for about twice the size of "
                "the weights there and in the temporary folder (TMPDIR), then run again."
            ) from error
        raise
    return manifest


def _exported(read: Checkpoint, options: Options) -> int:
    """Bytes of the weights in the dtype that they are exported in."""
    sizes = {"float16": 2, "bfloat16": 2, "float64": 8}
    return read.nbytes if options.dtype == "source" else read.nbytes * 4 // sizes.get(read.dtype, 4)


def _computed(read: Checkpoint, options: Options) -> int:
    """Bytes of the weights in the widest dtype that PyTorch computes in: float16 is held against float32."""
    return 2 * read.nbytes if options.dtype == "source" and read.dtype == "float16" else _exported(read, options)


def _export(read: Checkpoint, folder: Path, scratch: Path, options: Options, origin: Origin, emit: Emit) -> Manifest:
    chosen = task.resolve(
        read.model_type,
        read.architectures,
        requested=options.task or _pooled(read),
        pipeline_tag="feature-extraction"
        if read.library == "sentence_transformers"
        else model_card.pipeline_tag(read.root),
        custom_classes=read.custom_classes,
    )
    model_class = task.ort_model_class(chosen, read.architectures, read.custom_classes)
    (prepared_folder := scratch / "prepared").mkdir()
    prepared = bridge.prepare(read, prepared_folder)
    for note in prepared.notes:
        emit(Note(message=note))
    bundled = bundle(read, prepared, folder)
    with (  # beside the trace, which leaves a core free
        isolation.Part(_verify, prepared.folder, folder) as verifying,
        isolation.Part(_digests, read) as hashing,
    ):
        converted = isolation.run(convert, read, prepared, chosen, options, folder, scratch, emit=emit)
        emit(Stage(stage=StageName.BUNDLE))
        verifying.result(emit)
        digests = hashing.result(emit)
    allowed = tolerance(converted.dtype, options.atol)
    checked = isolation.run(check, folder, converted.references, model_class, allowed, emit=emit)
    notes = (*prepared.notes, *converted.notes, *bundled.notes, *checked.notes)
    return _manifest(read, digests, folder, options, origin, chosen, converted, checked, notes)


def _pooled(read: Checkpoint) -> str | None:
    """The task of a repo of sentence-transformers: its modules pool what the model returns, whatever its head."""
    return "feature-extraction" if (read.root / "modules.json").is_file() else None


def _verify(source: Path, out: Path, _: Emit) -> None:
    """In a process of its own: tokenizers start threads, and a process with threads must not be forked."""
    verify(source, out)


def _digests(read: Checkpoint, _: Emit) -> Mapping[str, str]:
    """In a process of its own: it reads all weights, and takes as long as that."""
    return dict(read.weight_digests())


def _manifest(
    read: Checkpoint,
    digests: Mapping[str, str],
    folder: Path,
    options: Options,
    origin: Origin,
    chosen: str,
    converted: Converted,
    checked: Checked,
    notes: tuple[str, ...],
) -> Manifest:
    weights = tuple(WeightFile(path=file.path, size=file.size, sha256=digests[file.path]) for file in read.weights)
    hashed = {file.path.name: file.sha256 for file in converted.files}
    return Manifest(
        source=Source(repo=origin.repo, sha=origin.sha, weights=weights),
        options=options,
        options_digest=options.digest(),
        task=chosen,
        library=read.library,
        model_type=read.model_type,
        architecture=converted.architecture,
        versions={name: version(name) for name in _VERSIONS},
        opset=converted.opset,
        ir_version=IR_VERSION,
        dtype=converted.dtype,
        graphs=converted.graphs,
        parity=checked.parity,
        optimum=checked.optimum,
        files=tuple(_files(folder, hashed)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _files(folder: Path, hashed: dict[str, str]) -> list[FileEntry]:
    """Every file of the folder; those that were hashed while they were written are not read again."""
    return [
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=hashed.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
