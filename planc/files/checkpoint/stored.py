"""Weights read from their files on access, as a mapping from names to tensors.

One tensor is held at a time, so a model on the meta device can be scored by weights larger than
memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from planc.files.checkpoint.elements import torch_dtype
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.tensors.shards import find_shards, open_shard
from planc.modules.memory import memory_of
from planc.plan.arguments import a_path, takes


class StoredWeights(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file, or of shards with an index, read one at a time.

    A tensor is kept until the next one is read. ``meta`` has the same names with tensors on the
    meta device: shapes and dtypes without values.
    """

    @takes(path=a_path, limits=limits_given)
    def __init__(self, path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
        """Read the headers of the files at ``path``.

        Args:
            path: a safetensors file, an index, or a directory of either.
            limits: bounds on the headers and the index.

        Raises:
            FileError, ShardMismatch, OSError: a file is malformed or missing, or the files do not
                belong together.
            PlancError: this version of torch lacks a dtype of the files.
        """
        self._entries = find_shards(Path(path), limits).entries()
        self._limits = limits
        self._last: tuple[str, torch.Tensor] | None = None
        self.meta = {
            name: torch.empty(entry.shape, dtype=torch_dtype(entry.dtype, name), device="meta")
            for name, (_, entry) in self._entries.items()
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._last is None or self._last[0] != name:
            self._last = None  # never hold two
            self._last = name, self._read(name)
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _read(self, name: str) -> torch.Tensor:
        shard, entry = self._entries[name]
        tensor = torch.empty_like(self.meta[name], device="cpu")
        memory = memory_of(tensor)
        if memory is not None:
            with open_shard(shard, self._limits) as file:
                file.read_into(entry, 0, memory)
        return tensor
