"""Dead ends: values reaching no output of the traced run, because only a decision reads them.

Another run may decide otherwise and return them. Their atoms are pinned unless a value on the way
to an output has them as well, directly or by a tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from planc.ir.graph import Graph, Node, Ref, refs
from planc.rules.labels import Labelled
from planc.rules.labels.facts import Atoms, Facts


def dead_ends(
    graph: Graph, facts: Facts, labels: Sequence[Labelled]
) -> Iterator[tuple[int, Atoms]]:
    """The nodes with results at a dead end, each with the atoms found there alone."""
    on = _going_on(graph)
    dead = [i for i, node in enumerate(graph.nodes) if not on.intersection(_results(node))]
    if not dead:
        return
    alive = _tied(facts, [labels[value] for value in on])
    for i in dead:
        for value in _results(graph.nodes[i]):
            for layer in labels[value].layers:
                atoms = layer.atoms[~alive[layer.atoms]]
                if len(atoms):
                    yield i, atoms


def _results(node: Node) -> list[int]:
    return [ref.id for ref in node.outputs if ref is not None]


def _going_on(graph: Graph) -> set[int]:
    """The values read outside the graph and everything they are computed from.

    Single numbers leaving torch do not count.
    """
    numbers = {
        departure.value
        for departure in graph.departures
        if departure.outside and math.prod(graph.values[departure.value].shape) == 1
    }  # code outside the graph may decide by them
    on = set(graph.read_outside - numbers) | {ref.id for ref in graph.outputs}
    written = {graph.values[value].storage for value in on}
    written |= {graph.values[tensor.value].storage for tensor in graph.tensors}
    for node in reversed(graph.nodes):
        target = node.written
        into = target is not None and graph.values[target.id].storage in written
        if on.intersection(_results(node)) or into:
            read: list[Ref] = list(refs((node.args, node.kwargs_values)))
            on.update((*(ref.id for ref in read), *_results(node)))
            written.update(graph.values[ref.id].storage for ref in read)
    return on


def _tied(facts: Facts, values: Sequence[Labelled]) -> NDArray[np.bool_]:
    """Mask over all atoms: True for the atoms of ``values`` and atoms tied to them."""
    pairs = [np.broadcast_arrays(a, b) for a, b, _ in facts.ties]
    heads, tails = (
        np.concatenate([np.zeros(0, dtype=np.int64), *(pair[side].reshape(-1) for pair in pairs)])
        for side in (0, 1)
    )
    n = facts.next_atom
    ones = np.ones(len(heads), dtype=np.int8)
    count, part = connected_components(coo_array((ones, (heads, tails)), shape=(n, n)))
    alive = np.zeros(count, dtype=bool)
    for labelled in values:
        for layer in labelled.layers:
            alive[part[layer.atoms.reshape(-1)]] = True
    return np.asarray(alive[part])
