"""Consistency of rewritten size attributes with the pruned tensors.

A plan lists no classes of modules. An attribute with the name of a torch.nn layer's size attribute
counts as the size of a dimension if it had that size before, in a tensor of its own module.
"""

from __future__ import annotations

from collections.abc import Mapping

from planc.errors import MalformedFile
from planc.ir.layers import LAYERS, Derived
from planc.plan.plan import Plan

Shape = tuple[int, ...]
_BY_NAME: dict[str, list[Derived]] = {}
for _derived in {derived for row in LAYERS.values() for derived in row}:
    _BY_NAME.setdefault(_derived.name, []).append(_derived)


def check_layers(plan: Plan, after: Mapping[str, Shape]) -> None:
    """Check that every such attribute becomes the pruned size of a tensor of its module.

    Args:
        after: the shapes of the tensors cut by the plan, by their first names.

    Raises:
        MalformedFile: an attribute gets another value; names it and the possible sizes.
    """
    first = {name: spec for spec in plan.tensors for name in spec.names}
    values = {m.path: dict(m.attributes) for m in plan.modules if plan.attributes}
    changed = {(c.module, c.name): c.after for c in plan.attributes}
    for i, change in enumerate(plan.attributes):
        if type(change.after) is not int or change.name not in _BY_NAME:
            continue
        sizes = set()
        for derived in _BY_NAME[change.name]:
            for name in derived.sources(change.module):
                if name not in first or derived.dim >= len(first[name].shape):
                    continue
                spec = first[name]
                times = values[change.module].get(derived.times, 1)
                times_after = changed.get((change.module, derived.times), times)
                if type(times) is int and spec.shape[derived.dim] * times == change.before:
                    sizes.add(after.get(spec.name, spec.shape)[derived.dim] * times_after)
        if sizes and change.after not in sizes:
            raise MalformedFile(
                f"attributes[{i}].after: {change.after} for {change.name} of "
                f"{change.module!r}, its tensors get {sorted(sizes)}; compile the plan again"
            )
