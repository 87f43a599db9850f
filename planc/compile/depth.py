"""Plans that remove blocks: choose them by score or by number, and join the removal with the plan
of the shallower model.

A plan that removes blocks lists first all lists of blocks, then the groups of the model without the
removed ones, under the names of the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from planc.analysis import Analysis
from planc.analysis.blocks import BlockList, block_lists
from planc.analysis.blocks.find import CONTAINERS
from planc.compile.outline import outline
from planc.compile.shallow import Shallow, shallower
from planc.criteria import Weights
from planc.errors import PolicyError
from planc.ir.graph import Graph
from planc.modules.tree import tensors_by_name
from planc.modules.weights import digest_of
from planc.plan import fingerprint
from planc.plan.depth import BLOCKS, REMOVED_BLOCKS, ROOT, Depth, below
from planc.plan.plan import AttributeChange, Fingerprints, Plan, PlanGroup, Provenance, TensorSpec
from planc.policy.ratio import checked_ratio, share

_NUMBER_AFTER_WILDCARD = re.compile(r"[*?\[].*\.\d")


@dataclass(frozen=True)
class BlockRequest:
    """Blocks to remove: a share of each list, or chosen ones by patterns of lists.

    Attributes:
        ratio: the share of each list, None for chosen blocks alone.
        chosen: positions to remove, by a list's path or a pattern of paths.
        keep: patterns of modules to keep.
        criterion: the name of the score.
        seed: of random scores.
    """

    ratio: float | None
    chosen: tuple[tuple[str, tuple[int, ...]], ...]
    keep: tuple[str, ...]
    criterion: str
    seed: int

    def __str__(self) -> str:
        share = () if self.ratio is None else (f"{self.ratio:g}",)
        named = (f"{path} {','.join(map(str, units))}" for path, units in self.chosen)
        return f"{BLOCKS}({', '.join((*share, *named))})"


def requested(
    model: nn.Module,
    kinds: Mapping[str, float],
    remove: Mapping[str, Sequence[int]],
    keep: Sequence[str],
    criterion: Any,
    seed: int,
) -> BlockRequest | None:
    """The blocks that ``kinds`` and ``remove`` may ask for; None if there are none."""
    ratio = checked_ratio(kinds[BLOCKS], f"kinds[{BLOCKS!r}]") if BLOCKS in kinds else None
    paths = [path for path, module in model.named_modules() if _is_container(module)]
    chosen = tuple(
        (name, tuple(units) if isinstance(units, Iterable) else (units,))
        for name, units in remove.items()
        if any(_means(name, path) for path in paths)
    )
    if ratio is None and not chosen:
        return None
    return BlockRequest(ratio, chosen, tuple(keep), str(criterion), seed)


def narrowed(request: BlockRequest, graph: Graph) -> BlockRequest | None:
    """The request for lists of blocks; None if all its names are those of other containers."""
    lists = block_lists(graph)
    chosen = tuple(
        (name, units)
        for name, units in request.chosen
        if any(_means(name, one.path) for one in lists)
    )
    return None if request.ratio is None and not chosen else replace(request, chosen=chosen)


def _is_container(module: nn.Module) -> bool:
    return any(kind.__name__ in CONTAINERS for kind in type(module).__mro__)


def _means(pattern: str, path: str) -> bool:
    return pattern == (path or ROOT) or fnmatchcase(path, pattern)


def without_blocks(
    request: BlockRequest,
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    graph: Graph,
    weights: Weights | None,
) -> Shallow:
    """The model without the requested blocks.

    Raises:
        PolicyError: there are none, or they cannot be removed; names the reason.
    """
    lists = block_lists(graph)
    if not lists:
        raise PolicyError(
            f"blocks: this model has no {' or '.join(CONTAINERS)} of residual blocks: "
            f"{_why_none(graph)}; choose another kind"
        )
    found = dict(_forced(request, lists))
    if request.ratio is not None:
        scores = _scores(request, model if weights is None else weights, graph)
        found = {one.path: _lowest(request, one, found, scores) for one in lists}
    if not any(found.values()):
        sizes = ", ".join(f"{one.path or ROOT} has {len(one.names)}" for one in lists)
        raise PolicyError(
            f"{request}: no block would be removed, {sizes}; raise the share, or choose blocks by "
            "remove="
        )
    return shallower(model, args, kwargs, graph, lists, found)


def _why_none(graph: Graph) -> str:
    paths = [path for path, m in graph.modules.items() if any(k in CONTAINERS for k in m.types)]
    return f"none of {', '.join(paths[:3])}" if paths else "it has none at all"


def _forced(
    request: BlockRequest, lists: Sequence[BlockList]
) -> Iterator[tuple[str, frozenset[int]]]:
    found: dict[str, set[int]] = {}
    for pattern, units in request.chosen:
        for one in (one for one in lists if _means(pattern, one.path)):
            for unit in units:
                _check_unit(one, unit)
            found.setdefault(one.path, set()).update(units)
    for one in lists:
        if len(found.get(one.path, ())) == len(one.names):
            raise PolicyError(f"remove: all blocks of {one.path or ROOT}; keep one of them")
    yield from ((path, frozenset(units)) for path, units in found.items())


def _check_unit(one: BlockList, unit: int) -> None:
    if isinstance(unit, bool) or not isinstance(unit, int) or not 0 <= unit < len(one.names):
        raise PolicyError(
            f"remove: {one.path or ROOT} has blocks 0 to {len(one.names) - 1}, none {unit!r}"
        )
    if unit in one.reasons:
        raise PolicyError(
            f"remove: {below(one.path, one.names[unit])} cannot be removed: {one.reasons[unit]}"
        )


def _lowest(
    request: BlockRequest,
    one: BlockList,
    forced: Mapping[str, frozenset[int]],
    scores: Callable[[str], float],
) -> frozenset[int]:
    """The forced blocks of a list, and those of the lowest scores up to the share."""
    assert request.ratio is not None
    own = forced.get(one.path, frozenset())
    free = [
        unit
        for unit, block in one.blocks.items()
        if unit not in own and not any(fnmatchcase(block.path, name) for name in request.keep)
    ]
    most = min(share(request.ratio, len(one.names)) - len(own), len(one.names) - 1 - len(own))
    ranked = sorted(free, key=lambda unit: (scores(one.blocks[unit].path), unit))
    return own | frozenset(ranked[: max(most, 0)])


def _scores(
    request: BlockRequest, weights: nn.Module | Weights, graph: Graph
) -> Callable[[str], float]:
    """The score of a block by its path: the norm of its parameters, or a random number."""
    if request.criterion == "random":
        order = {path: i for i, path in enumerate(graph.modules)}
        numbers = np.random.default_rng(request.seed).random(len(order))
        return lambda path: float(numbers[order[path]])
    held: Mapping[str, Any] = weights if isinstance(weights, Mapping) else tensors_by_name(weights)
    power = 1 if request.criterion == "l1" else 2

    def norm(path: str) -> float:
        total = 0.0
        for tensor in graph.tensors:
            name = next((name for name in tensor.names if name in held), "")
            if tensor.kind == "parameter" and tensor.name.startswith(f"{path}.") and name:
                value = held[name]
                if value.is_meta:
                    raise PolicyError(
                        f"{name}: is on the meta device and has no values to score blocks by; "
                        'give weights=, choose blocks by remove=, or criterion="random"'
                    )
                total += float(value.detach().abs().pow(power).sum(dtype=torch.float64))
        return total

    return norm


class Renamed(Mapping[str, Any]):
    """Tensors by the names of the shallower model."""

    def __init__(self, weights: Mapping[str, Any], depth: Depth) -> None:
        self._weights, self._depth = weights, depth

    def __getitem__(self, name: str) -> Any:
        return self._weights[self._depth.original(name)]

    def __iter__(self) -> Iterator[str]:
        return (new for name in self._weights if (new := self._depth.renamed(name)) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def renamed_patterns(
    depth: Depth, patterns: Sequence[str], what: str
) -> tuple[tuple[str, str], ...]:
    """Patterns and their form for the shallower model; those of removed blocks are left out.

    Raises:
        PolicyError: a pattern has the number of a block after a wildcard.
    """
    found = []
    for pattern in patterns:
        if _NUMBER_AFTER_WILDCARD.search(pattern):
            raise PolicyError(
                f"{what}: {pattern!r} has a number after a wildcard, and blocks are renumbered; "
                "write the path out, or compile the widths from the shallower model"
            )
        if (new := depth.renamed(pattern)) is not None:
            found.append((pattern, new))
    return tuple(found)


def inner_options(
    request: BlockRequest, shallow: Shallow, analysis: Analysis, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of :func:`planc.compile` for the shallower model.

    Args:
        given: the options for the original.
    """
    depth = shallow.depth
    left = {k: v for k, v in given.items() if k not in ("model", "args", "kwargs")}
    chosen = {name for name, _ in request.chosen}
    remove = {k: v for k, v in (given["remove"] or {}).items() if k not in chosen}
    kinds = {k: v for k, v in (given["kinds"] or {}).items() if k != BLOCKS}
    cost = outline(analysis, "module").cost
    budgets = {name: given[name] for name in ("macs", "params", "bytes")}
    for name, value in budgets.items():
        if isinstance(value, float) and 0 < value <= 1:
            budgets[name] = max(1, int(value * getattr(cost, name)))
    limited = any(value is not None for value in budgets.values())
    if not (limited or kinds or remove or given["policy"]) and given["ratio"] is None:
        left["ratio"] = 0.0
    for option in ("keep", "only"):
        patterns = given[option]
        left[option] = [new for _, new in renamed_patterns(depth, patterns, option)]
    for option, values in (
        ("ratios", given["ratios"] or {}),
        ("remove", remove),
        ("keep_units", given["keep_units"] or {}),
    ):
        pairs = renamed_patterns(depth, tuple(values), option)
        left[option] = {new: values[old] for old, new in pairs}
    if given["weights"] is not None:
        left["weights"] = Renamed(given["weights"], depth)
    return {**left, **budgets, "kinds": kinds}


