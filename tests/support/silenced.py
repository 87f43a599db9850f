"""Units that do nothing, made so: groups of a model whose parameters are set to zero in part.

In each of the chosen units of a group, in one of the :data:`WAYS`:

* zero: all parameters of the unit, as sparse training leaves them;
* made: what makes it (filters, biases, scales and shifts), its consumers untouched;
* factor: one of the weights that make it, with its bias, such as a gate or the values alone;
* unread: what reads it;
* scale: the scales of its batch norms, the shifts are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from planc.analysis import Analysis
from planc.criteria.roles import roles
from planc.ir.groups import Member
from planc.ir.layers import whole

WAYS = ("zero", "made", "factor", "unread", "scale")
Units = NDArray[np.int64]


def chosen_units(
    analysis: Analysis, share: float, rng: np.random.Generator, target: str
) -> list[Units]:
    """Of each group a random share of the units, equally many in each row; none where removing them
    is not zeroing them.
    """
    chosen = []
    for g, group in enumerate(analysis.groups):
        count = 0 if analysis.mixing(g, target) else int(group.cells * share)
        rows = [rng.permutation(group.cells)[:count] + r * group.cells for r in range(group.rows)]
        chosen.append(np.sort(np.concatenate(rows)).astype(np.int64))
    return chosen


def silenced(
    model: nn.Module,
    analysis: Analysis,
    chosen: Sequence[Units],
    way: str,
    rng: np.random.Generator,
) -> list[Units]:
    """Silences units of ``model``, in place; which of them have something to silence."""
    done = []
    for group, units in zip(analysis.groups, chosen, strict=True):
        members = [m for m in group.members if _wanted(model, analysis, m, way)]
        if way == "factor" and members:
            makers = sorted({_owner(m) for m in members if _rank(analysis, m) > 1})
            one = makers[rng.integers(len(makers))] if len(makers) > 1 else None
            members = [m for m in members if _owner(m) == one]
        for member in members:
            zero(model, member, units)
        done.append(units if members else units[:0])
    return done


def zero(model: nn.Module, member: Member, chosen: Units) -> None:
    """Sets the coordinates of units in one tensor to zero."""
    units, indices = member.expand()
    tensor = getattr(model.get_submodule(_owner(member)), member.tensor.rpartition(".")[2])
    if (over := member.over) is not None:
        tensor = tensor.narrow(over.dim, over.start, over.stop - over.start)
    with torch.no_grad():
        tensor.index_fill_(member.dim, torch.from_numpy(indices[np.isin(units, chosen)]), 0)


def _owner(member: Member) -> str:
    return member.tensor.rpartition(".")[0]


def _rank(analysis: Analysis, member: Member) -> int:
    return len(analysis.graph.tensor(member.tensor).shape)


def _wanted(model: nn.Module, analysis: Analysis, member: Member, way: str) -> bool:
    """Whether a member is among those that a way sets to zero."""
    tensor = analysis.graph.tensor(member.tensor)
    directions = whole((t.names, t.shape) for t in analysis.graph.tensors)
    if tensor.kind != "parameter" or directions.get(member.tensor) == member.dim:
        return False  # a direction of zeros has no norm to divide by
    if way == "scale":
        norm = isinstance(model.get_submodule(_owner(member)), _BatchNorm)
        return norm and member.tensor.endswith("weight")
    role = roles(analysis.graph).get(tensor.value)
    reads = role is not None and member.dim == role.into
    return {"zero": True, "made": not reads, "factor": not reads, "unread": reads}[way]


def sparsified(model: nn.Module, seed: int) -> nn.Module:
    """Rows, columns and vectors of zeros strewn over a model, in place."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            for dim in range(min(parameter.dim(), 2)):
                if rng.random() < 0.6:
                    gone = torch.from_numpy(rng.random(parameter.shape[dim]) < 0.4)
                    parameter.index_fill_(dim, gone.nonzero()[:, 0], 0)
    return model
