"""The intermediate representation: ATen calls over values with known shapes, frozen.

A :class:`Graph` is the product of a tracing front end and the whole input of the analysis. It holds
no weights; the only data are small integer constants used as indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from planc.ir.expressions import Attribute, Expr, Number, Scalar, Size, leaves

if TYPE_CHECKING:
    from planc.ir.construction import Construction


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a value, used in the arguments of a node."""

    id: int


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor at one point of the run. ``storage`` is equal for values with shared memory.

    ``plain`` is True if its elements stand in order from the start of their memory.
    """

    shape: tuple[int, ...]
    dtype: str
    storage: int = -1
    plain: bool = field(default=False, compare=False)

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def itemsize(self) -> int:
        """Bytes per element, from the bits in the name of the type."""
        bits = self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz").partition("_")[0]
        return max(1, int(bits) // 8) if bits.isdigit() else 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter or buffer of the model.

    ``names`` are all its qualified names, the primary one first; tied tensors have several.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    kind: str  # "parameter" or "buffer"
    value: int  # its value number in the graph
    itemsize: int
    layout: str = "strided"  # torch's name; tensors of other layouts stay whole

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True, slots=True)
class Node:
    """One ATen call. ``args`` and ``kwargs`` hold :class:`Ref`, numbers and nested tuples of them;
    numbers of known origin are :class:`planc.ir.expressions.Size` or
    :class:`planc.ir.expressions.Scalar`.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    outputs: tuple[Ref | None, ...]
    module: str
    source: tuple[str, int]

    @property
    def kwargs_values(self) -> tuple[Any, ...]:
        """The keyword arguments without their names."""
        return tuple(value for _, value in self.kwargs)

    @property
    def operands(self) -> tuple[Ref, ...]:
        """The values read for their content; operands read for shape and type alone are absent."""
        given = tuple(refs((self.args, self.kwargs_values)))
        if not self.op.startswith("aten."):
            return given
        name = self.op.split(".")[1]
        if self.op == "aten.to.other" or name.endswith("_as"):
            return given[:1]
        return given[1:] if name.endswith("_like") or name.startswith("new_") else given

    @property
    def numbers(self) -> Iterator[Size | Scalar]:
        """The numbers of known origin in the arguments, in order."""
        return provenanced((self.args, self.kwargs_values))

    @property
    def literals(self) -> tuple[float, ...]:
        """The floating-point numbers of unknown origin in the arguments, in order."""
        return tuple(of_types((self.args, self.kwargs_values), float))

    @property
    def options(self) -> tuple[bool | str, ...]:
        """The flags and words in the arguments, in order."""
        return tuple(of_types((self.args, self.kwargs_values), bool, str))

    @property
    def in_place(self) -> bool:
        """True if the operator overwrites an operand: see :attr:`written`."""
        if self.leaf:
            return False
        name = self.op.split(".")[1]
        return (name.endswith("_") and not name.endswith("__")) or self.out

    @property
    def out(self) -> bool:
        """True if the operator overwrites an argument ``out``."""
        return not self.leaf and writes_out(self.op) and any(key == "out" for key, _ in self.kwargs)

    @property
    def written(self) -> Ref | None:
        """The operand overwritten by the operator: the argument ``out``, or the first one."""
        if not self.in_place:
            return None
        return next(refs(dict(self.kwargs)["out"] if self.out else self.args[:1]), None)

    @property
    def leaf(self) -> bool:
        """True for the call of an untraced module, False for an operator."""
        return self.op.startswith("leaf.")

    @property
    def idle(self) -> bool:
        """True for calls without any computation, added or omitted by torch.

        ``contiguous`` has no effect on contiguous tensors, and a tensor may become one once a
        dimension has shrunk to 1; ``detach`` follows a view as another type.
        """
        return self.op in ("aten.contiguous.default", "aten.detach.default")

    def __str__(self) -> str:
        return f"{self.op} in {self.module or 'the model'} ({self.where})"

    @property
    def where(self) -> str:
        """File and line of the call in the user's code."""
        return f"{self.source[0]}:{self.source[1]}"


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """A value-dependent result (integers, truth values or a Python number) of floating-point inputs
    that rounding may flip.

    ``results`` holds the tensors by their position among the node's results, ``number`` a Python
    number for control flow, ``inputs`` the floating-point operands.
    """

    node: int
    inputs: tuple[int, ...]
    results: Mapping[int, Any]
    number: Any = None


@dataclass(frozen=True, slots=True)
class Departure:
    """A value readable from outside the graph; it stays whole.

    ``outside``: it has left torch, and results may depend on it unseen. ``shared``: its memory has
    left with it, and may be written to.
    """

    value: int
    reason: str
    outside: bool = False
    shared: bool = False


CAPTURED = "captured_"
"""Name prefix of a rewritten graph's buffers with constants of the original."""

