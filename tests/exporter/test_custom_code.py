"""Models that are code of their repo: run when the operator says so, without network, and leaving nothing behind."""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import BertModel

from modelexport import checkpoint, confinement
from modelexport.contract.errors import (
    ERRORS,
    CheckpointUnreadableError,
    CustomCodeError,
    ErrorCode,
    ExporterCrashedError,
    OutOfMemoryError,
    ParityFailedError,
)
from modelexport.contract.events import Note, parse_event
from modelexport.contract.manifest import Manifest, Options
from modelexport.export import Origin, export
from tests.exporter import custom_code
from tests.exporter.folders import write_model
from tests.exporter.test_cli import COMMAND, modelexport

pytestmark = pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine does not let a process give up its network",
)

TRUST = "--trust-remote-code"


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A home and a temporary folder of their own; nothing may be left in either."""
    folders = {name: tmp_path / "clean" / name for name in ("TMPDIR", "HF_HOME")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    yield {name: str(folder) for name, folder in folders.items()}
    assert {name: list(folder.rglob("*")) for name, folder in folders.items()} == {"TMPDIR": [], "HF_HOME": []}


def refused(code: ErrorCode, *arguments: object, **environment: str) -> str:
    """What is said of an export that must fail with ``code``."""
    done = modelexport("export", *arguments, **environment)
    assert done.returncode == ERRORS[code].exit_status, done.stderr
    return " ".join(done.stderr.split())


def marks(file: Path) -> str:
    """Code that shows that it was run."""
    return f"open({str(file)!r}, 'a').write('ran')\n"


def of_transformers(model: Path, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """What BERT itself computes from the weights, and what Optimum computes from the exported folder."""
    inputs = {"input_ids": torch.tensor([[2, 9, 11, 30, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    inputs["token_type_ids"] = torch.zeros(1, 5, dtype=torch.int64)
    with torch.no_grad():
        plain = BertModel.from_pretrained(model, trust_remote_code=False)(**inputs).last_hidden_state.numpy()
    exported = ORTModelForFeatureExtraction.from_pretrained(out, local_files_only=True)(**inputs).last_hidden_state
    return plain, exported.numpy()


# --- end to end ------------------------------------------------------------------------------------------------------


def test_the_code_is_what_is_exported_and_the_folder_needs_none_of_it(tmp_path: Path, clean: dict[str, str]) -> None:
    model = custom_code.save(tmp_path / "model")
    done = modelexport("export", model, tmp_path / "out", TRUST, **clean)
    assert done.returncode == 0, done.stderr
    plain, exported = of_transformers(model, tmp_path / "out")
    assert np.abs(exported - 2 * plain).max() < 1e-5 < np.abs(exported - plain).max()
    manifest = Manifest.from_json((tmp_path / "out" / "modelexport.json").read_text())
    assert manifest.architecture == "OwnBertModel"
    told = "\n".join(manifest.notes)
    for name in ("modeling_own.py", "layers_own.py"):
        assert f"{name} (sha256 {hashlib.sha256((model / name).read_bytes()).hexdigest()})" in told
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert not list((tmp_path / "out").glob("*.py"))
    # the code that is there now is what is run, not what was there the last time
    (model / "layers_own.py").write_text(custom_code.LAYERS.replace("2.0", "3.0"))
    assert modelexport("export", model, tmp_path / "out", TRUST, "--overwrite", **clean).returncode == 0
    plain, exported = of_transformers(model, tmp_path / "out")
    assert np.abs(exported - 3 * plain).max() < 1e-5
    checked = modelexport("check", tmp_path / "out", "--against", model, TRUST, "--modules", "--json", **clean)
    assert json.loads(checked.stdout)["passed"], checked.stderr
    (model / "layers_own.py").write_text(custom_code.LAYERS)
    checked = modelexport("check", tmp_path / "out", "--against", model, TRUST, "--json", **clean)
    assert json.loads(checked.stdout)["code"] == "parity_failed"
    assert checked.returncode == ERRORS[ErrorCode.PARITY_FAILED].exit_status
    checked = modelexport("check", tmp_path / "out", "--against", model, TRUST, "--modules", **clean)
    assert "The first module" in checked.stderr and "doubled" in checked.stderr
    assert modelexport("check", tmp_path / "out", TRUST).returncode == ERRORS[ErrorCode.USAGE].exit_status


def test_code_is_run_only_when_it_is_allowed(tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model", before=marks(tmp_path / "ran"))
    assert TRUST in refused(ErrorCode.CUSTOM_CODE, model, tmp_path / "out")
    (model / ".modelexport.yaml").write_text("trust_remote_code: true\n")
    refused(ErrorCode.CUSTOM_CODE, model, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert modelexport("export", model, tmp_path / "out", TRUST).returncode == 0
    assert (tmp_path / "ran").exists()


def test_a_class_that_transformers_has_too_is_taken_from_the_repo_only_if_that_is_allowed(tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model")
    code = (model / "modeling_own.py").read_text()
    (model / "modeling_own.py").write_text(code.replace("import BertModel", "import BertModel as Base"))
    code = (model / "modeling_own.py").read_text().replace("class OwnBertModel(BertModel)", "class BertModel(Base)")
    (model / "modeling_own.py").write_text(code)
    auto_map = {"AutoModel": "modeling_own.BertModel"}
    custom_code.change_config(model, architectures=["BertModel"], auto_map=auto_map)
    for arguments, factor in (([TRUST], 2), ([], 1)):
        done = modelexport("export", model, tmp_path / "out", "--overwrite", *arguments)
        assert done.returncode == 0, done.stderr
        plain, exported = of_transformers(model, tmp_path / "out")
        assert np.abs(exported - factor * plain).max() < 1e-5


def test_a_warm_exporter_forgets_the_code_of_the_job_before(bert: Path, tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model", before="import transformers\ntransformers.BertModel.forward = None\n")
    good = custom_code.save(tmp_path / "good")
    jobs = [
        [str(model), str(tmp_path / "a"), TRUST],
        [str(bert), str(tmp_path / "b")],
        [str(good), str(tmp_path / "c")],
    ]
    jobs.append([*jobs[2], TRUST])
    requests = "".join(json.dumps({"arguments": job}) + "\n" for job in jobs)
    done = subprocess.run([*COMMAND, "serve-jobs"], input=requests, capture_output=True, text=True, check=True)
    last = [event for line in done.stdout.splitlines() if (event := parse_event(line))]
    ends = [event.event for event in last if event.event in ("finished", "failed")]
    assert ends == ["failed", "finished", "failed", "finished"]


# --- no network ------------------------------------------------------------------------------------------------------

PROBE = """
import ctypes, os, socket
def tried(where, family, address):
    try:
        with socket.socket(family) as one:
            one.settimeout(2)
            one.connect(address)
            one.send(b"hello")
            said = "connected"
    except OSError as error:
        said = "refused"
    open(RESULT, "a").write(f"{where} {said}\\n")
