"""Writing a long file in one pass, with digests of its parts.

Triple-buffered: the caller fills one block while a thread hashes the previous one and another
writes the one before. A long file bypasses the page cache where the system allows it: copying it
through the cache takes longer than writing it, and would evict the pages of other programs.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

Space = Callable[[int], Bytes]

BLOCK = 8 << 20  # bytes of one write, and the most that can be asked for
LONG = 64 << 20  # bytes; files of this size or more are written directly
_SECTOR = 4096  # alignment of direct writes, in file and memory
_BLOCKS = 3  # one is filled, one hashed, one written
_CAN_DIRECTLY = hasattr(os, "O_DIRECT")
_REFUSED = (errno.EINVAL, errno.ENOTSUP)


class Stream:
    """Writes a file of ``length`` bytes through a descriptor of an empty file.

    It is a context manager. If its body fails, unwritten bytes are dropped.
    """

    def __init__(self, descriptor: int, length: int) -> None:
        self._file = _File(descriptor, direct=length >= LONG)
        self._size = min(length, BLOCK) + _SECTOR
        self._block = _Block(self._size)
        self._earlier = deque[_Block]()  # the oldest first
        self._stop = 0  # end of the filled part of the block
        self._digest: Any = None
        self._hashed: int  # end of the hashed part, if there is a digest
        self._hashing = ThreadPoolExecutor(1, "planc-hash")
        self._writing = ThreadPoolExecutor(1, "planc-write")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and drop unwritten bytes."""
        for thread in (self._hashing, self._writing):
            thread.shutdown(cancel_futures=True)

    def space(self, size: int) -> Bytes:
        """The memory for the next ``size`` bytes of the file, at most :data:`BLOCK`.

        It must be filled before the next call of any method.

        Raises:
            OSError: an earlier block could not be written.
        """
        if self._stop + size > self._size:
            self._next_block()
        start, self._stop = self._stop, self._stop + size
        return self._block.room[start : self._stop]

    def begin(self) -> None:
        """Hash everything from here on."""
        self._hashed, self._digest = self._stop, sha256()

    def end(self) -> Any:
        """The hash of all bytes since :meth:`begin`; complete once :meth:`finish` returns."""
        self._hash()
        digest, self._digest = self._digest, None
        return digest

    def finish(self) -> None:
        """Wait until everything is written, but not flushed. Raises like :meth:`space`."""
        rest = self._hand_over()
        for block in (*self._earlier, self._block):
            block.wait()
        self._file.write_rest(rest)
        self._hashed = self._stop = 0

    def _next_block(self) -> None:
        """Take another block, starting with the unwritten end of the last one."""
        rest = self._hand_over()
        self._earlier.append(self._block)
        if len(self._earlier) < _BLOCKS:
            self._block = _Block(self._size)
        else:
            self._block = self._earlier.popleft()
            self._block.wait()
        self._block.room[: len(rest)] = rest
        self._hashed = self._stop = len(rest)

    def _hand_over(self) -> Bytes:
        """Hash and write the filled part; return the end short of a whole sector."""
        self._hash()
        whole = self._stop - self._stop % _SECTOR
        room = self._block.room
        self._block.submit(self._writing, self._file.write, room[:whole])
        return room[whole : self._stop]

    def _hash(self) -> None:
        if self._digest is not None:
            part = self._block.room[self._hashed : self._stop]
            self._block.submit(self._hashing, self._digest.update, part)


def fill(space: Space, content: Any) -> None:
    """Copy a buffer of any size. Raises like :meth:`Stream.space`."""
    if memoryview(content).nbytes:
        rest = np.frombuffer(content, dtype=np.uint8)
        for start in range(0, len(rest), BLOCK):
            part = rest[start : start + BLOCK]
            space(len(part))[:] = part


class _Block:
    """Sector-aligned memory, and the pending work on it."""

    def __init__(self, size: int) -> None:
        memory = np.empty(size + _SECTOR, dtype=np.uint8)
        start = -memory.ctypes.data % _SECTOR
        self.room: Bytes = memory[start : start + size]
        self._doing: list[Future[None]] = []

    def submit(
        self, thread: ThreadPoolExecutor, call: Callable[[Bytes], None], part: Bytes
    ) -> None:
        if len(part):
            self._doing.append(thread.submit(call, part))

    def wait(self) -> None:
        """Wait for all pending work, and raise its first error."""
        for done in self._doing:
            done.result()
        self._doing.clear()


class _File:
    """A file written in whole sectors, bypassing the page cache if possible, and then the rest."""

    def __init__(self, descriptor: int, direct: bool) -> None:
        self._descriptor = descriptor
        self._direct = False
        if direct and _CAN_DIRECTLY:
            self._set_direct(True)

    def write(self, content: Bytes) -> None:
        rest = memoryview(content)  # type: ignore[arg-type]  # an array is a buffer
        while rest:
            rest = rest[self._write(rest) :]

    def write_rest(self, content: Bytes) -> None:
        """Write the end short of a whole sector; direct writes stop here."""
        if self._direct:
            self._set_direct(False)
        self.write(content)

    def _write(self, rest: memoryview) -> int:
        try:
            return os.write(self._descriptor, rest)
        except OSError as error:
            if error.errno not in _REFUSED or not self._direct:
                raise
        self._set_direct(False)  # its sectors are larger, or a partial sector was written
        return 0

    def _set_direct(self, direct: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        flags = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
            self._direct = direct
        except OSError as error:
            if error.errno not in _REFUSED or not direct:  # unsupported by some file systems
                raise
