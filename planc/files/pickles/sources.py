"""Finding the shards at a path; pickles are read only if trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planc.errors import FileError
from planc.files.disk.limits import Limits
from planc.files.formats.nature import is_pickle
from planc.files.tensors.reader import is_directory
from planc.files.tensors.shards import (
    NATIVE,
    PICKLED_INDEX,
    PICKLES,
    SUFFIX,
    ShardSet,
    find_shards,
    only,
)
from planc.plan.plan import TensorSpec


def find_source(
    path: Path, tensors: Sequence[TensorSpec], trust_pickle: bool, limits: Limits
) -> ShardSet:
    """Return the set of shards at a path: safetensors files, or pickles presented as such.

    Args:
        tensors: those of the model, to find its state dict in a training checkpoint.

    Raises:
        FileError: it is a pickle, and not trusted.
        PlancError, FileError, OSError: as for :func:`planc.files.tensors.shards.find_shards`.
    """
    pickled = _pickle_at(path)
    if pickled is None:
        return find_shards(path, limits)
    if not trust_pickle:
        raise FileError(
            f"{pickled}: is a pickle, and reading one can run code that is in it; if you trust "
            "where it is from, pass --trust-pickle (trust_pickle=True), else get safetensors"
        )
    if pickled.name == NATIVE:
        from planc.files.pickles.native import find_native  # torch is needed for pickles only

        return find_native(pickled.parent, tensors, limits)
    from planc.files.pickles.pickled import find_pickled

    return find_pickled(pickled, tensors, limits)


def _pickle_at(path: Path) -> Path | None:
    """Return the pickle at a path, None for other files."""
    if not is_directory(path):
        named = path.name.endswith((*PICKLES, PICKLED_INDEX))
        return path if named or is_pickle(path) else None
    names = sorted(inner.name for inner in path.iterdir())
    if any(name.endswith(SUFFIX) and name[:1] != "." for name in names):
        return None
    if NATIVE in names:
        return path / NATIVE
    for suffixes in ((PICKLED_INDEX,), PICKLES):
        meant = [name for name in names if name.endswith(suffixes) and name[:1] != "."]
        found = only(path, meant, "that may be meant")
        if found is not None:
            return found
    return None