def back():
    libc = ctypes.CDLL(None)
    for pid in (os.getppid(), 1):
        try:
            if libc.setns(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), 0) == 0:
                return
        except OSError:
            pass
def all_of_them(when):
    tried(f"{when}-tcp", socket.AF_INET, ("127.0.0.1", PORT))
    tried(f"{when}-unix", socket.AF_UNIX, PATH)
    tried(f"{when}-abstract", socket.AF_UNIX, chr(0) + PATH)
all_of_them("at-once")
back()
all_of_them("after-trying-to-get-back")
if os.fork() == 0:
    ctypes.CDLL(None).unshare(0x10000000)
    all_of_them("in-a-child-that-is-root-in-a-namespace-of-its-own")
    os._exit(0)
os.wait()
"""


def test_the_code_has_no_network_and_no_way_back_to_one(tmp_path: Path) -> None:
    path = f"/tmp/{os.urandom(8).hex()}"  # a socket's path may have 107 bytes only
    listeners = [socket.create_server(("127.0.0.1", 0))]
    for name in (path, "\0" + path):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(name)
        listeners[-1].listen()
    result = tmp_path / "result"
    probe = f"RESULT = {str(result)!r}\nPORT = {listeners[0].getsockname()[1]}\nPATH = {path!r}\n{PROBE}"
    try:
        model = custom_code.save(tmp_path / "model", before=probe)
        done = modelexport("export", model, tmp_path / "out", TRUST)
        assert done.returncode == 0, done.stderr
        lines = result.read_text().split("\n")[:-1]
        assert len(lines) >= 9 and all(line.endswith(" refused") for line in lines), lines
        for listener in listeners:
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
        # the probe can find an open way
        result.unlink()
        subprocess.run([sys.executable, "-c", probe], check=True)
        assert "refused" not in result.read_text()
        for listener in listeners:
            assert listener.accept()[0].recv(5) == b"hello"
    finally:
        for listener in listeners:
            listener.close()
        Path(path).unlink()


def test_a_connection_that_was_open_before_is_of_no_use() -> None:
    ours, theirs = socket.socketpair()

    def use_it(_: object) -> str:
        try:
            theirs.send(b"hello")
        except OSError:
            return "not a socket any more"
        return "sent"

    assert confinement.run(use_it, _silent) == "not a socket any more"
    ours.settimeout(0)
    with pytest.raises(BlockingIOError):
        ours.recv(5)
    theirs.send(b"still ours")


def test_capabilities_and_other_processes_are_out_of_reach() -> None:
    def look(_: object) -> str:
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        with pytest.raises(PermissionError):
            Path(f"/proc/{os.getppid()}/mem").read_bytes()
        with pytest.raises(PermissionError):
            Path(f"/proc/{os.getppid()}/fd/0").readlink()
        return "looked"

    assert confinement.run(look, _silent) == "looked"


def test_system_calls_that_reach_around_the_namespace_are_filtered() -> None:
    def attempt(_: object) -> str:
        found = {}
        for name, command in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCGWINSZ", 0x5413)):
            with pytest.raises(OSError, match="") as error:
                fcntl.ioctl(9999, command, b"x" * 64)
            found[name] = errno.errorcode[error.value.errno or 0]
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(425, 1, ctypes.create_string_buffer(120)) == -1  # io_uring_setup
        found["io_uring"] = errno.errorcode[ctypes.get_errno()]
        first, second = socket.socketpair()  # as asyncio needs it: it leads nowhere else
        first.send(b"hello")
        found["pair"] = second.recv(5).decode()
        return json.dumps(found)

    assert json.loads(confinement.run(attempt, _silent)) == {
        "TIOCSTI": "EPERM",
        "TIOCLINUX": "EPERM",
        "TIOCGWINSZ": "EBADF",
        "io_uring": "EPERM",
        "pair": "hello",
    }


@pytest.mark.parametrize(
    ("limit", "why"), [("max_net_namespaces", "No space left"), ("max_user_namespaces", "No space left")]
)
def test_where_the_network_cannot_be_cut_nothing_is_run(tmp_path: Path, limit: str, why: str) -> None:
    model = custom_code.save(tmp_path / "model", before=marks(tmp_path / "ran"))
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    command = ["unshare", "-r", "sh", "-c", script, "sh", *COMMAND, "export", model, tmp_path / "out", TRUST]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == ERRORS[ErrorCode.CUSTOM_CODE].exit_status, done.stderr
    assert why in done.stderr and "without network only" in done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_on_another_platform_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement.sys, "platform", "darwin")
    with pytest.raises(CustomCodeError, match="darwin"):
        confinement.run(lambda _: "ran", _silent)


@pytest.mark.parametrize("step", ["_filter_system_calls", "_unshare"])
def test_a_step_that_does_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Without its namespace or filter the process can reach something, and then nothing is run."""
    monkeypatch.setattr(confinement, step, lambda _: None)
    with pytest.raises(CustomCodeError, match="Nothing was run"):
        confinement.run(lambda _: "ran", _silent)


