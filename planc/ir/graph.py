"""The intermediate representation: ATen calls over values with known shapes, frozen.

A :class:`Graph` is what a tracing front end produces and all that the analysis reads. It holds no
weights; only small integer constants that the model indexes with are kept as data.
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
    """A reference to a value, as it stands in the arguments of a node."""

    id: int


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor at one point of the run. ``storage`` is equal for values that share memory."""

    shape: tuple[int, ...]
    dtype: str
    storage: int = -1

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def itemsize(self) -> int:
        """Bytes of an element: the name of a type says its bits."""
        bits = self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz").partition("_")[0]
        return max(1, int(bits) // 8) if bits.isdigit() else 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter or buffer of the model.

    ``names`` are all its qualified names, first the one it is known by; tied tensors have several.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    kind: str  # "parameter" or "buffer"
    value: int  # the value it is in the graph
    itemsize: int
    layout: str = "strided"  # as torch names it; tensors of another one stay whole

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True, slots=True)
class Node:
    """One ATen call. ``args`` and ``kwargs`` hold :class:`Ref`, numbers and nested tuples of them;
    numbers whose origin is known are :class:`planc.expr.Size` or :class:`planc.expr.Scalar`.
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
        """The values whose content it looks at: of some, only shape and type matter."""
        given = tuple(refs((self.args, self.kwargs_values)))
        if not self.op.startswith("aten."):
            return given
        name = self.op.split(".")[1]
        if self.op == "aten.to.other" or name.endswith("_as"):
            return given[:1]
        return given[1:] if name.endswith("_like") or name.startswith("new_") else given

    @property
    def numbers(self) -> Iterator[Size | Scalar]:
        """The numbers with a known origin in the arguments, in order."""
        return provenanced((self.args, self.kwargs_values))

    @property
    def literals(self) -> tuple[float, ...]:
        """The floating-point numbers of unknown origin in the arguments, in order."""
        return tuple(_of_types((self.args, self.kwargs_values), float))

    @property
    def options(self) -> tuple[bool | str, ...]:
        """The flags and words in the arguments, in order."""
        return tuple(_of_types((self.args, self.kwargs_values), bool, str))

    @property
    def in_place(self) -> bool:
        """Whether the operator overwrites its first argument."""
        if self.leaf:
            return False
        name = self.op.split(".")[1]
        return name.endswith("_") and not name.endswith("__")

    @property
    def leaf(self) -> bool:
        """Whether it is a call of a module that is not traced into, rather than of an operator."""
        return self.op.startswith("leaf.")

    @property
    def idle(self) -> bool:
        """Whether torch leaves the call out or adds it, and nothing is computed: ``contiguous`` on
        what is contiguous, as a tensor may be once a dimension has shrunk to 1; ``detach`` after a
        view as another type.
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
    """What an operator made of floating-point values and cannot follow them continuously: integers,
    truth values, or a Python number that control flow may depend on.

    ``results`` holds the tensors by their position among the node's results, ``number`` what is no
    tensor, ``inputs`` are the floating-point values that the node looked at.
    """

    node: int
    inputs: tuple[int, ...]
    results: Mapping[int, Any]
    number: Any = None


@dataclass(frozen=True, slots=True)
class Departure:
    """A value that someone can read who is not in the graph: it stays whole.

    ``outside`` says that it has left torch, so that results may depend on it unseen; ``shared``
    that its memory has left with it, and may be written to.
    """

    value: int
    reason: str
    outside: bool = False
    shared: bool = False


CAPTURED = "captured_"
"""How the names of buffers begin in which a rewritten graph holds constants of the original."""

AS_IT_IS = "as it is"
RETURNED = "as returned"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the model's Python code found when it compared two sizes: that ``left`` is equal to,
    less than, or at most ``right``. Another answer would have led to another graph. Or that it made
    a plain number of ``left``, whose use cannot be followed: it must stay as it is. Or that the
    model returned it: a caller can read it.
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
        if self.relation == RETURNED:
            return f"{self.left} returned by the model"
        return f"sizes compared by {self.relation} in {where}"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the model: its path, type names from the class up to ``Module``, and its
    structural attributes (integers, booleans, strings and nested tuples of them). ``settings`` are
    the parameters of the constructors of torch.nn's own classes among the types.
    """

    path: str
    types: tuple[str, ...]
    attributes: Mapping[str, Any]
    settings: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The name of its class, without the file that defines it."""
        return self.types[0].rpartition(".")[2]


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced model.

    ``inputs`` and ``outputs`` are the tensors among the model's arguments and results, in order of
    nesting; ``constants`` the values known while tracing (captured tensors and what is computed
    from them alone), ``numbers`` the elements of those of the captured that are made of sizes;
    ``frontend`` says which front end produced the graph. ``data_dependent`` says that it is one of
    several that the model may run, by the values of its inputs; ``decisions`` are those that led to
    this one, ``comparisons`` the answers that sizes gave. ``departures`` are the values that can be
    read otherwise than as outputs, ``returned`` the captured ones that may be made of these;
    ``unwritable`` says why the rewritten graph cannot give the model's results. ``construction``
    makes such models from configurations, where the class does.
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
    construction: Construction | None = None
    _by_name: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for tensor in self.tensors:
            for name in tensor.names:
                self._by_name[name] = tensor

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of that name (any of its tied names)."""
        return self._by_name[name]

    @cached_property
    def read_outside(self) -> frozenset[int]:
        """The values that someone outside the graph reads: outputs and departures."""
        return frozenset((*(r.id for r in self.outputs), *(d.value for d in self.departures)))

    @cached_property
    def lasting(self) -> tuple[Node, ...]:
        """The operators that an input, a parameter or a floating-point buffer reaches, without idle
        ones. All others compute constants, which a model may keep from one run to the next.
        """
        fed = {ref.id for ref in self.inputs}
        own = (t for t in self.tensors if not t.name.startswith(CAPTURED))
        fed |= {t.value for t in own if t.kind == "parameter" or t.floating}
        shared: set[int] = set()  # storages of constants that something fed was written into
        found = []
        for node in self.nodes:
            given = [ref.id for ref in node.operands]
            if fed.isdisjoint(given) and shared.isdisjoint(self.values[i].storage for i in given):
                continue
            fed.update(ref.id for ref in node.outputs if ref is not None)
            if node.in_place:
                shared.add(self.values[next(refs(node.args)).id].storage)
            if not node.idle:
                found.append(node)
        return tuple(found)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each parameter and buffer by all its names."""
        return {name: tensor.shape for name, tensor in self._by_name.items()}

    def has(self, name: str) -> bool:
        """Whether there is a parameter or buffer of that name."""
        return name in self._by_name


def refs(argument: Any) -> Iterator[Ref]:
    """The references in an argument, in order."""
    if isinstance(argument, Ref):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from refs(item)


def provenanced(argument: Any) -> Iterator[Size | Scalar]:
    """The numbers with a known origin in an argument, in order."""
    if isinstance(argument, Size | Scalar):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from provenanced(item)


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


def _of_types(argument: Any, *types: type) -> Iterator[Any]:
    if type(argument) in types:
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _of_types(item, *types)
