"""The recording of a run: its values, operators, comparisons of sizes, decisions and departures.

:class:`Recorder`, a dispatch mode, reports every operator to it; hooks and leaves report modules.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from planc.errors import TraceError
from planc.ir.expressions import Expr, Size, SizeOf
from planc.ir.expressions import leaves as sizes_in
from planc.ir.graph import AS_IT_IS, RETURNED, Comparison, Decision, Node, Ref, Tensor
from planc.ir.guards import check
from planc.modules.hooks import Masked
from planc.modules.nesting import as_sequence, leaves, map_leaves
from planc.modules.tree import owned_tensors
from planc.rules import leaf
from planc.trace.alignment import computed_with, with_provenance
from planc.trace.decisions import Replay, decides, decision
from planc.trace.departures import LEAVING, Departures
from planc.trace.known_results import known_result
from planc.trace.leaf import call, named_operands
from planc.trace.lines import HIDDEN, OURS, user_line
from planc.trace.numbers import noted
from planc.trace.results import Result
from planc.trace.sizes import SizeTracking, is_seen_through
from planc.trace.values import Kind, RunValues, is_empty, on_meta


class Recording:
    """The values, operators, decisions and departures of one run on tensors of one kind."""

    def __init__(self, kind: Kind, device: torch.device, replay: Replay | None) -> None:
        self.kind = kind
        self.device = device
        self.replay = replay
        self.values = RunValues(kind)
        self.inputs: list[Ref] = []
        self.nodes: list[Node] = []
        self.decisions: list[Decision] = []
        self.comparisons: dict[tuple[Expr, str, Expr], Comparison] = {}
        self.data_dependent = False
        self.masked: dict[int, Masked] = {}  # by id of the tensor at the start of the run
        self.path: list[str] = [""]
        self.source: tuple[str, int] = ("", 0)
        self.departures = Departures(self.values)
        self.sizes = SizeTracking(
            lambda tensor: self.values.ids.get(id(tensor)),
            device if kind == "meta" else None,
            LEAVING,
            self._leaving,
        )

    # -- values ----------------------------------------------------------------------------

    def ref(self, tensor: torch.Tensor) -> Ref:
        if id(tensor) in self.masked and id(tensor) not in self.values.ids:
            self._computed(tensor)
        shared = self.values.sharing(tensor)
        ref = self.values.ref(tensor, self.sizes.numbers)
        self.departures.captured(shared, self.path[-1])
        return ref

    def _leaving(self, tensor: torch.Tensor, func: Any) -> None:
        self.ref(tensor)
        self.departures.leaves(tensor, func, self.path[-1])
        if tensor.numel() == 1:  # a threshold, say
            self.departures.decided(len(self.nodes))

    def _computed(self, tensor: torch.Tensor) -> None:
        """Record the value of a pruning hook, for a run not calling the hook's module."""
        numbers, self.sizes.numbers = self.sizes.numbers, None  # they belong to another call
        with Recorder(self):
            computed = self.masked[id(tensor)].compute()
        self.values.ids[id(tensor)] = self.values.ids[id(computed)]
        self.sizes.numbers = numbers

    def input(self, leaf: Any) -> Any:
        """The placeholder of an input tensor, noted as an input; other leaves unchanged."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        tensor = leaf.detach().clone() if self.kind == "real" else self.values.placeholder(leaf)
        self.inputs.append(Ref(self.values.new(tensor, constant=False)))
        return tensor

    def tensors(self, model: nn.Module, original: nn.Module) -> tuple[Tensor, ...]:
        """The parameters and buffers of the clone as values, tied names together. Stand-ins share
        no memory, so the ``original`` tells what is a tensor of its own.
        """
        result = []
        own = {owned.names for owned in owned_tensors(original)}
        for owned in owned_tensors(model):
            if owned.names not in own and owned.kind == "buffer":
                continue
            names, tensor, kind = owned.names, owned.tensor, owned.kind
            constant = kind == "buffer" and not (is_empty(tensor) or tensor.is_floating_point())
            value = self.values.new(tensor, constant=constant)
            at = self.values.described[value]
            layout = self.values.layout_of(tensor)
            size = tensor.element_size()
            result.append(Tensor(names, at.shape, at.dtype, kind, value, size, layout))
        return tuple(result)

    # -- modules ---------------------------------------------------------------------------

    def enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self.path.append(path)

        return hook

    def leave(self, module: nn.Module, args: Any, result: Any) -> None:
        self.path.pop()

    def leaf(self, path: str, module: nn.Module, sizes: dict[str, Any]) -> Callable[..., Any]:
        """Replacement for the ``forward`` of a leaf module, recorded as one node."""
        forward, found = module.forward, leaf(type(module))
        assert found is not None

        def called(*args: Any, **kwargs: Any) -> Any:
            self.source = user_line()
            operands = named_operands(module)
            tensors = {name: self.ref(tensor) for name, tensor in operands.items()}
            named = {**sizes, **tensors, **{name: self._freeze(a) for name, a in kwargs.items()}}
            if len(named) < len(sizes) + len(tensors) + len(kwargs):
                raise TraceError(
                    f"{type(module).__name__} has a rule, and an argument, an attribute and a "
                    "tensor of one name: they cannot be told apart"
                )
            node_args = tuple(self._freeze(arg) for arg in args)
            result = call(module, forward, self.kind != "real", args, kwargs)
            outputs = tuple(
                Ref(self.values.new(item, constant=False)) for item in as_sequence(result)
            )
            self.nodes.append(
                Node(found.operator, node_args, tuple(named.items()), outputs, path, self.source)
            )
            return result

        return called

    # -- numbers ---------------------------------------------------------------------------

    def compared(self, left: Expr, relation: str, right: Expr) -> None:
        """Note a comparison of two sizes by the model's code or the code of torch's modules, and a
        conversion to a plain number by any code but planc's.

        Comparisons made by torch while carrying out a call are ignored.
        """
        key = (left, relation, right)
        asker = sys._getframe(2).f_code
        if relation == AS_IT_IS:
            own, trivial = asker.co_filename.startswith(OURS), False
        else:
            carried_out = self.sizes.numbers is not None and not is_seen_through(asker)
            hidden = HIDDEN if carried_out else OURS
            own = asker.co_filename.startswith(hidden) and asker is not check.__code__
            trivial = left == right
        if not trivial and key not in self.comparisons and not own:
            self.comparisons[key] = Comparison(*key, self.path[-1], user_line())

    def plain(self, result: Result) -> Iterator[Comparison]:
        """Comparisons for sizes converted to plain numbers unseen: by ``len``, or in the result."""
        for size in dict.fromkeys(self.sizes.plain):
            yield Comparison(size, AS_IT_IS, size, "", ("", 0))
        for part in dict.fromkeys(x for number in result.numbers for x in sizes_in(number.expr)):
            yield Comparison(part, RETURNED, part, "", ("", 0))

    # -- one operator ----------------------------------------------------------------------

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if ASSERTS.match(str(func)) and self.kind != "real":
            return None
        self.source = user_line()
        frozen_args, frozen_kwargs = self._freeze(args), self._freeze(tuple(kwargs.items()))
        numbers = self.sizes.numbers
        if numbers is not None:
            frozen_args, frozen_kwargs = with_provenance(
                str(func), frozen_args, frozen_kwargs, numbers, self.sizes.pieces
            )
        if self.sizes.assigning and str(func) == "aten.expand.default":
            frozen_args = self._expanded(*frozen_args)
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        constant = self.values.all_constant(tensors)
        out = kwargs.get("out")
        if func.__name__.split(".")[0] in _PRODUCTS:
            _check_types(func, tensors)
        result = known_result(func, args) if self.kind == "meta" and not kwargs else None
        if result is None:
            if any(tensor.is_meta for tensor in tensors) and self.kind == "meta":
                args, kwargs = map_leaves(on_meta, (args, kwargs))
            result = func(*args, **kwargs)
        if self.kind == "real" and decides(func, tensors, result):
            if self.replay is not None:
                result = self.replay.decided(func, tensors, result)
            inputs = tuple(self.values.ids[id(t)] for t in tensors if t.is_floating_point())
            self.data_dependent = self.data_dependent or not constant
            self.decisions.append(decision(len(self.nodes), inputs, func, result))
        flat = as_sequence(result)
        floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        if numbers is not None and tensors and floating:
            frozen_args, frozen_kwargs = computed_with(func, frozen_args, frozen_kwargs)
        if any(isinstance(item, torch.Tensor) for item in flat):
            outputs = tuple(
                Ref(self.values.new(item, constant)) if isinstance(item, torch.Tensor) else None
                for item in flat
            )
            if isinstance(out, torch.Tensor) and outputs[0] is not None:
                self.values.ids[id(out)] = outputs[0].id
        elif tensors and func.__name__ not in _SILENT and not ASSERTS.match(str(func)):
            outputs = ()
            self.departures.decided(len(self.nodes))
        else:
            return result
        self.nodes.append(
            Node(str(func), frozen_args, frozen_kwargs, outputs, self.path[-1], self.source)
        )
        return result

    def _expanded(self, ref: Ref, shape: tuple[int, ...]) -> tuple[Ref, tuple[int, ...]]:
        """The arguments of the ``expand`` inserted by an assignment to a part of a tensor.

        The target is the last value of equal shape; its sizes are the ones to expand to.
        """
        for value in range(len(self.values.described) - 1, -1, -1):
            if self.values.described[value].shape == tuple(map(int, shape)):
                return ref, tuple(Size(int(n), SizeOf(value, d)) for d, n in enumerate(shape))
        return ref, shape

    def _freeze(self, argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            return self.ref(argument)
        if isinstance(argument, tuple | list):
            return tuple(self._freeze(item) for item in argument)
        if isinstance(argument, torch.device) and argument.type == "meta":
            return self.device  # the device of the model, not of the stand-ins
        return noted(argument)


def _check_types(func: Any, tensors: list[torch.Tensor]) -> None:
    """Reject products of mixed types: real tensors do, tensors without content do not."""
    types = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors[:3]]
    if len(set(types)) > 1 and not torch._C._is_any_autocast_enabled():
        raise TypeError(f"{func} of {', '.join(types)}, which must be of one type")


_PRODUCTS = frozenset(
    {"addmm", "baddbmm", "bilinear", "bmm", "einsum", "linear", "matmul", "mm", "mv"}
    | {"scaled_dot_product_attention"}
)
_SILENT = frozenset(
    {"prim.device.default", "device.default", "prim.layout.default", "sym_size.int"}
    | {"_has_compatible_shallow_copy_type.default"}
)
ASSERTS = re.compile(r"aten\.(_assert|_functional_assert|sym_constrain_range)")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        return self.recording.call(func, args, kwargs or {})
