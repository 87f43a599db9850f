"""A plan in a line, in a sentence and in a paragraph: its units, costs, latency and origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from planc.errors.text import escaped
from planc.plan.latency import Kept, LatencyTable
from planc.plan.plan import AttributeChange, Latency, OutputChange, Plan, Provenance
from planc.plan.review.figures import change, duration, share
from planc.plan.review.rows import collapsed

_ROWS = 24  # of a summary; a larger plan has none
_ORIGINS = {
    "file": "read from a file",
    "factory": "as the factory built them: random, unless it loads some",
    "model": "those of the given model",
}


def line(plan: Plan) -> str:
    """A plan in one line, for the eye that looks for one among many."""
    before, after = plan.cost_before, plan.cost_after
    saved = (
        f"parameters {share(before.params, after.params)}, MACs {share(before.macs, after.macs)}"
    )
    if plan.latency is not None:
        saved += f", latency {share(plan.latency.before, plan.latency.after)}"
    return f"<Plan {plan.fingerprint[:8]} for a {plan.target}: {removals(plan)}; {saved}>"


def summary(plan: Plan) -> str:
    """A plan in a few lines: origin, removed units, costs before and after.

    MACs are those of the example inputs, whose batch is named.
    """
    before, after = plan.cost_before, plan.cost_after
    lines = [f"plan {plan.fingerprint[:16]} for a {plan.target}"]
    for entry in plan.provenance:
        lines.append(made_by(entry))
        if weights := weights_text(entry):
            lines.append(f"weights {weights}")
    lines += [
        removals(plan),
        f"parameters {change(before.params, after.params)}",
        f"MACs {change(before.macs, after.macs)}{batch_text(plan)}",
    ]
    if plan.latency is not None:
        lines.append(f"latency {times_text(plan.latency)}")
    if plan.outputs:
        lines.append(f"outputs that shrink: {'; '.join(map(output_text, plan.outputs))}")
    rows = collapsed(plan.groups)
    longest = max((len(row.label) for row in rows), default=0)
    if len(rows) <= _ROWS:
        lines += [
            f"  {row.label.ljust(longest)}  {row.before} → {row.after} ({row.removed})"
            for row in rows
        ]
    return "\n".join(map(escaped, lines))


def with_latency(plan: Plan, predict: Callable[[Kept], int], machine: str) -> Plan:
    """The plan with its latency: nanoseconds as a function of the units of a row kept by groups."""
    whole = np.array([group.cells for group in plan.groups], dtype=np.int64)
    kept = np.array([group.kept // group.rows for group in plan.groups], dtype=np.int64)
    return plan.replace(latency=Latency(predict(kept), predict(whole), machine))


def timed(plan: Plan, table: LatencyTable | None) -> Plan:
    """The plan with the latency predicted by a table, or with its own one without a table.

    Raises:
        PolicyError: the table was measured for another structure, or for other inputs.
    """
    if table is None:
        return plan
    if plan.inputs:
        table.check_inputs(plan.inputs)
    return with_latency(
        plan, table.function(plan.source.structure, len(plan.groups)), table.machine
    )


def times_text(latency: Latency) -> str:
    """Times before and after, and the machine that they are predicted for."""
    before, after = latency.before, latency.after
    times = f"{duration(before)} → {duration(after)} ({share(before, after)})"
    return f"{times} on {latency.machine}"


def totals(plan: Plan) -> str:
    """The sum of a plan in one sentence: groups, units, parameters, MACs, and latency if known."""
    before, after = plan.cost_before, plan.cost_after
    latency = [f"latency {times_text(plan.latency)}"] if plan.latency is not None else []
    parts = [
        removals(plan),
        f"parameters {change(before.params, after.params)}",
        f"MACs {change(before.macs, after.macs)}{batch_text(plan)}",
    ]
    return "; ".join([*parts, *latency])


def removals(plan: Plan) -> str:
    """The number of groups, of their units, and of the removed units."""
    kinds = {group.kind for group in plan.groups}
    kind = escaped(kinds.pop()) if len(kinds) == 1 else "units"
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


def output_text(output: OutputChange) -> str:
    """An output that shrinks, by its path in the result, and its dimension before and after."""
    name = output.name or "the result"
    return f"{name}, dimension {output.dim}: {output.size} → {len(output.kept)}"


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
