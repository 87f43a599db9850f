"""Weights read from their files on access, as a mapping from names to tensors.

One tensor is held at a time, so a model on the meta device can be scored by weights larger than
memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from planc.files.checkpoint.elements import torch_dtype
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.pickles.sources import find_source
from planc.files.tensors.shards import open_shard
from planc.modules.given import module
from planc.modules.memory import memory_of
from planc.modules.tables import tensors_of
from planc.modules.wrappers import prefix_of
from planc.plan.arguments import a_flag, a_path, optional, takes


class StoredWeights(Mapping[str, torch.Tensor]):
    """The tensors of a file, or of shards with an index, read one at a time.

    A tensor is kept until the next one is read. ``meta`` has the same names with tensors on the
    meta device: shapes and dtypes without values. ``prefix`` is a wrapper's, left out of the names.
    """

    @takes(path=a_path, model=optional(module), trust_pickle=a_flag, limits=limits_given)
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        model: nn.Module | None = None,
        trust_pickle: bool = False,
        limits: Limits = DEFAULT,
    ) -> None:
        """Read the headers of the files at ``path``.

        Args:
            path: a safetensors file, an index, or a directory of either; with ``trust_pickle`` also
                a ``.pt`` or ``.bin`` file, an index or a directory of those, or a checkpoint of
                torch.distributed.checkpoint.
            model: the model of the weights. Its names find the state dict in a training
                checkpoint, such as ``{"model": ..., "epoch": ...}``, and lose a wrapper's prefix.
            trust_pickle: read pickles, although they can run code, with torch's ``weights_only``.
            limits: bounds on the headers and the index.

        Raises:
            FileError, ShardMismatch, OSError: a file is malformed or missing, or the files do not
                belong together; it is a pickle, and not trusted.
            PlancError: this version of torch lacks a dtype of the files; several state dicts of a
                checkpoint fit the model.
        """
        tensors = () if model is None else tensors_of(model)
        found = find_source(Path(path), tensors, trust_pickle, limits).entries()
        self.prefix = prefix_of(found, {name for spec in tensors for name in spec.names})
        self._entries = {
            name.removeprefix(self.prefix): place
            for name, place in found.items()
            if name.startswith(self.prefix)
        }
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
