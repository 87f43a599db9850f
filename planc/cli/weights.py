"""Weights of models on the command line: found in files and checked before any is assigned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from planc.errors import StaleError
from planc.errors.text import near
from planc.files.tensors.shards import PICKLES, SUFFIX

if TYPE_CHECKING:
    import torch
    from torch import nn


def weights_in(model: str) -> Path | None:
    """The directory that a model's name stands for, if it holds weights; None for others."""
    path = Path(model)
    held = path.is_dir() and any(p.name.endswith((SUFFIX, *PICKLES)) for p in path.iterdir())
    return path if held else None


def assign_stored(model: nn.Module, path: Path, trust_pickle: bool = False) -> None:
    """Load the weights at ``path`` into ``model``.

    Args:
        path: whatever :class:`planc.StoredWeights` reads.
        trust_pickle: read pickles, although they can run code.

    Raises:
        StaleError: a name is missing or unknown, or a shape differs; ``model`` is unchanged.
        FileError, PlancError: a file is malformed, or a pickle that is not trusted.
        OSError: a file cannot be read.
    """
    import planc

    stored = planc.StoredWeights(path, model=model, trust_pickle=trust_pickle)
    check_weights(model, stored.meta, str(path))
    model.load_state_dict(dict(stored), strict=False)


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], origin: str) -> None:
    """Compare the names and shapes of ``weights`` with the model's; ``origin`` names them.

    Raises:
        StaleError: a name is missing or unknown, or a shape differs.
    """
    from planc.modules.tables import tensors_of

    state = model.state_dict()
    tied = {name: spec.names for spec in tensors_of(model) for name in spec.names}
    for name, tensor in state.items():
        if name not in weights:
            if any(other in weights for other in tied.get(name, ())):
                continue
            raise StaleError(
                f"{origin} has no {name}: it is of another model or version{near(name, weights)}"
            )
        if weights[name].shape != tensor.shape:
            raise StaleError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model's has "
                f"{tuple(tensor.shape)}: other model, other keyword arguments, or pruned weights?"
            )
    for name in weights:
        if name not in state:
            raise StaleError(f"{origin} has {name}, which the model has not{near(name, state)}")
