"""Pickled state dicts, a ``.pt`` or ``.bin`` file or an index of several, as safetensors files.

Reading a pickle may run code. torch's ``weights_only`` admits only a list of harmless types, but
has had holes. A pickle is therefore read only if the caller trusts the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from planc.errors import ShardMismatch
from planc.files.disk.atomic import open_regular
from planc.files.disk.limits import Limits
from planc.files.pickles.archives import read_archive
from planc.files.pickles.chosen import state_dict_in
from planc.files.tensors.pieces import Whole, join
from planc.files.tensors.shards import (
    INDEX_SUFFIX,
    PICKLED_INDEX,
    PICKLES,
    SUFFIX,
    Index,
    Shard,
    ShardSet,
    indexed,
)
from planc.plan.plan import TensorSpec


def find_pickled(path: Path, tensors: Sequence[TensorSpec], limits: Limits) -> ShardSet:
    """Return the files at a path, with the safetensors names of shards and index.

    Tensors tied in the model and sharing their values in a file keep one name.

    Raises:
        MalformedFile: a file is not a state dict, or holds more than tensors.
        ShardMismatch: the index and the files contradict each other.
        PlancError: a file holds several state dicts fitting the tensors.
    """
    outside: set[str] = set()

    def opened(file: Path) -> Shard:
        shard, other = _shard(file, tensors, limits)
        outside.update(other)
        return shard

    if not path.name.endswith(PICKLED_INDEX):
        alone = _safetensors(opened(path), tensors, limits)
        return ShardSet(path.parent, (alone,), None, tuple(sorted(outside)))
    index, shards = indexed(path, opened, PICKLES, limits)
    names = {shard.name: _renamed(shard.name) for shard in shards}
    if len(set(names.values())) < len(names):
        raise ShardMismatch(f"{path}: two of its files differ in their suffix only")
    result = tuple(_safetensors(shard, tensors, limits) for shard in shards)
    kept = {entry.name for shard in result for entry in shard.header.entries}
    holder = {name: names[file] for name, file in index.shards.items() if name in kept}
    name = _renamed(index.name.removesuffix(".index.json")).removesuffix(SUFFIX) + INDEX_SUFFIX
    return ShardSet(path.parent, result, Index(name, holder, index.rest), tuple(sorted(outside)))


def _shard(
    path: Path, tensors: Sequence[TensorSpec], limits: Limits
) -> tuple[Shard, tuple[str, ...]]:
    descriptor = open_regular(path)
    try:
        stored = read_archive(path, descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    kinds = [(found.path, found.kind) for found in stored]
    outer, outside = state_dict_in(kinds, tensors, str(path))
    values = {
        found.path[-1]: found.whole
        for found in stored
        if found.whole is not None and found.path[:-1] == outer
    }
    joined = join(values, limits)
    return Shard(path.name, path, joined.header, joined), outside


def _safetensors(shard: Shard, tensors: Sequence[TensorSpec], limits: Limits) -> Shard:
    assert shard.joined is not None
    joined = join(_untied(shard.joined.tensors, tensors), limits)
    return Shard(_renamed(shard.name), shard.path, joined.header, joined)


def _untied(values: Mapping[str, Whole], tensors: Sequence[TensorSpec]) -> dict[str, Whole]:
    first = {name: spec.name for spec in tensors for name in spec.names}
    seen: set[tuple[str, Whole]] = set()
    kept = {}
    for name, whole in values.items():
        if (first.get(name, name), whole) not in seen:
            kept[name] = whole
            seen.add((first.get(name, name), whole))
    return kept


def _renamed(name: str) -> str:
    """Turn ``pytorch_model-00001-of-00002.bin`` into ``model-00001-of-00002.safetensors``."""
    suffix = next((suffix for suffix in PICKLES if name.endswith(suffix)), "")
    return name.removesuffix(suffix).removeprefix("pytorch_") + SUFFIX
