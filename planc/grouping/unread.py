"""Pins of what the traced run did not read, because of the sizes of its inputs.

``pos[:T]`` reads as many rows as the example is long; a longer input reads more of them. A part of
a value that no read of the run covers is pinned, unless the code leaves it out for every input: by
a literal, an attribute, or the width of a pruned dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planc.expr import Apply, Const, Expr, Size, SizeOf, leaves
from planc.facts import NEVER, Atoms, Note
from planc.grouping.classes import components
from planc.grouping.literals import is_literal
from planc.ir import Graph, Node, Ref, refs
from planc.labels import dense
from planc.walk import Walked

UNREAD = "not read by the traced run"
FOLLOWS = "how much of it is read follows the sizes of the inputs"
_SPLITS = frozenset({"split", "split_with_sizes", "chunk", "tensor_split", "unbind"})
_SPLITS |= {"hsplit", "vsplit", "dsplit"}
_COPIES = {f"{name}_copy": name for name in ("slice", "select", "narrow", "unbind", *_SPLITS)}


class Bound(IntEnum):
    """The origin of the bounds of a read."""

    FIXED = 0  # the same for all inputs
    UNCLEAR = 1
    INPUTS = 2  # computed from sizes of inputs


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The places ``at`` of dimension ``dim`` of value ``value`` that a node takes."""

    node: int
    value: int
    dim: int
    at: NDArray[np.intp]
    numbers: tuple[Any, ...]
    index: int = -1  # the value that holds the positions


def pin_unread(graph: Graph, walked: Walked) -> None:
    """Adds the pins to the facts of the walk."""
    reads = [read for read in _reads(graph, walked) if _labelled(walked, read)]
    done: set[tuple[int, int, bool]] = set()
    while notes := reads and list(_pins(graph, walked, reads, done)):
        walked.facts.pins.extend(notes)


def _labelled(walked: Walked, read: _Read) -> bool:
    layers = walked.labels[read.value].layers
    return any(la.target == read.dim or la.atoms.shape[read.dim] > 1 for la in layers)


# -- reads -----------------------------------------------------------------------------------------


def _reads(graph: Graph, walked: Walked) -> Iterator[_Read]:
    """The reads of parts of values, in order."""
    used = {ref.id for node in graph.nodes for ref in refs((node.args, node.kwargs_values))}
    used |= {ref.id for ref in graph.outputs}
    for i, node in enumerate(graph.nodes):
        if node.args and isinstance(node.args[0], Ref) and not node.leaf:
            shape = graph.values[node.args[0].id].shape
            yield from _parts(graph, walked, i, node, shape, used)


def _parts(
    graph: Graph, walked: Walked, i: int, node: Node, shape: tuple[int, ...], used: set[int]
) -> Iterator[_Read]:
    value, name = node.args[0].id, _name(node)
    given = (*node.args[1:], *node.kwargs_values)
    dim, rest = _dim(given, len(shape)), given[1:]
    if name == "slice":
        start, end, step = (*rest, None, None, None)[:3]
        at = np.arange(shape[dim])[slice(start, end, step)]
        yield _Read(i, value, dim, at, _bounds(start, end, step, shape[dim]))
    elif name == "select" and isinstance(rest[0], int):
        yield _Read(i, value, dim, np.arange(shape[dim])[[rest[0]]], rest)
    elif name == "narrow" and isinstance(rest[0], int):
        at = np.arange(shape[dim])[rest[0] :][: rest[1]]
        yield _Read(i, value, dim, at, rest)
    elif name in ("constant_pad_nd", "pad"):
        yield from _cropped(i, value, shape, given[0])
    elif name == "index":
        yield from _indexed(walked, i, value, shape, given[0])
    elif name in _SPLITS:
        yield from _split(graph, i, node, shape, used)


def _name(node: Node) -> str:
    name = node.op.split(".")[1].removeprefix("unsafe_")
    return _COPIES.get(name, name)


def _dim(given: tuple[Any, ...], rank: int) -> int:
    return given[0] % rank if given and type(given[0]) is not bool and isinstance(
        given[0], int
    ) and rank else 0


