"""Writing a long file in one pass: bytes in their order in, the file and the digests of its parts
out.

Whoever has bytes asks for the space of the next ones and fills it. Meanwhile what was filled before
is hashed by one thread and written by another. A long file goes to the disk directly, where the
system can do that: copying it into the system's cache takes longer than writing it, and would push
out what others keep there.
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

from planc.files.tensors.reader import Bytes

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

Space = Callable[[int], Bytes]

BLOCK = 8 << 20  # bytes that are written at once, and that can be asked for
LONG = 64 << 20  # bytes of a file from which on it is written directly
_SECTOR = 4096  # what is written directly begins and ends at multiples of it, in file and memory
_BLOCKS = 3  # one is filled, one hashed, one written
_CAN_DIRECTLY = hasattr(os, "O_DIRECT")
_REFUSED = (errno.EINVAL, errno.ENOTSUP)


class Stream:
    """Writes a file of ``length`` bytes through a descriptor of an empty one.

    It is a context. When its body fails, what is not written yet is dropped.
    """

    def __init__(self, descriptor: int, length: int) -> None:
        self._file = _File(descriptor, direct=length >= LONG)
        self._size = min(length, BLOCK) + _SECTOR
        self._block = _Block(self._size)
        self._earlier = deque[_Block]()  # the oldest first
        self._stop = 0  # of what is filled in the block
        self._digest: Any = None
        self._hashed: int  # up to here it is hashed, if there is a digest
        self._hashing = ThreadPoolExecutor(1, "planc-hash")
        self._writing = ThreadPoolExecutor(1, "planc-write")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads; what is not written yet is dropped."""
        for thread in (self._hashing, self._writing):
            thread.shutdown(cancel_futures=True)

    def space(self, size: int) -> Bytes:
        """Where the next ``size`` bytes of the file go, at most :data:`BLOCK`; they are to be
        filled before anything else is asked for.

        Raises:
            OSError: what was filled earlier could not be written.
        """
        if self._stop + size > self._size:
            self._next_block()
        start, self._stop = self._stop, self._stop + size
        return self._block.room[start : self._stop]

    def begin(self) -> None:
        """Has everything hashed from here on."""
        self._hashed, self._digest = self._stop, sha256()

    def end(self) -> Any:
        """The hash of what came since :meth:`begin`; it is known when :meth:`finish` returns."""
        self._hash()
        digest, self._digest = self._digest, None
        return digest

    def finish(self) -> None:
        """Returns when everything is written, but not flushed. Raises as :meth:`space` does."""
        rest = self._hand_over()
        for block in (*self._earlier, self._block):
            block.wait()
        self._file.write_rest(rest)
        self._hashed = self._stop = 0

    def _next_block(self) -> None:
        """Takes another block, which begins with what the last one could not write."""
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
        """Has what is filled hashed and written; returns its end that is no whole sector."""
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
    """Copies a buffer of any size. Raises as :meth:`Stream.space` does."""
    if memoryview(content).nbytes:
        rest = np.frombuffer(content, dtype=np.uint8)
        for start in range(0, len(rest), BLOCK):
            part = rest[start : start + BLOCK]
            space(len(part))[:] = part


class _Block:
    """Memory that begins at a sector, and what is being done with it."""

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
        """Returns when all is done; raises what one of them raised."""
        for done in self._doing:
            done.result()
        self._doing.clear()


class _File:
    """A file that is written in whole sectors, directly if it can be, and then the rest."""

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
        """Writes what is no whole sector; from here on nothing is written directly."""
        if self._direct:
            self._set_direct(False)
        self.write(content)

    def _write(self, rest: memoryview) -> int:
        try:
            return os.write(self._descriptor, rest)
        except OSError as error:
            if error.errno not in _REFUSED or not self._direct:
                raise
        self._set_direct(False)  # its sectors are larger, or it took a part of one
        return 0

    def _set_direct(self, direct: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        flags = flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
            self._direct = direct
        except OSError as error:
            if error.errno not in _REFUSED or not direct:  # not every file system can
                raise
