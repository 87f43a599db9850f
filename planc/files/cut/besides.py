"""What stands beside the shards of a checkpoint: its index, with new totals, and small files such
as a tokenizer's, as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from planc.files.disk.atomic import read_file, replacing, write_all, write_file
from planc.files.disk.limits import Limits
from planc.files.tensors.header import Entry
from planc.files.tensors.links import inside
from planc.files.tensors.shards import Index, ShardSet

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


def write_index(directory: Path, index: Index, entries: Iterable[Entry]) -> None:
    """Writes the index of the result: the same shards, other totals."""
    entries = list(entries)
    rest = dict(index.rest)
    totals = rest.get("metadata")
    if isinstance(totals, dict):
        totals = dict(totals)
        if "total_size" in totals:
            totals["total_size"] = sum(entry.stop - entry.start for entry in entries)
        if "total_parameters" in totals:
            totals["total_parameters"] = sum(math.prod(entry.shape) for entry in entries)
        rest["metadata"] = totals
    table = {**rest, "weight_map": dict(index.shards)}
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    write_file(directory / index.name, text.encode())


def copy_index(found: ShardSet, directory: Path, limits: Limits) -> None:
    """The index as it is; as it would be, where what is read has none or one of pickles."""
    if found.index is None:
        return
    path = found.directory / found.index.name
    if path.exists():
        write_file(directory / path.name, read_file(path, limits.index))
    else:
        write_index(directory, found.index, (entry for _, entry in found.entries().values()))


def copy_besides(source: Path, directory: Path, other: Mapping[str, bytes]) -> None:
    """Copies the files beside the shards that hold no weights; directories stay behind.

    Args:
        other: new content for some of them, by name.
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
    """The files beside the shards that hold no weights.

    Raises:
        UnsafePath: one is a link that leads elsewhere: see :mod:`planc.tensorfiles.links`.
    """
    names = [path for path in sorted(source.iterdir()) if not path.name.endswith(_WEIGHTS)]
    return [inside(path) for path in names if path.name[:1] != "." and path.is_file()]
