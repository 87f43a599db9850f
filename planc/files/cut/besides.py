"""Sidecar files of a checkpoint: the index, and small files such as ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from planc.files.disk.atomic import read_file, replacing, write_all, write_file
from planc.files.disk.limits import Limits
from planc.files.tensors.indexing import write_index
from planc.files.tensors.links import inside
from planc.files.tensors.shards import ShardSet

_PIECE = 1 << 20
_WEIGHTS = (
    ".bin",
    ".ckpt",
    ".distcp",
    ".gguf",
    ".h5",
    ".index.json",
    ".msgpack",
    ".onnx",
    ".planc-extra",
    ".pt",
    ".pth",
    ".safetensors",
)


def copy_index(found: ShardSet, directory: Path, limits: Limits) -> None:
    """Copy the index, or write it if the source is pickled or has none on the disk."""
    if found.index is None:
        return
    path = found.directory / found.index.name
    if path.exists():
        write_file(directory / path.name, read_file(path, limits.index))
    else:
        write_index(directory, found.index, (entry for _, entry in found.entries().values()))


def copy_besides(source: Path, directory: Path, other: Mapping[str, bytes]) -> None:
    """Copy the files beside the shards, without weights and directories.

    Args:
        source: the directory of the checkpoint.
        directory: the directory to copy to.
        other: new content of some of the files, by name.
    """
    for name, content in other.items():
        write_file(directory / name, content)
    for path in besides(source):
        if path.name in other:
            continue
        with path.open("rb") as file, replacing(directory / path.name) as descriptor:
            while piece := file.read(_PIECE):
                write_all(descriptor, piece)


def besides(source: Path) -> list[Path]:
    """Return the files beside the shards, without weights, hidden files and directories.

    Raises:
        UnsafePath: one is a link leading elsewhere: see :mod:`planc.files.tensors.links`.
    """
    names = [path for path in sorted(source.iterdir()) if not path.name.endswith(_WEIGHTS)]
    return [inside(path) for path in names if path.name[:1] != "." and path.is_file()]
