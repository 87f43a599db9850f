"""What every kind of planc file has in common: a value in, sealed bytes out, and back.

What is read is checked before it is a value: size, prefix, length and digest, then types, canonical
form and every field against the others. What is written has passed the same checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as _sha256
from typing import Generic, TypeVar

from planc.errors import CorruptFile, FileError, MalformedFile
from planc.files.disk.atomic import read_file, write_file
from planc.files.disk.limits import Limits
from planc.files.formats.envelope import seal, unseal

Value = TypeVar("Value")
Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Format(Generic[Value]):
    """One kind of file: ``kind`` in its envelope, ``what`` in errors, and how bodies are written
    and read; ``from_body`` raises FileError for all that is not valid.
    """

    kind: bytes
    what: str
    to_body: Callable[[Value], bytes]
    from_body: Callable[[bytes, Limits], Value]

    def save(self, value: Value, path: Path, limits: Limits) -> None:
        """Writes a file, which is whole on the disk on return or as it was before."""
        write_file(path, self.encode(value, limits))

    def load(self, path: Path, sha256: str | None, limits: Limits) -> Value:
        """Reads a file, which must be a regular one."""
        return self.decode(read_file(path, limits.file), os.fspath(path), sha256, limits)

    def encode(self, value: Value, limits: Limits) -> bytes:
        """The content of a file; equal values give equal bytes.

        Raises:
            FileError: the value is not valid, or larger than ``limits``.
        """
        with _named(f"this {self.what} cannot be saved"):
            try:
                body = self.to_body(value)
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise MalformedFile(f"{type(error).__name__}: {error}") from error
            limits.check("file", len(body), f"the {self.what}")
            if self.from_body(body, limits) != value:
                raise MalformedFile("it holds something that a file cannot, as a list or an array")
            return seal(self.kind, body)

    def decode(self, content: bytes, name: str, sha256: str | None, limits: Limits) -> Value:
        """The value in the content of a file, which errors call ``name``.

        Raises:
            FileError: the content is no such file, or not the one with the digest ``sha256``.
        """
        if sha256 is not None and len(sha256) != 64:
            raise ValueError(f"sha256 has 64 hexadecimal digits, {sha256!r} has {len(sha256)}")
        with _named(name):
            limits.check("file", len(content), "the file")
            body = unseal(self.kind, content)
            if sha256 is not None:
                found = _sha256(content).hexdigest()
                if found != sha256.lower():
                    raise CorruptFile(
                        f"the file's SHA-256 is {found}, {sha256.lower()} was asked for; get the "
                        "file that was reviewed, or review this one"
                    )
            return self.from_body(body, limits)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the name of what is read before the message of an error."""
    try:
        yield
    except FileError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__