def _bounds(start: Any, end: Any, step: Any, size: int) -> tuple[Any, ...]:
    """The bounds of a slice that leave something out, or may do so at other sizes."""
    beyond = end is None or (not isinstance(end, Size) and end >= size)
    return (
        *(() if start in (None, 0) and not isinstance(start, Size) else (start,)),
        *(() if beyond else (end,)),
        *(() if step in (None, 1) else (step,)),
    )


def _cropped(i: int, value: int, shape: tuple[int, ...], pad: tuple[Any, ...]) -> Iterator[_Read]:
    for k in range(len(pad) // 2):
        before, after = pad[2 * k : 2 * k + 2]
        dim = len(shape) - 1 - k
        if before < 0 or after < 0:
            at = np.arange(shape[dim])[max(0, -before) : shape[dim] - max(0, -after)]
            yield _Read(i, value, dim, at, (before, after))


def _indexed(
    walked: Walked, i: int, value: int, shape: tuple[int, ...], indices: tuple[Any, ...]
) -> Iterator[_Read]:
    """One constant list of positions; the rules pin what other indices pick from."""
    given = [(dim, ref) for dim, ref in enumerate(indices) if ref is not None]
    if len(given) == 1:
        dim, ref = given[0]
        chosen = walked.labels[ref.id].constant
        if chosen is not None and chosen.ndim == 1 and chosen.dtype != bool:
            yield _Read(i, value, dim, chosen.astype(np.intp) % shape[dim], (), ref.id)


def _split(
    graph: Graph, i: int, node: Node, shape: tuple[int, ...], used: set[int]
) -> Iterator[_Read]:
    """The parts that are used further."""
    present = [ref.id for ref in node.outputs if ref is not None]
    pieces = [graph.values[ref].shape for ref in present]
    if _name(node) == "unbind":
        dim = _dim((*node.args[1:], *node.kwargs_values), len(shape))
        sizes = [1] * len(present)
    else:
        changed = (d for d, n in enumerate(shape) if any(piece[d] != n for piece in pieces))
        dim = next(changed, 0)
        sizes = [piece[dim] for piece in pieces]
    ends = np.cumsum(sizes)
    at = [
        np.arange(end - size, end)
        for ref, size, end in zip(present, sizes, ends, strict=True)
        if ref in used
    ]
    numbers = tuple(_numbers(node.args[1:2]))
    yield _Read(i, node.args[0].id, dim, np.concatenate([*at, np.arange(0)]), numbers)


def _numbers(argument: Any) -> Iterator[Any]:
    if isinstance(argument, tuple):
        for item in argument:
            yield from _numbers(item)
    elif isinstance(argument, int | float) and type(argument) is not bool:
        yield argument


# -- origins of bounds -----------------------------------------------------------------------------


class _Origins:
    """Tells where bounds come from, by the labels that are still live."""

    def __init__(self, graph: Graph, walked: Walked) -> None:
        self.graph, self.walked = graph, walked
        facts = walked.facts
        self.component = components(facts)
        self.live = np.zeros(int(self.component.max(initial=0)) + 1, dtype=bool)
        for slot in facts.slots:
            self.live[self.component[slot.first : slot.first + slot.count]] = True
        self.live[self.component[NEVER]] = False
        self.tensors = {tensor.value for tensor in graph.tensors}
        self.made = {
            ref.id: node for node in graph.nodes for ref in node.outputs if ref is not None
        }

    def of(self, read: _Read) -> Bound:
        node = self.graph.nodes[read.node]
        if _name(node) in _SPLITS:  # which of the parts are used may depend on the inputs
            picked = Bound(not is_literal(node.source, "select"))
            return max([picked, *(self.number(n, node) for n in read.numbers)])
        if read.index >= 0 and is_literal(node.source, "index"):
            return Bound.FIXED
        known = [self.number(number, node) for number in read.numbers]
        return max([Bound.FIXED, *known, *([self.content(read.index)] if read.index >= 0 else [])])

    def number(self, number: Any, node: Node) -> Bound:
        if not isinstance(number, Size):
            return Bound(not is_literal(node.source, _name(node)))
        if self.of_inputs(number.expr):
            return Bound.INPUTS
        plain = any(isinstance(part, Const) for part in _parts_of(number.expr))
        return Bound(plain and not is_literal(node.source, _name(node), attributes=True))

    def of_inputs(self, expr: Expr) -> bool:
        """Whether a size of an input counts in an expression: one that no plan changes, and that
        is not the size of a tensor of the model.
        """
        sizes = (leaf for leaf in leaves(expr) if isinstance(leaf, SizeOf))
        return any(
            leaf.value not in self.tensors and not self._shrinks(leaf) for leaf in sizes
        )

    def _shrinks(self, size: SizeOf) -> bool:
        layers = self.walked.labels[size.value].targeting(size.dim)
        return any(self.live[self.component[layer.atoms]].any() for layer in layers)

    def content(self, value: int) -> Bound:
        """The origin of positions that are known: buffers are the same for all inputs."""
        if value in self.tensors:
            return Bound.FIXED
        node = self.made.get(value)
        if node is None:
            return Bound.UNCLEAR
        numbers = (self.number(n, node) for n in _numbers((node.args, node.kwargs_values)))
        operands = (self.content(ref.id) for ref in refs((node.args, node.kwargs_values)))
        return max([Bound.FIXED, *numbers, *operands])


def _parts_of(expr: Expr) -> Iterator[Expr]:
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from _parts_of(arg)


# -- pins ------------------------------------------------------------------------------------------


def _pins(
    graph: Graph,
    walked: Walked,
    reads: Iterable[_Read],
    done: set[tuple[int, int, bool]],
) -> Iterator[Note]:
    """The pins that are not ``done`` yet: sizes of what is pinned are no longer those of a plan."""
    origins = _Origins(graph, walked)
    by_place: dict[tuple[int, int], list[_Read]] = {}
    for read in reads:
        by_place.setdefault((read.value, read.dim), []).append(read)
    whole = _read_whole(graph, by_place)
    for (value, dim), found in by_place.items():
        bound = max(origins.of(read) for read in found)
        if bound is Bound.FIXED and not graph.data_dependent:
            continue
        node = found[0].node
        if (value, dim, False) not in done and value not in whole:
            done.add((value, dim, False))
            at = np.concatenate([read.at for read in found])
            yield from (Note(a, UNREAD, node) for a in _outside(walked, value, dim, at))
        if bound is Bound.INPUTS and (value, dim, True) not in done:
            done.add((value, dim, True))
            layers = walked.labels[value].targeting(dim)
            yield from (Note(layer.atoms, FOLLOWS, node) for layer in layers)


def _read_whole(graph: Graph, by_place: dict[tuple[int, int], list[_Read]]) -> set[int]:
    """The values computed from inputs that another operator takes whole, or the model returns. Of
    the model's own tensors, a longer input reads a later part beside that, too.
    """
    partial = {read.node for found in by_place.values() for read in found}
    whole = {ref.id for ref in graph.outputs}
    given = {ref.id for ref in graph.inputs}
    for i, node in enumerate(graph.nodes):
        operands = {ref.id for ref in refs((node.args, node.kwargs_values))}
        whole |= {ref.id for ref in refs((node.args[1:], node.kwargs_values))}
        whole |= set() if i in partial else operands
        if given & operands:
            given |= {ref.id for ref in node.outputs if ref is not None}
    return whole & given


def _outside(
    walked: Walked, value: int, dim: int, at: NDArray[np.intp]
) -> Iterator[Atoms]:
    """The atoms of a value that stand only beside the places ``at`` of a dimension."""
    x = dense(walked.labels[value])
    left = np.setdiff1d(np.arange(x.shape[dim]), at)
    for layer in x.layers:
        if layer.atoms.shape[dim] > 1 and len(left):
            beside = layer.atoms.take(left, axis=dim)
            yield np.setdiff1d(beside, layer.atoms.take(np.unique(at), axis=dim))
