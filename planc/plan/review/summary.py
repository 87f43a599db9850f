"""A plan in one line, and in one paragraph: the counts, the costs and their origin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planc.plan.plan import AttributeChange, Plan, Provenance
from planc.plan.review.figures import change

_ORIGINS = {
    "file": "read from a file",
    "factory": "as the factory built them: random, unless it loads some",
    "model": "those of the given model",
}


def totals(plan: Plan) -> str:
    """The sum of a plan in one sentence.

    >>> totals(plan)  # doctest: +SKIP
    '37 groups, 11,456 channels: 5,728 removed; parameters 25.6 M → 6.9 M (−73 %); MACs ...'
    """
    before, after = plan.cost_before, plan.cost_after
    costs = f"parameters {change(before.params, after.params)}"
    return f"{removals(plan)}; {costs}; MACs {change(before.macs, after.macs)}{batch_text(plan)}"


def removals(plan: Plan) -> str:
    """The number of groups, of their units, and of the removed units."""
    kinds = {group.kind for group in plan.groups}
    kind = kinds.pop() if len(kinds) == 1 else "units"
    units = sum(group.size for group in plan.groups)
    removed = sum(len(group.removed) for group in plan.groups)
    count = f"{len(plan.groups):,} group{'' if len(plan.groups) == 1 else 's'}"
    return f"{count}, {units:,} {kind}: {removed:,} removed"


def batch(plan: Plan) -> int | None:
    """The number of examples in the inputs: the first dimension shared by all tensors.

    None where there is no such dimension: a tensor of fewer than two dimensions, or a single image.
    """
    shapes = list(_shapes(plan.inputs))
    first = {shape[0] if len(shape) > 1 else None for shape in shapes}
    image = any(len(shape) == 3 and shape[0] == 3 for shape in shapes)
    return None if image or len(first) != 1 else first.pop()


def batch_text(plan: Plan) -> str:
    """The number of examples that the MACs of a plan are for."""
    examples = batch(plan)
    if examples is None:
        return " for the inputs"
    return " per example" if examples == 1 else f" for a batch of {examples}"


def made_by(entry: Provenance) -> str:
    """Criterion, policy and seed."""
    return f"{entry.criterion}, {entry.policy}, seed {entry.seed}"


def origin_text(entry: Provenance) -> str:
    """Criterion, policy, seed and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in entry.versions)
    return f"{made_by(entry)} ({versions})" if versions else made_by(entry)


def weights_text(entry: Provenance) -> str:
    """The digest and the origin of the scored weights; empty if unknown."""
    digest = "" if entry.weights is None else entry.weights.hex()[:16]
    return ", ".join(filter(None, (digest, _ORIGINS.get(entry.origin, entry.origin))))


def attribute_name(module: str, name: str) -> str:
    """The full name of an attribute."""
    return f"{module}.{name}" if module else name


def not_from_widths(plan: Plan) -> tuple[AttributeChange, ...]:
    """Changes of attributes that are not the width of a cut tensor or group before and after."""
    widths = {(group.size, group.kept) for group in plan.groups}
    widths |= {(group.cells, group.kept // group.rows) for group in plan.groups}
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    for name, cut in plan.cuts.items():
        widths |= set(zip(shapes[name], cut.shape, strict=True))
    return tuple(c for c in plan.attributes if not _follows(c.before, c.after, widths))


def _follows(before: Any, after: Any, widths: set[tuple[int, int]]) -> bool:
    if isinstance(before, tuple | list) and isinstance(after, tuple | list):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(_follows(a, b, widths) for a, b in pairs)
    if isinstance(before, int) and isinstance(after, int):
        return before == after or (before, after) in widths
    return bool(before == after)


def _shapes(spec: Any) -> Iterator[tuple[int, ...]]:
    """The shapes of all tensors of a specification of inputs."""
    match spec:
        case ("tensor", tuple(shape), *_):
            yield shape
        case ("tuple" | "list", *items):
            for item in items:
                yield from _shapes(item)
        case ("dict", *items):
            for _, item in items:
                yield from _shapes(item)
