"""Writing sets of shards: the index, and the first shard's own size within its record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from planc.files.disk.atomic import write_file
from planc.files.formats.checkpoint import StoredShard
from planc.files.tensors.header import Entry, Header, write_header
from planc.files.tensors.shards import Index


def with_own_size(
    shard: StoredShard,
    entries: Sequence[Entry],
    metadata: Callable[[StoredShard], Mapping[str, str]],
) -> tuple[StoredShard, Mapping[str, str]]:
    """Return the entry of a file in the file's own record, and the final metadata.

    Args:
        shard: the entry with any size.
        entries: the tensors of the file.
        metadata: returns the metadata of the file, including the given entry.
    """
    while True:
        found = metadata(shard)
        size = Header(tuple(entries), found, write_header(entries, found)).size
        if size == shard.size:
            return shard, found
        shard = replace(shard, size=size)  # more digits may make the record longer


def write_index(directory: Path, index: Index, entries: Iterable[Entry]) -> None:
    """Write the index of the result: the same shards with new totals."""
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