AS_IT_IS = "as it is"
RETURNED = "as returned"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of a comparison of two sizes by the model's Python code: ``left`` is equal to,
    less than, or at most ``right``.

    Another outcome would have led to another graph. ``AS_IT_IS`` records the conversion of ``left``
    to a plain number, with untraceable use: it must keep its value. ``RETURNED`` records a size
    among the model's results.
    """

    left: Expr
    relation: str  # "==", "<", "<=", AS_IT_IS or RETURNED
    right: Expr
    module: str
    source: tuple[str, int]

    def __str__(self) -> str:
        where = f"{self.module or 'the model'} ({self.source[0]}:{self.source[1]})"
        if self.relation == RETURNED:
            return f"{self.left} is part of the result"
        if self.relation == AS_IT_IS:
            at = where if self.source[0] else "the model"
            return f"{self.left} made a plain number (by float(), int(), len(), ...) in {at}"
        return f"sizes compared by {self.relation} in {where}"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the model: its path, type names from the class up to ``Module``, and structural
    attributes (integers, booleans, strings and nested tuples of them).

    ``settings`` are the constructor parameters of torch.nn's own classes among the types.
    """

    path: str
    types: tuple[str, ...]
    attributes: Mapping[str, Any]
    settings: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The name of its class, without the defining file."""
        return self.types[0].rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced model.

    * ``inputs`` and ``outputs``: the tensors among the model's arguments and results, in order of
    nesting.
    * ``constants``: the values known while tracing (captured tensors, and results of them alone).
    * ``numbers``: the elements of captured tensors made of sizes.
    * ``frontend``: the name of the tracing front end.
    * ``data_dependent``: True for one of several graphs, chosen by the values of the inputs.
    * ``decisions``: the value-dependent results behind this graph.
    * ``comparisons``: the outcomes of comparisons of sizes.
    * ``departures``: the values readable otherwise than as outputs.
    * ``returned``: the captured values possibly made of these.
    * ``unwritable``: the reason why the rewritten graph cannot give the model's results, or "".
    * ``output_names``: the places of the first outputs in the result, such as ``hidden_states.0``;
    outputs inside other objects than nested containers have none.
    * ``free``: the outputs that may shrink; all others keep their size.
    * ``constructions``: make such models, or models inside, from configurations.
    """

    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    captured: Mapping[int, Any]
    numbers: Mapping[int, tuple[Number, ...]]
    constants: Mapping[int, np.ndarray]
    modules: Mapping[str, Module]
    frontend: str
    input_spec: Any = None
    output_spec: Any = None
    training: bool = False
    data_dependent: bool = False
    decisions: tuple[Decision, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    departures: tuple[Departure, ...] = ()
    returned: frozenset[int] = frozenset()
    unwritable: str = ""
    constructions: tuple[Construction, ...] = ()
    output_names: tuple[str, ...] = ()
    free: frozenset[int] = frozenset()

    @cached_property
    def _by_name(self) -> Mapping[str, Tensor]:
        return {name: tensor for tensor in self.tensors for name in tensor.names}

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of that name (any of its tied names)."""
        return self._by_name[name]

    @cached_property
    def read_outside(self) -> frozenset[int]:
        """The values read from outside the graph: outputs and departures."""
        return frozenset((*(r.id for r in self.outputs), *(d.value for d in self.departures)))

    @cached_property
    def lasting(self) -> tuple[Node, ...]:
        """The operators reached by an input, a parameter or a floating-point buffer, without idle
        ones.

        All others compute constants, possibly cached by the model between runs.
        """
        fed = {ref.id for ref in self.inputs}
        own = (t for t in self.tensors if not t.name.startswith(CAPTURED))
        fed |= {t.value for t in own if t.kind == "parameter" or t.floating}
        shared: set[int] = set()  # storages of constants overwritten with reached values
        found = []
        for node in self.nodes:
            given = [ref.id for ref in node.operands]
            if fed.isdisjoint(given) and shared.isdisjoint(self.values[i].storage for i in given):
                continue
            fed.update(ref.id for ref in node.outputs if ref is not None)
            if (written := node.written) is not None:
                shared.add(self.values[written.id].storage)
            if not node.idle:
                found.append(node)
        return tuple(found)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each parameter and buffer by all its names."""
        return {name: tensor.shape for name, tensor in self._by_name.items()}

    def has(self, name: str) -> bool:
        """True if there is a parameter or buffer of that name."""
        return name in self._by_name


def writes_out(operator: str) -> bool:
    """True for the overloads of operators that write into an argument ``out``."""
    return operator.endswith((".out", "_out"))


def refs(argument: Any) -> Iterator[Ref]:
    """The references in an argument, in order."""
    return of_types(argument, Ref)


def provenanced(argument: Any) -> Iterator[Size | Scalar]:
    """The numbers of known origin in an argument, in order."""
    return of_types(argument, Size, Scalar)


def attributes_read(
    nodes: Iterable[Node],
    numbers: Iterable[tuple[Number, ...]],
    comparisons: Iterable[Comparison] = (),
) -> set[tuple[str, str]]:
    """The attributes behind the numbers of operators and comparisons: paths of modules, names."""
    arguments = (number.expr for node in nodes for number in node.numbers)
    compared = (side for comparison in comparisons for side in (comparison.left, comparison.right))
    return {
        (leaf.module, leaf.name)
        for expr in (*arguments, *(n.expr for n in provenanced(tuple(numbers))), *compared)
        for leaf in leaves(expr)
        if isinstance(leaf, Attribute)
    }


def of_types(argument: Any, *types: type) -> Iterator[Any]:
    """The leaves of nested tuples with exactly one of some types, in order."""
    if type(argument) in types:
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from of_types(item, *types)
