"""Pins of parts outside the traced run's reads, because of the sizes of its inputs.

``pos[:T]`` reads as many rows as the example is long; a longer input reads more. A part outside
every read of the run is pinned, unless the code excludes it for all inputs: by a literal, an
attribute, or the width of a pruned dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from planc.analysis.grouping.origins import Origins
from planc.analysis.grouping.reads import Places, Read, reads
from planc.analysis.walk import Walked
from planc.ir.graph import Graph, refs
from planc.rules.labels import dense
from planc.rules.labels.facts import Atoms, Note

UNREAD = "not read by the traced run"
FOLLOWS = "how much of it is read follows the sizes of inputs"


def pin_unread(graph: Graph, walked: Walked) -> None:
    """Add the pins to the facts of the walk.

    Reads with bounds made of input sizes come first. Their pins remove widths from the plan's
    control, so the rest is examined again until no further read follows the inputs.
    """
    by_place: dict[tuple[int, int], list[Read]] = {}
    for read in reads(graph, walked):
        by_place.setdefault((read.value, read.dim), []).append(read)
    waiting = dict(by_place)
    while follow := _following(waiting, Origins(graph, walked)) if waiting else []:
        for place in follow:  # pinned widths no longer depend on a plan
            node = waiting.pop(place)[0].node
            layers = walked.labels[place[0]].targeting(place[1])
            walked.facts.pins.extend(Note(layer.atoms, FOLLOWS, node) for layer in layers)
            at = _read_by(by_place[place])
            outside = _outside(walked, place, at)
            walked.facts.pins.extend(Note(atoms, UNREAD, node) for atoms in outside)
    walked.facts.pins.extend(_left_out(graph, walked, waiting))


def _following(
    waiting: Mapping[tuple[int, int], list[Read]], origins: Origins
) -> list[tuple[int, int]]:
    return [place for place, found in waiting.items() if any(map(origins.follows_inputs, found))]


def _left_out(
    graph: Graph, walked: Walked, waiting: Mapping[tuple[int, int], list[Read]]
) -> Iterator[Note]:
    """Pins of parts excluded by reads that vary with the inputs, or that lie on one of several
    paths through the model.
    """
    if not waiting:
        return
    origins, whole = Origins(graph, walked), _read_whole(graph, waiting)
    for place, found in waiting.items():
        outside = [] if place[0] in whole else list(_outside(walked, place, _read_by(found)))
        if outside and (graph.data_dependent or not all(map(origins.is_fixed, found))):
            yield from (Note(atoms, UNREAD, found[0].node) for atoms in outside)


def _read_whole(graph: Graph, waiting: Mapping[tuple[int, int], list[Read]]) -> set[int]:
    """Values taken whole by another operator, or returned by the model.

    Counted are values computed from inputs, and values with parts only written into. Tensors of the
    model do not count: a longer input reads a later part of them as well.
    """
    partial = {read.node for found in waiting.values() for read in found}
    whole = {ref.id for ref in graph.outputs}
    given = {ref.id for ref in graph.inputs}
    for i, node in enumerate(graph.nodes):
        operands = {ref.id for ref in refs((node.args, node.kwargs_values))}
        whole |= {ref.id for ref in refs((node.args[1:], node.kwargs_values))}
        whole |= set() if i in partial else operands
        if given & operands:
            given |= {ref.id for ref in node.outputs if ref is not None}
    kept = {value for (value, _), found in waiting.items() if not _are_written(graph, found)}
    return whole & (given | ({value for value, _ in waiting} - kept))


def _are_written(graph: Graph, found: list[Read]) -> bool:
    """True if only in-place operators use the parts of these reads."""
    parts = {ref.id for read in found for ref in graph.nodes[read.node].outputs if ref is not None}
    returned = parts & {ref.id for ref in graph.outputs}
    users = [node for node in graph.nodes if parts & {ref.id for ref in node.operands}]
    return not returned and all(node.in_place for node in users)


def _read_by(found: list[Read]) -> Places:
    return np.unique(np.concatenate([read.at for read in found]))


def _outside(walked: Walked, place: tuple[int, int], at: Places) -> Iterator[Atoms]:
    """The atoms of a value found only outside the places ``at`` of a dimension."""
    value, dim = place
    x = dense(walked.labels[value])
    beside = np.setdiff1d(np.arange(x.shape[dim]), at)
    for layer in x.layers:
        if layer.atoms.shape[dim] > 1 and len(beside):
            inside = layer.atoms.take(at, axis=dim)
            yield np.setdiff1d(layer.atoms.take(beside, axis=dim), inside)
