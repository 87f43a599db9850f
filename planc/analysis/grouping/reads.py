"""Partial reads: the places of a dimension taken by slices, splits and constant indices.

Each operator with a partly used first operand gives one :class:`Read`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planc.analysis.walk import Walked
from planc.ir.expressions import Size
from planc.ir.graph import Graph, Node, Ref, of_types, refs

Places = NDArray[np.intp]
SPLITS = frozenset({"split", "split_with_sizes", "chunk", "tensor_split", "unbind"})
SPLITS |= {"hsplit", "vsplit", "dsplit"}
_COPIES = {f"{name}_copy": name for name in ("slice", "select", "narrow", "unbind", *SPLITS)}


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """The places ``at`` of dimension ``dim`` of ``value``, taken by node ``node``.

    ``numbers`` are the given bounds; ``index`` is the value holding the positions, or None.
    """

    node: int
    value: int
    dim: int
    at: Places
    numbers: tuple[Any, ...] = ()
    index: int | None = None


def reads(graph: Graph, walked: Walked) -> Iterator[Read]:
    """The partial reads along labelled dimensions, in the order of the graph."""
    used = {ref.id for node in graph.nodes for ref in refs((node.args, node.kwargs_values))}
    used |= {ref.id for ref in graph.outputs}
    for i, node in enumerate(graph.nodes):
        if node.leaf or not node.args or not isinstance(node.args[0], Ref):
            continue
        for read in _parts(graph, walked, i, used):
            layers = walked.labels[read.value].layers
            if any(la.target == read.dim or la.atoms.shape[read.dim] > 1 for la in layers):
                yield read


def name_of(node: Node) -> str:
    """The base name of an operator, without the marks of copying and unsafe variants."""
    name = node.op.split(".")[1].removeprefix("unsafe_")
    return _COPIES.get(name, name)


def numbers_in(argument: Any) -> Iterator[int]:
    """The integers in an argument, in order."""
    return of_types(argument, int, Size)


def _parts(graph: Graph, walked: Walked, i: int, used: set[int]) -> Iterator[Read]:
    node = graph.nodes[i]
    name, value = name_of(node), node.args[0].id
    shape = graph.values[value].shape
    given = (*node.args[1:], *node.kwargs_values)
    if name in ("constant_pad_nd", "pad"):
        yield from _cropped(i, value, shape, given[0])
    elif name == "index":
        yield from _indexed(walked, i, value, shape, given[0])
    elif name in SPLITS:
        yield from _split(graph, i, used)
    elif name in ("slice", "select", "narrow"):
        dim = given[0] % len(shape) if given else 0
        at = _taken(name, np.arange(shape[dim]), given[1:])
        if at is not None:
            bounds = _bounds(given[1:], shape[dim]) if name == "slice" else given[1:]
            yield Read(i, value, dim, at, bounds)


def _taken(name: str, places: Places, given: tuple[Any, ...]) -> Places | None:
    """The places taken from a dimension, None if a tensor determines them."""
    if name == "slice":
        return places[slice(*(*given, None, None, None)[:3])]
    if not isinstance(given[0], int):
        return None
    return places[[given[0]]] if name == "select" else places[given[0] :][: given[1]]


def _bounds(given: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    """The bounds of a slice that exclude places, now or at other sizes."""
    start, end, step = (*given, None, None, None)[:3]
    left_out = ((start, (None, 0)), (step, (None, 1)))
    bounds = [bound for bound, idle in left_out if isinstance(bound, Size) or bound not in idle]
    if isinstance(end, Size) or (end is not None and end < size):
        bounds.append(end)
    return tuple(bounds)


def _cropped(i: int, value: int, shape: tuple[int, ...], pad: tuple[int, ...]) -> Iterator[Read]:
    """Crops by negative padding."""
    for k in range(len(pad) // 2):
        before, after = pad[2 * k : 2 * k + 2]
        dim = len(shape) - 1 - k
        if before < 0 or after < 0:
            at = np.arange(shape[dim])[max(0, -before) : shape[dim] - max(0, -after)]
            yield Read(i, value, dim, at, (before, after))


def _indexed(
    walked: Walked, i: int, value: int, shape: tuple[int, ...], indices: tuple[Ref | None, ...]
) -> Iterator[Read]:
    """A constant list of positions; the rules pin operands of all other indices."""
    given = [(dim, ref.id) for dim, ref in enumerate(indices) if ref is not None]
    if len(given) == 1:
        dim, index = given[0]
        chosen = walked.labels[index].constant
        if chosen is not None and chosen.ndim == 1 and chosen.dtype != bool:
            yield Read(i, value, dim, chosen.astype(np.intp) % shape[dim], index=index)


def _split(graph: Graph, i: int, used: set[int]) -> Iterator[Read]:
    """The parts of a split with later uses."""
    node = graph.nodes[i]
    value, present = node.args[0].id, [ref.id for ref in node.outputs if ref is not None]
    shape, pieces = graph.values[value].shape, [graph.values[piece].shape for piece in present]
    if name_of(node) == "unbind":
        given = (*node.args[1:], *node.kwargs_values)
        dim, sizes = (given[0] if given else 0) % len(shape), [1] * len(present)
    else:
        dim = next((d for d, n in enumerate(shape) if any(p[d] != n for p in pieces)), 0)
        sizes = [piece[dim] for piece in pieces]
    owner = np.repeat(present, sizes)
    yield Read(
        i, value, dim, np.flatnonzero(np.isin(owner, list(used))), tuple(numbers_in(node.args[1:2]))
    )
