"""What a disk may hold when the power fails: the log of an operation's write-side calls in, states
of the disk out.

A write is on the disk once its file is flushed, and a new, renamed or deleted name once its
directory is. When the power fails after some call, all that was not flushed until then may be there
or not: nothing of it, all of it, all but one call, names alone. A call is kept by inode, so that a
renamed file is there under its new name even if its first name never was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tree = dict[str, "int | bytes | None"]
_UNKNOWN = ("truncate", "ftruncate", "link", "symlink", "sendfile", "copy_file_range")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that changed something. ``where`` is the inode whose flush puts it on the disk."""

    kind: str  # "write", "name" or "no name"
    where: int
    inode: int  # that is written, or gets the name
    name: str = ""
    at: int = 0
    content: bytes = b""
    flushed: float = float("inf")  # after so many calls of the log it is on the disk for sure


@dataclass
class Log:
    """The calls of one operation below a directory, and the inodes that were there before."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    before: dict[int, dict[str, int] | bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in [self.root, *sorted(self.root.rglob("*"))]:
            inside = {p.name: p.stat().st_ino for p in path.iterdir()} if path.is_dir() else None
            self.before[path.stat().st_ino] = path.read_bytes() if inside is None else inside

    def flush(self, inode: int) -> None:
        """What was done to ``inode`` so far is on the disk."""
        for i, call in enumerate(self.calls):
            if call.where == inode and call.flushed == float("inf"):
                self.calls[i] = Call(
                    call.kind, call.where, call.inode, call.name, call.at, call.content,
                    len(self.calls),
                )  # fmt: skip

    def states(self) -> Iterator[tuple[int, dict[str, bytes]]]:
        """After how many calls the power failed, before they were flushed, and the files below the
        directory then; at last what is there when all has ended.
        """
        for end in range(len(self.calls) + 1):
            made = self.calls[:end]
            pending = [i for i, call in enumerate(made) if call.flushed >= end]
            kept = [call for i, call in enumerate(made) if i not in set(pending)]
            yield end, self._files(made)
            if pending:
                yield end, self._files(kept)
                lost = {i for i in pending if made[i].kind == "write"}
                yield end, self._files([call for i, call in enumerate(made) if i not in lost])
            for i in pending if len(pending) > 1 else ():
                yield end, self._files(made[:i] + made[i + 1 :])
        last = [call for call in self.calls if call.flushed < float("inf")]
        yield len(self.calls), self._files(last)

    def _files(self, calls: list[Call]) -> dict[str, bytes]:
        names: dict[int, dict[str, int]] = {}
        contents: dict[int, bytearray] = {}
        for inode, held in self.before.items():
            if isinstance(held, dict):
                names[inode] = dict(held)
            else:
                contents[inode] = bytearray(held)
        for call in calls:
            if call.kind == "name":
                names.setdefault(call.where, {})[call.name] = call.inode
            elif call.kind == "no name":
                if names.get(call.where, {}).get(call.name) == call.inode:
                    del names[call.where][call.name]
            else:
                content = contents.setdefault(call.inode, bytearray())
                content.extend(bytes(max(0, call.at - len(content))))
                content[call.at : call.at + len(call.content)] = call.content
        directories = {*names, *(c.inode for c in calls if c.kind == "name" and c.at)}
        return dict(_walk(self.root.stat().st_ino, "", names, contents, directories))


def _walk(
    inode: int,
    path: str,
    names: dict[int, dict[str, int]],
    contents: dict[int, bytearray],
    directories: set[int],
) -> Iterator[tuple[str, bytes]]:
    for name, inside in sorted(names.get(inode, {}).items()):
        below = f"{path}{name}"
        if inside in directories:
            yield from _walk(inside, f"{below}/", names, contents, directories)
        else:
            yield below, bytes(contents.get(inside, b""))


@contextmanager
def recorded(root: Path) -> Iterator[Log]:
    """Notes the calls below ``root`` of what runs in the body."""
    log, lock = Log(root), threading.RLock()
    real = {name: getattr(os, name) for name in
            ("open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "mkdir",
             "rmdir", *_UNKNOWN)}  # fmt: skip
    offsets: dict[int, int] = {}

    def parent(path: Any, dir_fd: int | None) -> tuple[int, str, Path]:
        whole = Path(os.fspath(path))
        if dir_fd is not None:
            whole = Path(f"/proc/self/fd/{dir_fd}").readlink() / whole
        return whole.parent.stat().st_ino, whole.name, whole

    def named(path: Any, dir_fd: int | None, is_directory: bool) -> None:
        where, name, whole = parent(path, dir_fd)
        inode = whole.stat().st_ino
        log.calls.append(Call("name", where, inode, name, int(is_directory)))

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor: int = real["open"](path, flags, mode, dir_fd=dir_fd)
        offsets[descriptor] = 0
        if flags & os.O_CREAT:
            named(path, dir_fd, False)
        return descriptor

    def pwrite(descriptor: int, content: Any, at: int) -> int:
        count: int = real["pwrite"](descriptor, content, at)
        inode = os.fstat(descriptor).st_ino
        log.calls.append(Call("write", inode, inode, "", at, bytes(content)[:count]))
        return count

    def write(descriptor: int, content: Any) -> int:
        count: int = real["write"](descriptor, content)
        if descriptor in offsets:
            inode, at = os.fstat(descriptor).st_ino, offsets[descriptor]
            log.calls.append(Call("write", inode, inode, "", at, bytes(content)[:count]))
            offsets[descriptor] += count
        return count

    def fsync(descriptor: int) -> None:
        log.flush(os.fstat(descriptor).st_ino)

    def renamed(old: Any, new: Any, **options: Any) -> None:
        where, name, whole = parent(old, None)
        inode, is_directory = whole.stat().st_ino, whole.is_dir()
        real["replace"](old, new, **options)
        to, new_name, _ = parent(new, None)
        assert to == where, "a name moves to another directory: two directories are to be flushed"
        log.calls.append(Call("name", to, inode, new_name, int(is_directory)))
        log.calls.append(Call("no name", where, inode, name))

    def removed(kind: str) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            where, name, whole = parent(path, dir_fd)
            inode = whole.lstat().st_ino if whole.exists() else 0
            real[kind](path, dir_fd=dir_fd)
            log.calls.append(Call("no name", where, inode, name))

        return remove

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real["mkdir"](path, mode, dir_fd=dir_fd)
        named(path, dir_fd, True)

    def unknown(*_: Any, **__: Any) -> None:
        raise AssertionError("a call that changes files and is not noted")

    noted = {"open": open_, "write": write, "pwrite": pwrite, "fsync": fsync, "mkdir": mkdir}
    noted |= {"replace": renamed, "rename": renamed}
    noted |= {kind: removed(kind) for kind in ("unlink", "rmdir")}
    noted |= dict.fromkeys(_UNKNOWN, unknown)

    def locked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return function(*args, **kwargs)

        return call

    for name, function in noted.items():
        setattr(os, name, locked(function))
    try:
        yield log
    finally:
        for name, function in real.items():
            setattr(os, name, function)