def joined_plan(
    shallow: Shallow, inner: Plan, analysis: Analysis, request: str, weights: Any
) -> Plan:
    """The plan for the original: the removal of blocks, then ``inner``, made for the rest.

    Args:
        analysis: of the original.
        request: the policy of the blocks, in words.
        weights: of the original, for their digest.
    """
    known, depth = outline(analysis, "module"), shallow.depth
    groups = (*shallow.groups, *(_under_old_names(depth, group) for group in inner.groups))
    changes = _chained(shallow.changes, inner.attributes, depth)
    modules = _listed(known.modules, inner, changes, depth)
    after = depth.modules(fingerprint.modules_after(modules, changes))
    source = Fingerprints(
        fingerprint.attributes_digest(modules),
        fingerprint.structure_digest(groups),
        fingerprint.tensors_digest(known.tensors),
    )
    result = Fingerprints(
        fingerprint.attributes_digest(after),
        fingerprint.pruned_structure(source.structure, tuple(tuple(g.removed) for g in groups)),
        inner.result.tensors,
    )
    return inner.replace(
        source=source,
        result=result,
        tensors=known.tensors,
        modules=modules,
        groups=groups,
        attributes=changes,
        provenance=(_provenance(inner.provenance[0], request, known.tensors, weights),),
        cost_before=known.cost,
        requires=tuple(sorted({*inner.requires, REMOVED_BLOCKS})),
    )


