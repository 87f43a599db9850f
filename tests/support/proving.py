"""The tool that most tests of the analysis are made with: prove that a model can be pruned.

:func:`prove` takes a small model with random weights, removes random units in many ways, and has
each result verified. :func:`prunable` says what may go at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.apply import apply
from planc.compile.select import write_plan
from planc.ir.groups import Group
from planc.modules.copies import clone
from planc.modules.nesting import leaves, map_leaves
from planc.plan.plan import Plan
from planc.policy.feasible import feasible

torch.set_num_threads(1)

TOLERANCE = 1e-9
TARGETS: tuple[Literal["module", "graph"], ...] = ("module", "graph")
Counts = tuple[int, ...]
IMAGES = torch.randn(2, 3, 6, 6)
TOKENS = torch.randn(2, 5, 6)


def conv(i: int, o: int, k: int = 1, **named: Any) -> nn.Conv2d:
    """A convolution of ``i`` channels to ``o``, of one position unless said otherwise."""
    return nn.Conv2d(i, o, k, **named)


def sizes(analysis: Analysis) -> dict[str, int]:
    """The number of units of each group, by name."""
    return {group.name: group.size for group in analysis.groups}


def prove(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Literal["module", "graph", "both"] = "both",
    seeds: Sequence[int] = (0, 1),
    double: bool = True,
    tolerance: float = TOLERANCE,
) -> Analysis:
    """Removes random units of ``model`` in many ways, has :func:`planc.verify` prove each result.

    Per target: random uneven removals from all groups at once, one for each seed; from the groups
    that do not mix (so that equality with the masked original is proved); from each group alone.
    What verification cannot see where a group mixes is that its members belong together; that is
    proved by exchanging units, which must not change what the model computes.

    Args:
        double: run in double precision, and demand equality to 1e-9.

    Returns:
        the analysis, for claims about its groups.
    """
    args = args if isinstance(args, tuple) else (args,)
    named = dict(kwargs or {})
    randomise(model, seed=0)
    model.eval()
    if double:
        model.double()
        args, named = map_leaves(_double, args), map_leaves(_double, named)
    analysis = planc.analyze(planc.trace(model, args, named))
    exchange(analysis, model, args, named, tolerance)
    for one in TARGETS if target == "both" else (target,):
        if one == "graph" and analysis.graph.data_dependent:
            continue  # one graph cannot hold its control flow
        seen: set[tuple[Counts, int]] = set()
        for wanted, seed in _requests(analysis, one, seeds):
            plan = removal(analysis, wanted, one, seed)
            key = (tuple(len(group.removed) for group in plan.groups), seed)
            if key in seen or not any(key[0]):
                continue
            seen.add(key)
            smaller = apply(plan, model, args=args, kwargs=named, validate=len(seen) == 1)
            once = len(seen) == 1
            planc.verify(plan, model, smaller, args, named, tolerance=tolerance, other_sizes=once)
            parameters = sum(p.numel() for p in smaller.parameters())
            assert plan.cost_after.params == parameters
    return analysis


def randomise(model: nn.Module, seed: int) -> None:
    """Random values for parameters and running statistics, in place: none is like another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.normal_(generator=generator).mul_(0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def removal(
    analysis: Analysis, wanted: Counts, target: Literal["module", "graph"], seed: int
) -> Plan:
    """A plan that keeps about ``wanted`` units of each row, chosen at random."""
    counts = feasible(analysis, analysis.equations(target), wanted)
    rng = np.random.default_rng(seed)
    removed = tuple(
        _choose(group, kept, rng) for group, kept in zip(analysis.groups, counts, strict=True)
    )
    return write_plan(analysis, removed, target, "random", "test", seed)


def _choose(group: Group, kept: int, rng: np.random.Generator) -> tuple[int, ...]:
    goes = [
        row * group.cells + rng.choice(group.cells, group.cells - kept, replace=False)
        for row in range(group.rows)
    ]
    return tuple(sorted(np.concatenate(goes).tolist()))


def _requests(analysis: Analysis, target: str, seeds: Sequence[int]) -> list[tuple[Counts, int]]:
    groups = analysis.groups
    rng = np.random.default_rng(len(groups))
    whole = tuple(group.cells for group in groups)
    least = tuple(int(rng.integers(1, max(group.cells, 2))) for group in groups)
    found: list[tuple[Counts, int]] = []
    for seed in seeds:
        some = np.random.default_rng(seed)
        found.append((tuple(int(some.integers(1, group.cells + 1)) for group in groups), seed))
    pure = [not analysis.mixing(g, target) for g in range(len(groups))]
    found.append(
        (tuple(n if ok else all_ for n, all_, ok in zip(least, whole, pure, strict=True)), 0)
    )
    for g in range(len(groups)):
        found.append(((*whole[:g], least[g], *whole[g + 1 :]), 0))
    return found


def prunable(analysis: Analysis, target: str) -> set[str]:
    """The names of the groups that lose units when as much as possible is asked for."""
    groups = analysis.groups
    equations = analysis.equations(target)
    found = set()
    for asked in [range(len(groups)), *([g] for g in range(len(groups)))]:
        wanted = tuple(1 if g in asked else group.cells for g, group in enumerate(groups))
        counts = feasible(analysis, equations, wanted)
        found |= {group.name for group, n in zip(groups, counts, strict=True) if n < group.cells}
    return found


def reasons(analysis: Analysis, tensor: str, dim: int) -> str:
    """Why indices of a dimension of a tensor are pinned; empty where none is."""
    return "; ".join(p.reason for p in analysis.pins if (p.tensor, p.dim) == (tensor, dim))


def free(analysis: Analysis, tensor: str, dim: int) -> bool:
    """Whether no index of a dimension of a tensor is pinned."""
    assert analysis.graph.has(tensor)
    return not reasons(analysis, tensor, dim)


def together(analysis: Analysis, *places: str) -> bool:
    """Whether one group has members at all of the places (``"name:dim"``)."""
    return any(
        set(places) <= {f"{m.tensor}:{m.dim}" for m in group.members} for group in analysis.groups
    )


def exchange(
    analysis: Analysis,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> None:
    """Asserts that exchanging units of a row, in all members, leaves the outputs as they are.

    Units of a group are alike, so their order cannot matter. A member that is missing, or whose
    units stand in another order, shows in the output, also where removing is not zeroing. Units
    with another number of coordinates in some member (concatenated twice before a grouped
    convolution, for example) are not exchanged.
    """
    expected = _outputs(model, args, kwargs)
    for number, group in enumerate(analysis.groups):
        if group.cells == 1:
            continue
        rng = np.random.default_rng(number)
        order = _permuted(group, rng)
        copied = clone(model, lambda tensor: tensor.detach().clone())
        named = dict(copied.named_parameters(remove_duplicate=False))
        named |= dict(copied.named_buffers(remove_duplicate=False))
        for member in group.members:
            tensor = named[member.tensor]
            if member.over is not None:
                over = member.over
                tensor = tensor.narrow(over.dim, over.start, over.stop - over.start)
            units, indices = member.expand()
            units, indices = (a[np.lexsort((indices, units))] for a in (units, indices))
            source = np.arange(tensor.shape[member.dim])
            source[indices] = indices[np.lexsort((indices, order[units]))]
            tensor.copy_(tensor.index_select(member.dim, torch.from_numpy(source)))
        for i, (a, b) in enumerate(zip(_run(copied, args, kwargs), expected, strict=True)):
            assert torch.allclose(a, b, tolerance, tolerance), (
                f"exchanging units of {group} changes output {i}"
            )


def _permuted(group: Group, rng: np.random.Generator) -> np.ndarray:
    """A random order of the units of a group, within rows and units of equal counts."""
    counts = [np.bincount(m.expand()[0], minlength=group.rows * group.cells) for m in group.members]
    _, kinds = np.unique(np.stack(counts), axis=1, return_inverse=True)
    rows = np.repeat(np.arange(group.rows), group.cells)
    order = np.arange(group.rows * group.cells)
    for row, kind in {*zip(rows.tolist(), kinds.ravel().tolist(), strict=True)}:
        alike = np.flatnonzero((rows == row) & (kinds.ravel() == kind))
        order[alike] = rng.permutation(alike)
    return order


def _outputs(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[torch.Tensor]:
    return _run(clone(model, lambda tensor: tensor.detach().clone()), args, kwargs)


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The outputs of a model that may write to its buffers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        result = model(*map_leaves(_copied, args), **map_leaves(_copied, dict(kwargs)))
        return [leaf.clone() for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _double(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
        return leaf.double()
    return leaf


class Net(nn.Module):
    """A model in one expression: ``Net(lambda m, x: m.b(m.a(x)), a=..., b=...)``.

    Tensors become parameters; modules, numbers and tuples plain attributes.
    """

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            plain = isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter)
            setattr(self, name, nn.Parameter(part) if plain else part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)
