"""Run one part of an export in a process of its own, forked from this one.

Why: memory. The process that converts holds the PyTorch model, the one that checks holds the ONNX Runtime session; a
process gives its memory back when it ends, and a fork of one that has imported the engine but loaded no weights starts
in milliseconds. A crash or an out-of-memory kill becomes a typed error, and the parent is left to clean up.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Self, TypeVar

from modelexport.contract.errors import ExporterCrashedError, ModelExportError, OutOfMemoryError
from modelexport.contract.events import Note, Progress, Stage

Result = TypeVar("Result")
Emit = Callable[[Stage | Progress | Note], None]
"""Takes the events of a running export."""


def run(function: Callable[..., Result], *args: Any, emit: Emit) -> Result:
    """Call ``function(*args, emit)`` in a child process and return what it returns.

    ``function`` and all values must be picklable, as on systems without ``fork`` the child is spawned.

    Raises:
        ModelExportError: the one that ``function`` raised.
        OutOfMemoryError: the kernel killed the child, or it could not allocate.
        ExporterCrashedError: the child died otherwise, or raised anything else; the message ends with the traceback.
    """
    with Part(function, *args) as part:
        return part.result(emit)


class Part:
    """A part of an export that is running in its own process; its parent may do something else meanwhile.

    As a context manager it never outlives its block.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._child = context.Process(target=_main, args=(sender, os.getpid(), function, args))
        self._child.start()
        sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._receiver.close()
        self._child.join(timeout=0 if error else 5)
        if self._child.is_alive():
            self._child.kill()
            self._child.join()

    def result(self, emit: Emit) -> Any:
        """Wait for the end, passing events on; what :func:`run` returns and raises."""
        try:
            while True:
                kind, value = self._receiver.recv()
                if kind == "event":
                    emit(value)
                elif kind == "result":
                    return value
                else:
                    raise value
        except EOFError:
            self._child.join()
            raise died(self._child.exitcode) from None


@contextmanager
def fork(function: Callable[..., Result], *args: Any) -> Iterator[Callable[[Emit], Result]]:
    """Call ``function(*args, emit)`` beside what the block does, with all that this process holds: a model, say.

    Pages that neither side writes stay shared. Yields what waits for the result: it returns and raises as :func:`run`
    does. ``function`` must stay in one thread, as the locks of the others are not there to be released. Where
    processes cannot be forked, the result is computed here when it is asked for.
    """
    if not sys.platform.startswith("linux"):
        yield lambda emit: function(*args, emit)
        return
    with Part(function, *args) as part:
        yield part.result


def _main(sender: Connection, parent: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    gc.freeze()  # the parent's garbage is the parent's: an ONNX Runtime session waits for threads that are not here
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        result = function(*args, lambda event: sender.send(("event", event)))
        sender.send(("result", result))
    except ModelExportError as error:
        sender.send(("error", error))
    except MemoryError:
        sender.send(("error", OutOfMemoryError(_OUT_OF_MEMORY)))
    except BaseException as error:  # noqa: BLE001  sent to the parent, every one
        if "not enough memory" in str(error) or "bad_alloc" in str(error):  # torch, ONNX Runtime
            sender.send(("error", OutOfMemoryError(_OUT_OF_MEMORY)))
        elif isinstance(error, OSError):
            sender.send(("error", error))
        else:
            message = f"modelexport failed in a way it does not know: {type(error).__name__}: {error}\n"
            sender.send(("error", ExporterCrashedError(message + traceback.format_exc().rstrip())))
    finally:
        sender.close()


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies (Linux: ``prctl(PR_SET_PDEATHSIG)``)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def died(exitcode: int | None) -> ModelExportError:
    """What to say of a process that ended without a word; a negative exit code is minus the signal."""
    if exitcode == -signal.SIGKILL:
        return OutOfMemoryError(_OUT_OF_MEMORY)
    how = f"by signal {signal.Signals(-exitcode).name}" if exitcode and exitcode < 0 else f"with status {exitcode}"
    return ExporterCrashedError(
        f"A process of the export ended {how} and said nothing. Please report this with the model's name."
    )


_OUT_OF_MEMORY = (
    "The export ran out of memory: its process was killed. Run it on a machine with more memory, "
    "or raise the limit of the container."
)
