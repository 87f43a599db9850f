"""Sizes that a plan writes to attributes, against the tensors that it leaves: a plan in, nothing or
a named refusal out.

A plan lists no classes of modules. An attribute of a name that layers of torch.nn have is taken for
the size of a dimension where it had that size before, in a tensor of its own module.
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
    """Returns if every such attribute becomes a size that a tensor of its module gets.

    Args:
        after: the shapes of the tensors that the plan cuts, by their first names.

    Raises:
        MalformedFile: one does not; names it, and the sizes that it might have.
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
