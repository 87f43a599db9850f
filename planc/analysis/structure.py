"""Structure: the attributes of a graph's modules recorded in a plan.

These are the class of each module, the attributes of torch's layers, those read by the graph or by
the rule of a leaf, and those changed by plans. All others (counters, flags, remembered shapes,
paths) are left out, so they make no plan stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from planc.ir.graph import Graph, Module, Node, attributes_read
from planc.ir.layers import known
from planc.plan.plan import CLASS, ModuleSpec
from planc.rules import named_by

Attribute = tuple[str, str]
"""The path of a module, and the name of its attribute."""


def module_table(graph: Graph, written: Iterable[Attribute]) -> tuple[ModuleSpec, ...]:
    """The modules of a graph with their classes and structural attributes, attributes sorted by
    name.
    """
    read = attributes_read((n for n in graph.nodes if not n.leaf), graph.numbers.values())
    listed: dict[str, set[str]] = {}
    for path, name in (*read, *written, *_of_leaves(graph.nodes)):
        listed.setdefault(path, set()).add(name)
    return tuple(_spec(module, listed.get(path, set())) for path, module in graph.modules.items())


def _spec(module: Module, listed: set[str]) -> ModuleSpec:
    names = listed.union(known(module))
    found: dict[str, Any] = {n: value for n, value in module.attributes.items() if n in names}
    return ModuleSpec(module.path, tuple(sorted({**found, CLASS: module.kind}.items())))


def _of_leaves(nodes: Iterable[Node]) -> Iterator[Attribute]:
    """The attributes named by the rules of leaf modules."""
    for node in nodes:
        if node.leaf:
            yield from ((node.module, name) for name in named_by(node.op, dict(node.kwargs)))
