"""The common part of all planc file kinds: encoding, decoding, saving and loading.

A file is checked before it becomes a value: size, prefix, length and digest, then types, canonical
form and every field against the others. A value passes the same checks before it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256 as _sha256
from typing import Generic, TypeVar

from planc.errors import CorruptFile, FileError, MalformedFile
from planc.files.disk.atomic import read_file, write_file
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats.envelope import seal, unseal, version_of
from planc.files.formats.nature import check_nature

Value = TypeVar("Value")
Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Format(Generic[Value]):
    """One kind of file.

    Attributes:
        kind: the kind in its envelope.
        what: the name used in errors.
        to_body: encodes a value as a body.
        from_body: decodes a body of the current version; raises FileError for anything invalid.
        older: the same for older versions, by their number.
    """

    kind: bytes
    what: str
    to_body: Callable[[Value], bytes]
    from_body: Callable[[bytes, Limits], Value]
    older: Mapping[int, Callable[[bytes, Limits], Value]] = field(default_factory=dict)

    def save(self, value: Value, path: Path, limits: Limits) -> None:
        """Write a file atomically; on error the old file stays as it was."""
        write_file(path, self.encode(value, limits=limits))

    def load(self, path: Path, sha256: str | None, limits: Limits) -> Value:
        """Read a regular file."""
        check_nature(path, self.kind)
        content = read_file(path, limits.file)
        return self.decode(content, name=os.fspath(path), sha256=sha256, limits=limits)

    def encode(self, value: Value, *, limits: Limits = DEFAULT) -> bytes:
        """The content of a file, in the current version; equal values give equal bytes.

        Raises:
            FileError: the value is not valid, or exceeds ``limits``.
        """
        with named(f"this {self.what} cannot be saved"):
            try:
                body = self.to_body(value)
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise MalformedFile(f"{type(error).__name__}: {error}") from error
            limits.check("file", len(body), f"the {self.what}")
            if self.from_body(body, limits) != value:
                raise MalformedFile("it holds something that a file cannot, as a list or an array")
            return seal(self.kind, body)

    def decode(
        self,
        content: bytes,
        *,
        name: str | None = None,
        sha256: str | None = None,
        limits: Limits = DEFAULT,
    ) -> Value:
        """The value in the content of a file.

        Args:
            name: the file's name in errors.
            sha256: expected SHA-256 of the content in hexadecimal.

        Raises:
            FileError: the content is not such a file, or its digest is not ``sha256``.
        """
        if sha256 is not None and len(sha256) != 64:
            raise ValueError(f"sha256 has 64 hexadecimal digits, {sha256!r} has {len(sha256)}")
        with named(name or f"the {self.what}"):
            limits.check("file", len(content), "the file")
            body = unseal(self.kind, content)
            if sha256 is not None:
                found = _sha256(content).hexdigest()
                if found != sha256.lower():
                    raise CorruptFile(
                        f"the file's SHA-256 is {found}, {sha256.lower()} was asked for; get the "
                        "file that was reviewed, or review this one"
                    )
            return self.older.get(version_of(content), self.from_body)(body, limits)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Prefix the message of a FileError with a name."""
    try:
        yield
    except FileError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__
