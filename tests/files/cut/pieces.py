"""Checkpoints as the ranks of jobs leave them, written by one process: tensors in random boxes."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

State = Mapping[str, torch.Tensor]
Box = tuple[tuple[int, int], ...]


def boxes(shape: tuple[int, ...], chance: random.Random) -> list[Box]:
    """A grid of boxes of uneven sizes that cover a tensor."""
    cuts = []
    for size in shape:
        inner = chance.sample(range(1, size), min(chance.randrange(3), size - 1)) if size else []
        cuts.append(list(pairwise([0, *sorted(inner), size])))
    return list(product(*cuts))


def _parts(state: State, chance: random.Random) -> Iterator[tuple[str, Box, torch.Tensor, int]]:
    """Every tensor in boxes, each on one of three ranks."""
    for name, tensor in state.items():
        for box in boxes(tuple(tensor.shape), chance):
            part = tensor[tuple(slice(*ends) for ends in box)].clone()
            yield name, box, part, chance.randrange(3)


def write_safetensors(state: State, directory: Path, seed: int) -> None:
    """As ``HuggingFaceStorageWriter(save_distributed=True)`` does. A rank holds one box of each."""

    files: list[tuple[dict[str, torch.Tensor], dict[str, Any]]] = []
    for name, box, part, _ in _parts(state, random.Random(seed)):
        free = next((file for file in files if name not in file[0]), None)
        if free is None:
            files.append(free := ({}, {}))
        free[0][name] = part.contiguous()
        free[1][name] = {"saved_offsets": [first for first, _ in box]}
    for rank, (tensors, info) in enumerate(files, 1):
        path = directory / f"shard-{rank:05d}-model-00001-of-00001.safetensors"
        save_file(tensors, path, {"format": "pt", "DCP_SHARDING_INFO": json.dumps(info)})


def write_native(state: State, directory: Path, seed: int) -> None:
    """As ``FileSystemWriter`` does."""

    files: dict[str, io.BytesIO] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    chunks: dict[str, list[ChunkStorageMetadata]] = {name: [] for name in state}
    for name, box, part, rank in _parts(state, random.Random(seed)):
        file = files.setdefault(f"__{rank}_0.distcp", io.BytesIO())
        start, archive = file.tell(), io.BytesIO()
        torch.save(part, archive)
        file.write(archive.getvalue())
        offsets = torch.Size(first for first, _ in box)
        index = MetadataIndex(name, offsets, len(chunks[name]))
        places[index] = _StorageInfo(f"__{rank}_0.distcp", start, file.tell() - start)
        chunks[name].append(ChunkStorageMetadata(offsets, part.shape))
    for file_name, file in files.items():
        (directory / file_name).write_bytes(file.getvalue())
    tensors = {
        name: TensorStorageMetadata(TensorProperties(tensor.dtype), tensor.shape, chunks[name])
        for name, tensor in state.items()
    }
    keys = {name: (name,) for name in state}
    metadata = Metadata(dict(tensors), planner_data=keys, storage_data=places)
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
