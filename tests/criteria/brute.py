"""The same numbers by brute force: loops over units, masks over whole tensors, no batching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from planc.analysis import Analysis
from planc.ir.groups import Group, Member

Tensors = dict[str, np.ndarray]


def parameters(model: nn.Module) -> Tensors:
    """All parameters by name, in double precision; of tied ones the first name."""
    return {name: tensor.detach().double().numpy() for name, tensor in model.named_parameters()}


def member_masks(
    group: Group, unit: int, tensors: Tensors
) -> Iterator[tuple[str, int, np.ndarray]]:
    """For each tensor and dimension that a unit leaves the coordinates that go with it."""
    keys = dict.fromkeys((m.tensor, m.dim) for m in group.members if m.tensor in tensors)
    for name, dim in keys:
        mask = np.zeros(tensors[name].shape, dtype=bool)
        for member in group.members:
            if (member.tensor, member.dim) == (name, dim):
                mask |= _lost(member, unit, tensors[name].shape)
        yield name, dim, mask


def _lost(member: Member, unit: int, shape: tuple[int, ...]) -> np.ndarray:
    units, indices = member.expand()
    lost = np.zeros(shape, dtype=bool)
    for index in indices[units == unit]:
        at: list[int | slice] = [slice(None)] * len(shape)
        at[member.dim] = int(index)
        if member.over is not None:
            at[member.over.dim] = slice(member.over.start, member.over.stop)
        lost[tuple(at)] = True
    return lost


def whole(
    analysis: Analysis, tensors: Tensors, elements: Tensors, finish: Callable[[float], float]
) -> list[np.ndarray]:
    """For each unit ``finish`` of the sum over all coordinates that leave with it, once each."""
    scores = []
    for group in analysis.groups:
        own = []
        for unit in range(group.size):
            leaving: dict[str, np.ndarray] = {}
            for name, _, mask in member_masks(group, unit, tensors):
                leaving[name] = leaving.get(name, False) | mask
            sums = [
                elements[name][mask].sum() for name, mask in leaving.items() if name in elements
            ]
            own.append(finish(float(sum(sums))))
        scores.append(np.array(own))
    return scores


def by_member(
    analysis: Analysis,
    tensors: Tensors,
    value: Callable[[str, int, np.ndarray, Group], float | None],
    reduce: Callable[[list[float]], float],
) -> list[np.ndarray | None]:
    """For each unit ``reduce`` of the values of its members; None for groups without any."""
    scores: list[np.ndarray | None] = []
    for group in analysis.groups:
        own = []
        for unit in range(group.size):
            values = [
                found
                for name, dim, mask in member_masks(group, unit, tensors)
                for found in [value(name, dim, mask, group)]
                if found is not None
            ]
            own.append(reduce(values) if values else None)
        scores.append(None if None in own else np.array(own))
    return scores


def gradients(
    model: nn.Module, batches: list[Any], loss: Callable[[nn.Module, Any], torch.Tensor]
) -> list[Tensors]:
    """The gradients of each batch, one after the other, of frozen parameters too."""
    model = copy.deepcopy(model).requires_grad_(True)
    found = []
    for batch in batches:
        model.zero_grad()
        loss(model, batch).backward()
        found.append(
            {
                name: (torch.zeros_like(p) if p.grad is None else p.grad).double().numpy()
                for name, p in model.named_parameters()
            }
        )
    return found
