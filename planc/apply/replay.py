"""Replays: repeat the decisions of a recorded run (:mod:`planc.trace.decisions`) in a pruned or
masked model, and slice tensors by their labels.
"""

from __future__ import annotations

import numpy as np
import torch

from planc.analysis import Analysis, Gone, predicted_shape
from planc.rules.labels import Labelled, dense
from planc.trace.decisions import Replay


def replay_pruned(analysis: Analysis, gone: Gone) -> Replay:
    """Return the replay for a model without the coordinates ``gone``."""

    def kept(value: int, tensor: torch.Tensor) -> torch.Tensor:
        return _kept(analysis, gone, value, tensor)

    return Replay(analysis.graph, kept, lambda value, tensor: tensor)


def replay_masked(analysis: Analysis, gone: Gone) -> Replay:
    """Return the replay for a model in its full shapes, with values compared outside ``gone``."""

    def kept(value: int, tensor: torch.Tensor) -> torch.Tensor:
        return _kept(analysis, gone, value, tensor)

    return Replay(analysis.graph, lambda value, tensor: tensor, kept)


def _kept(analysis: Analysis, gone: Gone, value: int, tensor: torch.Tensor) -> torch.Tensor:
    labelled = analysis.walked.labels[value]
    return sliced(labelled, gone, tensor, predicted_shape(labelled, gone))


def sliced(
    labelled: Labelled, gone: Gone, tensor: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """Return the kept coordinates of a tensor, by its labels."""
    if not tensor.numel():  # an empty tensor has no elements to select
        return tensor if tuple(tensor.shape) == shape else tensor.detach().new_empty(shape)
    lost = vanished(labelled, gone)
    if not lost.any():
        return tensor
    if tensor.is_meta:
        return tensor.new_empty(shape)
    keep = torch.from_numpy(np.ascontiguousarray(~lost)).to(tensor.device)
    return tensor.detach()[keep].reshape(shape)


def blanked(labelled: Labelled, gone: Gone) -> np.ndarray:
    """Return a mask over the coordinates of a tensor, True where masking writes zero, by its
    labels.
    """
    spared = [layer for layer in labelled.layers if layer.whole]
    if not spared:
        return vanished(labelled, gone)
    others = tuple(layer for layer in labelled.layers if not layer.whole)
    kept = vanished(Labelled(labelled.shape, tuple(spared)), gone)
    lost: np.ndarray = vanished(Labelled(labelled.shape, others), gone) & ~kept
    return lost


def vanished(labelled: Labelled, gone: Gone) -> np.ndarray:
    """Return a mask over the coordinates of a tensor, True where removed, by its labels."""
    lost = np.zeros((1,) * labelled.rank, dtype=bool)
    for layer in dense(labelled).layers:
        lost = lost | gone[layer.atoms]
    return np.broadcast_to(lost, labelled.shape)
