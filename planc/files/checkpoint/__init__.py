"""Checkpoints: a pruned model and its plan in, files out; files and a freshly built model in, the
pruned model out.

One safetensors file, or shards with the usual index, that any reader of safetensors can open. The
metadata of the first file carries the record of :mod:`planc.codec.checkpoint`.
"""

from __future__ import annotations

from planc.files.checkpoint.load import load, load_optimizer
from planc.files.checkpoint.save import save
from planc.files.checkpoint.stored import StoredWeights

__all__ = ["StoredWeights", "load", "load_optimizer", "save"]
