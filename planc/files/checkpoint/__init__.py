"""Checkpoints of pruned models: saving, loading, and reading single tensors from their files.

A checkpoint is one safetensors file, or shards with the usual index, readable by every safetensors
reader. The metadata of the first file carries the record of :mod:`planc.files.formats.checkpoint`.
"""

from __future__ import annotations

from planc.files.checkpoint.load import load, load_optimizer
from planc.files.checkpoint.save import save
from planc.files.checkpoint.stored import StoredWeights

__all__ = ["StoredWeights", "load", "load_optimizer", "save"]
