"""The walk: rules applied to every node of a graph, repeated until no new row family is requested.

The result is :class:`Walked`: the facts of the last walk and the labels of every value.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planc.analysis.dead_ends import dead_ends
from planc.analysis.integers import plain_numbers
from planc.analysis.signs import positive
from planc.errors import AnalysisError
from planc.ir.expressions import Scalar, SizeOf, leaves
from planc.ir.graph import Graph, Node, Ref, provenanced, refs
from planc.ir.layers import indivisible, whole
from planc.rules import find
from planc.rules.labels import Labelled, Layer
from planc.rules.labels.facts import NEVER, Atoms, Facts, Note, Ragged, Rows, Slot

_MOST_WALKS = 12


@dataclass(frozen=True, eq=False)
class Walked:
    """The result of the last walk: facts, and the labels of each value of the graph."""

    facts: Facts
    labels: tuple[Labelled, ...]
    requests: tuple[Rows | Ragged, ...]


def walk(graph: Graph, strict: bool = False) -> Walked:
    """Walk the graph until no reshape requests a new row family, at most 12 times. Unserved
    requests are pinned, so every single walk is sound.

    Raises:
        AnalysisError: with ``strict``, if an operator has no rule or the last walk still requests
            row families; always, if a rule returns the wrong number of results or wrong shapes.
    """
    requests: dict[Rows | Ragged, None] = {}
    for count in range(1, _MOST_WALKS + 1):
        facts, labels = _Walk(graph, requests).run()
        if strict and facts.unknown:
            node = graph.nodes[facts.unknown[0]]
            raise AnalysisError(
                f"no rule for operator {node}; register one with planc.rule, or analyse without "
                "strict to leave whole what it touches"
            )
        new = [request for request in facts.requests if request not in requests]
        if strict and new and count == _MOST_WALKS:
            raise AnalysisError(
                f"row families are still being asked for after {count} walks, the last ones of "
                f"{sorted({graph.tensors[r.tensor].name for r in new})[:3]}; analyse without "
                "strict to leave them whole"
            )
        if not new or count == _MOST_WALKS:
            break
        requests |= dict.fromkeys(new)
    return Walked(facts, tuple(labels), tuple(requests))


def walk_with_values(graph: Graph, walked: Walked, nonzero: Container[int]) -> Facts:
    """Repeat the last walk, assuming that the removed coordinates of the slots numbered in
    ``nonzero`` are not zero. Its mixings are the atoms for which removing then differs from keeping
    them.
    """
    return _Walk(graph, walked.requests, nonzero).run()[0]


class _Walk:
    """One walk, with the row families and ragged dimensions of ``requests``."""

    def __init__(
        self, graph: Graph, requests: Collection[Rows | Ragged], nonzero: Container[int] = ()
    ) -> None:
        self.graph = graph
        self.nonzero = nonzero
        self.positive = positive(graph)
        self.facts = Facts(unsure=graph.data_dependent)
        self.labels: list[Labelled] = [Labelled(value.shape) for value in graph.values]
        self.aliases: dict[int, list[int]] = {}
        for i, value in enumerate(graph.values):
            self.aliases.setdefault(value.storage, []).append(i)
        self.lent = {graph.values[d.value].storage for d in graph.departures if d.shared}
        for i, constant in graph.constants.items():
            self.labels[i] = Labelled(graph.values[i].shape, (), constant)
        self.whole = whole((tensor.names, tensor.shape) for tensor in graph.tensors)
        self._label_tensors(requests)

    def _label_tensors(self, requests: Collection[Rows | Ragged]) -> None:
        ragged = {(r.tensor, r.dim): (r.over, r.blocks) for r in requests if isinstance(r, Ragged)}
        rows = [request for request in requests if isinstance(request, Rows)]
        layers: list[list[Layer]] = [[] for _ in self.graph.tensors]
        numbers = plain_numbers(self.graph)
        for t, tensor in enumerate(self.graph.tensors):
            if not (tensor.floating or tensor.value in numbers):
                continue
            for dim, n in enumerate(tensor.shape):
                if n > 1:
                    over, blocks = ragged.get((t, dim), (-1, 1))
                    slot = self._slot(t, dim, n * blocks, over=over, blocks=blocks)
                    layers[t].append(self._layer(slot, tensor.shape))
        for request in sorted(rows, key=lambda request: (request.tensor, request.dim)):
            t, array = request.tensor, request.array
            slot = self._slot(t, request.dim, int(array.max()), rows=array)
            layers[t].append(self._layer(slot, self.graph.tensors[t].shape))
        for t, tensor in enumerate(self.graph.tensors):
            self.labels[tensor.value] = Labelled(tensor.shape, tuple(layers[t]))
            self.facts.balance(self.labels[tensor.value])

    def _slot(self, tensor: int, dim: int, count: int, **fields: Any) -> Slot:
        slot = Slot(tensor, dim, self.facts.next_atom, count, **fields)
        self.facts.fresh(count)
        self.facts.slots.append(slot)
        return slot

    def _layer(self, slot: Slot, shape: tuple[int, ...]) -> Layer:
        kept = slot.dim == self.whole.get(self.graph.tensors[slot.tensor].names[0])
        zero = not kept and len(self.facts.slots) - 1 not in self.nonzero
        return Layer(self._atoms(slot, shape), slot.dim, zero, kept)

    @staticmethod
    def _atoms(slot: Slot, shape: tuple[int, ...]) -> Atoms:
        place = [n if d == slot.dim else 1 for d, n in enumerate(shape)]
        if slot.rows is not None:
            atoms = np.where(slot.rows == 0, NEVER, slot.first + slot.rows - 1)
            return atoms.reshape(place)
        atoms = np.arange(slot.first, slot.first + slot.count, dtype=np.int64)
        if slot.blocks == 1:
            return atoms.reshape(place)
        per_block = atoms.reshape(slot.blocks, -1)  # one line for each block, see Layer
        place[slot.over] = slot.blocks
        return (per_block if slot.over < slot.dim else per_block.T).reshape(place)

    def run(self) -> tuple[Facts, list[Labelled]]:
        facts, graph = self.facts, self.graph
        self._pin_indivisible()
        used = {ref.id for node in graph.nodes for ref in refs((node.args, node.kwargs_values))}
        read = self._read()
        for i, node in enumerate(graph.nodes):
            facts.node = i
            facts.read = tuple(ref.id in read for ref in node.outputs if ref)
            results = [graph.values[ref.id] for ref in node.outputs if ref]
            facts.shapes = tuple(value.shape for value in results)
            facts.itemsize = results[0].itemsize if results else 1
            first = node.args[0] if node.args else None
            facts.in_order = isinstance(first, Ref) and graph.values[first.id].plain
            self._apply(node)
        facts.node = -1
        for ref in graph.outputs:
            layers = self.labels[ref.id].layers
            if ref.id in graph.free:  # all lines keep the same indices, or those of each slice
                layers = tuple(la for la in layers if not _sliced(la, self.labels[ref.id].shape))
            facts.pin(layers, "an output of the model")
        for departure in graph.departures:
            facts.pin(self.labels[departure.value].layers, departure.reason)
        for tensor in graph.tensors:
            if tensor.value not in used:
                facts.pin(self.labels[tensor.value].layers, "not used by the traced run")
        if graph.data_dependent:
            self._pin_dead_ends(used | graph.read_outside)
        return facts, self.labels

    def _read(self) -> set[int]:
        """The values used by an operator that computes with them, or from outside the graph."""
        read = set(self.graph.read_outside)
        for node in reversed(self.graph.nodes):
            if not node.idle or any(ref is not None and ref.id in read for ref in node.outputs):
                read.update(ref.id for ref in refs((node.args, node.kwargs_values)))
        return read

    def _pin_indivisible(self) -> None:
        """Pin weights that only make sense whole: the parts and inputs of a parametrization, and
        tensors in sparse layouts.
        """
        for tensor in self.graph.tensors:
            if tensor.layout != "strided":
                self.facts.pin(self.labels[tensor.value].layers, f"stored as {tensor.layout}")
        for path, module in self.graph.modules.items():
            reason = indivisible(module)
            for tensor in self.graph.tensors if reason else ():
                if any(name.startswith(path.rpartition(".")[0] + ".") for name in tensor.names):
                    self.facts.pin(self.labels[tensor.value].layers, reason)

    def _pin_dead_ends(self, used: set[int]) -> None:
        """Pin unused results: another run may use them, as in a detector without detections."""
        for i, node in enumerate(self.graph.nodes):
            present = [ref.id for ref in node.outputs if ref is not None]
            if not node.in_place and not used.intersection(present):
                self.facts.node = i
                for value in present:
                    self.facts.pin(self.labels[value].layers, "not used further by the traced run")
        for i, atoms in dead_ends(self.graph, self.facts, self.labels):
            self.facts.pins.append(Note(atoms, "only a decision reads it in the traced run", i))
        self.facts.node = -1

    def _apply(self, node: Node) -> None:
        facts = self.facts
        fn = find(node.op)
        inputs = [self.labels[ref.id] for ref in refs((node.args, node.kwargs_values))]
        result: Any = None
        if fn is None:
            self._unknown(node, inputs)
        else:
            args = tuple(self._resolve(arg) for arg in node.args)
            kwargs = {name: self._resolve(arg) for name, arg in node.kwargs}
            result = fn(facts, *args, **kwargs)
            self._scalars(node)
        results = result if isinstance(result, tuple) else (result,)
        present = [ref for ref in node.outputs if ref is not None]
        if result is not None and len(results) != len(present):
            raise AnalysisError(
                f"rule for {node}: gives {len(results)} results, traced {len(present)}"
            )
        for ref, labelled in zip(present, results, strict=False):
            if labelled is None:
                continue
            shape = self.graph.values[ref.id].shape
            if labelled.shape != shape:
                raise AnalysisError(f"rule for {node}: says {labelled.shape}, traced {shape}")
            known = self.labels[ref.id].constant
            blank = labelled.blank and self.graph.values[ref.id].storage not in self.lent
            above = ref.id in self.positive
            self.labels[ref.id] = Labelled(shape, labelled.layers, known, blank, above)
        if (target := node.written) is not None and present:
            self._overwritten(target, present[0])

    def _resolve(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self.labels[argument.id]
        if isinstance(argument, tuple):
            return tuple(self._resolve(item) for item in argument)
        return argument

    def _unknown(self, node: Node, inputs: list[Labelled]) -> None:
        layers = [layer for labelled in inputs for layer in labelled.layers]
        if any((self.facts.slot_of(layer.atoms) >= 0).any() for layer in layers):
            self.facts.unknown.append(self.facts.node)
        self.facts.pin(layers, f"{node.op} has no rule")

    def _overwritten(self, target: Ref, written: Ref) -> None:
        """Update the labels of aliases after an in-place operator: their removed coordinates may no
        longer be zero, and none of them is blank.
        """
        zero = all(layer.zero for layer in self.labels[written.id].layers)
        # a result without content may have other memory than its target
        for alias in self.aliases[self.graph.values[target.id].storage]:
            kept = any(layer.whole for layer in self.labels[alias].layers)
            if (alias != written.id and not zero) or kept:
                self.labels[alias] = self.labels[alias].nonzero()
            if self.labels[alias].blank:
                self.labels[alias] = replace(self.labels[alias], blank=False)

    def _scalars(self, node: Node) -> None:
        """Record sizes used as numbers: the module computes another number when they shrink."""
        arguments = (node.args, node.kwargs_values)
        numbers = [n for n in provenanced(arguments) if isinstance(n, Scalar)]
        held = tuple(self.graph.numbers.get(ref.id, ()) for ref in refs(arguments))
        made = provenanced(held)
        for number in (*numbers, *made):
            for leaf in leaves(number.expr):
                if isinstance(leaf, SizeOf):
                    layers = self.labels[leaf.value].targeting(leaf.dim)
                    self.facts.mix(layers, "its width is used as a number", module_only=True)


def _sliced(layer: Layer, shape: tuple[int, ...]) -> bool:
    """True if each slice along the first dimension has the same atoms along all of it."""
    varying = {*layer.varying} - {layer.target}
    return not varying or (varying == {0} and layer.atoms.shape[0] == shape[0])