def _provenance(
    inner: Provenance, request: str, tensors: Sequence[TensorSpec], weights: Any
) -> Provenance:
    digest = None if inner.weights is None else digest_of(tensors, weights)
    return replace(inner, policy=f"{request} then {inner.policy}", weights=digest)


def _under_old_names(depth: Depth, group: PlanGroup) -> PlanGroup:
    members = tuple(replace(m, tensor=depth.original(m.tensor)) for m in group.members)
    tensor, dim, rest = group.name.partition(":")
    return replace(group, name=depth.original(tensor) + dim + rest, members=members)


def _chained(
    first: Sequence[AttributeChange], second: Sequence[AttributeChange], depth: Depth
) -> tuple[AttributeChange, ...]:
    changes = {(change.module, change.name): change for change in first}
    for change in second:
        key = (depth.original(change.module), change.name)
        before = changes[key].before if key in changes else change.before
        changes[key] = AttributeChange(*key, before, change.after)
    return tuple(c for _, c in sorted(changes.items()) if c.before != c.after)


def _listed(modules: Any, inner: Plan, changes: Any, depth: Depth) -> Any:
    """The module table of the original, with the attributes that the plan reads or changes."""
    more = tuple(replace(spec, path=depth.original(spec.path)) for spec in inner.modules)
    before = {(c.module, c.name): c.before for c in changes}
    more = tuple(
        replace(
            spec,
            attributes=tuple((n, before.get((spec.path, n), v)) for n, v in spec.attributes),
        )
        for spec in more
    )
    listed = {(spec.path, name) for spec in (*modules, *more) for name, _ in spec.attributes}
    added = [c for c in changes if (c.module, c.name) not in listed and _is_listed(c)]
    return fingerprint.joined(fingerprint.joined(modules, more), fingerprint.modules_before(added))


def _is_listed(change: AttributeChange) -> bool:
    """True if the tables of models have such an attribute: of held objects, integers alone."""
    values = change.before if isinstance(change.before, tuple) else (change.before,)
    kinds = (int,) if "." in change.name else (int, bool, str)
    return bool(values) and all(type(value) in kinds for value in values)