def test_in_a_process_with_network_the_code_is_not_run(tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model", before=marks(tmp_path / "ran"))
    with pytest.raises(CustomCodeError, match="without network only"):
        export(
            model,
            tmp_path / "out",
            Options(),
            origin=Origin(),
            overwrite=False,
            emit=_silent,
            trust_remote_code=True,
        )
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


# --- how the process ends --------------------------------------------------------------------------------------------


def test_events_and_errors_come_back_as_what_they_are() -> None:
    events: list[Any] = []

    def fail(emit: Any) -> str:
        emit(Note(message="working"))
        raise ParityFailedError("the numbers are wrong")

    with pytest.raises(ParityFailedError, match="numbers are wrong"):
        confinement.run(fail, events.append)
    assert events == [Note(message="working")]
    with pytest.raises(ExporterCrashedError, match="LookupError: a bug"):
        confinement.run(_bug, _silent)
    with pytest.raises(OutOfMemoryError):
        confinement.run(lambda _: str(os.kill(os.getpid(), signal.SIGKILL)), _silent)
    with pytest.raises(ExporterCrashedError, match="SIGUSR1"):
        confinement.run(lambda _: str(os.kill(os.getpid(), signal.SIGUSR1)), _silent)


def test_what_the_code_leaves_running_is_killed(tmp_path: Path) -> None:
    stays = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
"""
    model = custom_code.save(tmp_path / "model", before=stays)
    assert modelexport("export", model, tmp_path / "out", TRUST).returncode == 0
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_stopping_an_export_leaves_nothing(tmp_path: Path, clean: dict[str, str]) -> None:
    model = custom_code.save(tmp_path / "model", before=marks(tmp_path / "ran") + "import time\ntime.sleep(600)\n")
    command = [*COMMAND, "export", str(model), str(tmp_path / "out"), TRUST]
    process = subprocess.Popen(command, env=os.environ | clean, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "ran").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert below
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ERRORS[ErrorCode.CANCELLED].exit_status
    assert psutil.wait_procs(below, timeout=10)[1] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "model", "ran"]


# --- what is not run although it is allowed --------------------------------------------------------------------------


def test_what_optimum_could_not_export_or_load_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model", before=marks(tmp_path / "ran"), model_type="acme")
    assert "no ONNX export" in refused(ErrorCode.UNSUPPORTED_ARCHITECTURE, model, tmp_path / "out", TRUST)
    custom_code.change_config(model, model_type="internlm2")  # Optimum has it, transformers 4.57 has not
    said = refused(ErrorCode.CUSTOM_CODE, model, tmp_path / "out", TRUST, "--task", "text-generation")
    assert "could not load the exported folder" in said
    assert not (tmp_path / "ran").exists()


def test_a_task_that_the_code_has_no_class_for(tmp_path: Path) -> None:
    model = custom_code.save(tmp_path / "model")
    said = refused(ErrorCode.TASK_UNKNOWN, model, tmp_path / "out", TRUST, "--task", "fill-mask")
    assert "it has AutoModel" in said


CONFIGURATION = """
from transformers import BertConfig


class OwnConfig(BertConfig):
    model_type = "bert"

    def __init__(self, layer_norm_eps=0.5, own=7, **options):
        super().__init__(layer_norm_eps=layer_norm_eps, **options)
        self.own = own
"""


def test_a_config_class_of_its_own_must_read_what_transformers_reads(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnBertModel"}
    model = custom_code.save(tmp_path / "model", auto_map=auto_map)
    (model / "configuration_own.py").write_text(CONFIGURATION)
    code = (model / "modeling_own.py").read_text()
    (model / "modeling_own.py").write_text(
        code.replace("self.doubled = ", "assert config.own == 7\n        self.doubled = ")
    )
    assert modelexport("export", model, tmp_path / "out", TRUST).returncode == 0
    config = json.loads((model / "config.json").read_text())
    del config["layer_norm_eps"]
    (model / "config.json").write_text(json.dumps(config))
    said = refused(ErrorCode.CUSTOM_CODE, model, tmp_path / "other", TRUST)
    assert "takes layer_norm_eps to be 0.5" in said and "1e-12" in said


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("import a_package_that_is_not_there\n", "a_package_that_is_not_there"),
        ("class PreTrainedModel: pass\n", None),
    ],
)
def test_code_that_fails_is_an_error_of_ours(tmp_path: Path, before: str, why: str | None) -> None:
    model = custom_code.save(tmp_path / "model", before=before)
    if why is None:
        (model / "modeling_own.py").write_text("class OwnBertModel: pass\n")
        why = "not a subclass"
    assert why in refused(ErrorCode.CUSTOM_CODE, model, tmp_path / "out", TRUST)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("other/repo--modeling_own.OwnBertModel", "another repo"),
        ("--modeling_own.OwnBertModel", "another repo"),
        ("../modeling_own.OwnBertModel", "not a class"),
        ("folder/modeling_own.OwnBertModel", "not a class"),
        ("/etc/modeling_own.OwnBertModel", "not a class"),
        ("..modeling_own.OwnBertModel", "not a class"),
        ("modeling_own", "not a class"),
        ("modeling_own.OwnBertModel\n", "not a class"),
        (["modeling_own.OwnBertModel"], "not a class"),
        (None, "not a class"),
        ("modeling_other.OwnBertModel", "does not have"),
    ],
)
def test_references_that_lead_elsewhere_are_refused(tmp_path: Path, reference: object, why: str) -> None:
    write_model(tmp_path, {"auto_map": {"AutoModel": reference}})
    (tmp_path / "modeling_own.py").write_text("")
    with pytest.raises(CustomCodeError, match=why):
        checkpoint.read(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("from ..above import x", "'..above'"),
        ("from .. import above", "'..above'"),
        ("from .folder.file import x", "'.folder.file'"),
        ("def f():\n    from ..above import x", "'..above'"),
        ("'''\nfrom ./../../elsewhere import x\n'''", "elsewhere"),
        ("from .missing import x", "missing.py"),
        ("from . import missing", "missing.py"),
        ("from .second import x", "second.py is not Python"),
        ("from .link import x", None),
        ("from .large import x", "larger"),
        ("x = (", "not Python"),
        ("\udcff", "not Python"),
    ],
)
def test_imports_that_lead_elsewhere_are_refused(tmp_path: Path, code: str, why: str | None) -> None:
    model = write_model(tmp_path / "model", {"auto_map": {"AutoModel": "m.M"}})
    (model / "m.py").write_bytes(code.encode("utf-8", "surrogateescape"))
    (model / "second.py").write_text("1 +")
    (model / "large.py").write_text("#" * (5 << 20))
    (tmp_path / "outside.py").write_text("")
    (model / "link.py").symlink_to(tmp_path / "outside.py")
    error = CustomCodeError if why else CheckpointUnreadableError
    with pytest.raises(error, match=why or "outside of the model folder"):
        checkpoint.read(model, trust_remote_code=True)


def test_all_files_that_are_run_are_known(tmp_path: Path) -> None:
    model = write_model(
        tmp_path, {"auto_map": {"AutoConfig": "c.C", "AutoModelForMaskedLM": "m.M", "AutoTokenizer": "t.T"}}
    )
    (model / "m.py").write_text("try:\n    from .a import x\nexcept ImportError:\n    from . import b\n")
    (model / "a.py").write_text("from .m import M\nfrom .c import C\n")
    for name in ("b", "c", "t", "unused"):
        (model / f"{name}.py").write_text("")
    code = checkpoint.read(model, trust_remote_code=True).custom_code
    assert code is not None
    assert [file.name for file in code.files] == ["a.py", "b.py", "c.py", "m.py"]
    assert code.auto_classes(("M",)) == ("AutoModelForMaskedLM",)
    assert checkpoint.read(model).custom_code is None
    shutil.copy(model / "config.json", model / "kept.json")
    (model / "config.json").write_text(
        json.dumps(json.loads((model / "kept.json").read_text()) | {"auto_map": {"AutoTokenizer": "t.T"}})
    )
    assert checkpoint.read(model, trust_remote_code=True).custom_code is None


def _bug(_: object) -> str:
    raise LookupError("a bug")


def _silent(_: object) -> None: ...
