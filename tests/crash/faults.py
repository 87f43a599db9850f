"""One run of an operation in a process of its own, with one fault: the number of a write-side
system call and what happens there in, how the process ended out.

The calls are those that change the disk or flush it, counted in the order they are made.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

CALLS = ("open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
FAULTS = (
    "kill", "kill after", "EIO", "EIO from then on", "ENOSPC", "EINTR", "short write", "Ctrl-C"
)  # fmt: skip
DONE, REFUSED, BROKEN, KILLED = "done", "refused", "broken", "killed"
_EXIT = {DONE: 0, REFUSED: 10, BROKEN: 11}


def run(operation: Callable[[], Any], call: int, fault: str) -> tuple[str, bool]:
    """How a forked process ends that meets ``fault`` at its ``call``-th call, and whether it got
    that far.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ending = _child(operation, call, fault, writer)
        except BaseException:
            ending = BROKEN
        os._exit(_EXIT[ending])
    os.close(writer)
    reached = bool(os.read(reader, 1))
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED, reached
    code = os.WEXITSTATUS(status)
    return next(name for name, value in _EXIT.items() if value == code), reached


def _flushed(descriptor: int) -> None:
    """What dies here is the process, not the machine: nothing needs to be on the disk."""


def _child(operation: Callable[[], Any], call: int, fault: str, writer: int) -> str:
    count = 0
    write = os.write

    def met(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if name == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        count += 1
        late = fault == "EIO from then on" and count > call
        if count != call and not late:
            return real(*args, **kwargs)
        if count == call:
            write(writer, b"!")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "kill after":
            real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "Ctrl-C":
            raise KeyboardInterrupt
        if fault == "EINTR":
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        if fault == "short write":
            if name not in ("write", "pwrite"):
                return real(*args, **kwargs)
            part = memoryview(args[1])[: max(1, len(args[1]) // 2)]
            return real(args[0], part, *args[2:])
        if fault == "ENOSPC":
            if name in ("write", "pwrite"):  # a full disk takes what still fits
                real(args[0], memoryview(args[1])[: len(args[1]) // 2], *args[2:])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in CALLS:
        real = _flushed if name == "fsync" else getattr(os, name)

        def wrapped(*args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
            return met(_name, _real, *args, **kwargs)

        setattr(os, name, wrapped)
    try:
        operation()
    except (OSError, KeyboardInterrupt):
        return REFUSED
    return DONE
