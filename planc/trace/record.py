"""The recorder: one run of the model, seen operator by operator, becomes the graph.

The model is cloned without its weights and run on meta tensors in inference mode, where composite
operators (linear, matmul, layer_norm, ...) reach a dispatch mode whole. Integer buffers and what is
computed from them alone stay real. The same recorder takes runs on fake and on real tensors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

from planc.errors import AnalysisError, TraceError
from planc.ir.expressions import Expr, Size, SizeOf
from planc.ir.expressions import leaves as sizes_in
from planc.ir.graph import (
    AS_IT_IS,
    RETURNED,
    Comparison,
    Decision,
    Graph,
    Module,
    Node,
    Ref,
    Tensor,
    attributes_read,
)
from planc.ir.guards import check
from planc.modules.construction import construction_of
from planc.modules.copies import clone
from planc.modules.forgetting import Forgetting
from planc.modules.held import held_objects, object_attributes
from planc.modules.hooks import Masked, drop_refreshes, masked_tensors
from planc.modules.inputs import specify
from planc.modules.nesting import leaves, map_leaves
from planc.modules.reach import reach_of
from planc.modules.search import Unseen
from planc.modules.tree import described, owned_tensors
from planc.rules import leaf
from planc.trace.alignment import computed_with, with_provenance
from planc.trace.caches import caches_apart
from planc.trace.chance import Chance
from planc.trace.decisions import Replay, decides, decision
from planc.trace.departures import LEAVING, Departures, bound
from planc.trace.known_results import known_result
from planc.trace.leaf import NeedsValues, call, leaves_of, named_operands, named_sizes
from planc.trace.lines import HIDDEN, OURS, user_line, user_line_of
from planc.trace.rebuilding import specification
from planc.trace.results import Result, own_objects, result_of
from planc.trace.sizes import (
    SizeTracking,
    heard_comparisons,
    is_seen_through,
    noted,
    track_attributes,
    tracked_math,
    tracked_numbers,
)
from planc.trace.unfused import unfused
from planc.trace.values import CPU, Kind, RunValues, is_empty, on_meta

NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NeedsValues,
)


def front_end(kind: Kind) -> str:
    """The name of a front end, as graphs have it."""
    return f"record ({kind} tensors)"


class Run:
    """One recorded run, on tensors of one kind."""

    def __init__(
        self,
        model: nn.Module,
        kind: Kind,
        forgetting: Forgetting,
        chance: Chance,
        replay: Replay | None,
    ) -> None:
        self.model = model
        self.forgetting = forgetting
        self.kind = kind
        self.chance = chance
        self.replay = replay
        self.decisions: list[Decision] = []
        self.comparisons: dict[tuple[Expr, str, Expr], Comparison] = {}
        self.data_dependent = False
        device = next((p.device for p in model.parameters()), CPU)
        self.device = CPU if device.type == "meta" else device
        self.values = RunValues(kind)
        self.nodes: list[Node] = []
        self.masked: dict[int, Masked] = {}  # by the id of what they were when the run began
        self.path: list[str] = [""]
        self.source: tuple[str, int] = ("", 0)
        self.again = False
        device_seen = self.device if kind == "meta" else None
        self.departures = Departures(self.values)
        self.sizes = SizeTracking(
            lambda tensor: self.values.ids.get(id(tensor)), device_seen, LEAVING, self._leaving
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
        """What a pruning hook left, read by a run that did not call the hook's module: computed."""
        numbers, self.sizes.numbers = self.sizes.numbers, None  # those of another call
        with _Recorder(self):
            computed = self.masked[id(tensor)].compute()
        self.values.ids[id(tensor)] = self.values.ids[id(computed)]
        self.sizes.numbers = numbers

    # -- the run ---------------------------------------------------------------------------

    def graph(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
        """The graph of a run on these arguments."""
        with tracked_numbers():
            return self._graph(self._copy(), args, kwargs)

    def _graph(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
        drop_refreshes(model)  # what they compute is known by ``masked`` where a run reads it
        self.reach = reach_of(model)
        self.forgetting.begin(model, self.reach)
        tensors = self._tensors(model)
        modules = described(model)
        fields = object_attributes(model)
        originals = {id(held) for _, _, held in held_objects(self.model)}
        copied = [held for held in held_objects(model) if id(held[2]) not in originals]
        for path, name, held in copied:
            track_attributes(path, held, name)
        lists = {id(v) for m in self.model.modules() for v in vars(m).values() if type(v) is list}
        for path, module in model.named_modules():
            track_attributes(path, module, shared=lists)
            module.register_forward_pre_hook(self._enter(path), prepend=True)
            module.register_forward_hook(self._leave)
        for path, module in leaves_of(model):
            sizes = named_sizes(path, modules[path].attributes)
            vars(module)["forward"] = self._leaf(path, module, sizes)
        for old, new in zip(masked_tensors(self.model), masked_tensors(model), strict=False):
            if old.up_to_date and new.current is not None:
                self.masked[id(new.current)] = new
                self.values.keep(new.current)
        inputs: list[Ref] = []

        def stand_in(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            tensor = leaf.detach().clone() if self.kind == "real" else self.values.placeholder(leaf)
            inputs.append(Ref(self.values.new(tensor, constant=False)))
            return tensor

        run_args = tuple(map_leaves(stand_in, arg) for arg in args)
        run_kwargs = {name: map_leaves(stand_in, arg) for name, arg in kwargs.items()}
        result = self._run(model, run_args, run_kwargs, inputs)
        if self.kind == "meta" and self.sizes.autocast:
            raise TraceError("autocast converts tensors of a device, not meta tensors")
        outputs = tuple(self.ref(tensor) for tensor in result.in_order(self.values.ids))
        departures = self.departures.finish(self.nodes, tensors)
        self.data_dependent = self.data_dependent or self.departures.outside
        if not outputs and not self.data_dependent:
            raise TraceError(
                f"{type(self.model).__name__} could not be traced: it returns no tensor but a "
                f"{type(result.returned).__name__}; return tensors, in tuples, lists, dicts or "
                "dataclasses if there are several"
            )
        spec, unwritable = None, ""
        try:
            spec = specification(result, self.ref)
        except AnalysisError as error:
            unwritable = str(error)
        numbers = self.values.numbers
        read = attributes_read(self.nodes, numbers.values(), self.comparisons.values())
        return Graph(
            values=tuple(self.values.described),
            nodes=tuple(self.nodes),
            tensors=tensors,
            inputs=tuple(inputs),
            outputs=outputs,
            captured=self.values.captured,
            numbers=numbers,
            constants=self.values.constants,
            modules=_with_fields(modules, fields, read),
            frontend=front_end(self.kind),
            input_spec=specify(args, kwargs),
            output_spec=spec,
            training=self.model.training,
            data_dependent=self.data_dependent,
            decisions=tuple(self.decisions),
            comparisons=(*self.comparisons.values(), *self._plain(result)),
            departures=departures,
            returned=frozenset(self.values.returned),
            unwritable=unwritable,
            construction=construction_of(self.model),
        )

    def _plain(self, result: Result) -> Iterator[Comparison]:
        """The sizes that are made plain numbers unseen, by ``len`` or by whoever has the result."""
        for size in dict.fromkeys(self.sizes.plain):
            yield Comparison(size, AS_IT_IS, size, "", ("", 0))
        for part in dict.fromkeys(x for number in result.numbers for x in sizes_in(number.expr)):
            yield Comparison(part, RETURNED, part, "", ("", 0))

    def _copy(self) -> nn.Module:
        try:
            return clone(self.model, self.values.stand_in)
        except Exception as error:
            raise TraceError(
                f"{type(self.model).__name__} could not be traced: it cannot be copied: "
                f"{type(error).__name__}: {error}; give the class of the part in question a "
                "__deepcopy__"
            ) from error

    def _run(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: Sequence[Ref],
    ) -> Result:
        own = own_objects(model)
        try:
            with (
                unfused(),
                self.chance.seeded(),
                torch.inference_mode(),
                caches_apart(self.reach, self.forgetting),
            ):
                with (
                    tracked_math(),
                    heard_comparisons(self.compared),
                    _Recorder(self),
                    self.sizes,
                ):
                    result = result_of(model, model(*args, **kwargs), own)
                self.again = not self.forgetting.is_stored_again()
                arguments = bound(model, args, kwargs)
                self.departures.kept(model, arguments, self.nodes, inputs, Run)
            if self.departures.missing:  # and the model has caught the error
                raise NeedsValues
            return result
        except NEEDS_VALUES:
            raise
        except Unseen as error:
            name = type(self.model).__name__
            raise TraceError(f"{name} could not be traced: {error}") from None
        except Exception as error:
            raise TraceError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        where = self.path[-1] or "the model"
        kind = type(self.model.get_submodule(self.path[-1])).__name__
        line = user_line_of(error) or self.source
        at = f", {line[0]}:{line[1]}" if line[0] else ""
        text = str(error).strip() or "no message"
        return (
            f"{type(self.model).__name__} could not be traced: in {where} ({kind}{at}): "
            f"{type(error).__name__}: {text.splitlines()[0]}; check that the example inputs have "
            "the shapes and types that forward() expects"
        )

    def _tensors(self, model: nn.Module) -> tuple[Tensor, ...]:
        """The parameters and buffers of the clone, tied names together, each a value."""
        result = []
        for owned in owned_tensors(model):
            names, tensor, kind = owned.names, owned.tensor, owned.kind
            constant = kind == "buffer" and not (is_empty(tensor) or tensor.is_floating_point())
            value = self.values.new(tensor, constant=constant)
            at = self.values.described[value]
            layout = self.values.layout_of(tensor)
            size = tensor.element_size()
            result.append(Tensor(names, at.shape, at.dtype, kind, value, size, layout))
        return tuple(result)

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            self.path.append(path)

        return hook

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        self.path.pop()

    def _leaf(self, path: str, module: nn.Module, sizes: dict[str, Any]) -> Callable[..., Any]:
        """What takes the place of the ``forward`` of a module that is not looked into."""
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
            flat = result if isinstance(result, tuple | list) else (result,)
            outputs = tuple(Ref(self.values.new(item, constant=False)) for item in flat)
            self.nodes.append(
                Node(found.operator, node_args, tuple(named.items()), outputs, path, self.source)
            )
            return result

        return called

    def compared(self, left: Expr, relation: str, right: Expr) -> None:
        """Notes what Python code found about two sizes, the model's own or that of torch's modules,
        and what any code but ours made a plain number of. While torch carries out a call, it asks
        after sizes of its own.
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
        flat = result if isinstance(result, tuple | list) else (result,)
        floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        if numbers is not None and tensors and floating:
            frozen_args, frozen_kwargs = computed_with(func, frozen_args, frozen_kwargs)
        if any(isinstance(item, torch.Tensor) for item in flat):
            outputs = tuple(
                Ref(self.values.new(item, constant)) if isinstance(item, torch.Tensor) else None
                for item in flat
            )
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
        """The arguments of the operator by which what is assigned gets the shape of what it is
        assigned to, the last value of that shape.
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
            return self.device  # where the model's tensors are, not their stand-ins
        return noted(argument)


def _check_types(func: Any, tensors: list[torch.Tensor]) -> None:
    """Products of unlike types, which tensors without content would allow, fail as real ones do."""
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


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    def __init__(self, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        return self.run.call(func, args, kwargs or {})


def _with_fields(
    modules: dict[str, Module], fields: dict[str, dict[str, Any]], read: set[tuple[str, str]]
) -> dict[str, Module]:
    """The modules with those attributes of the objects they hold that the run read."""
    for path, attributes in fields.items():
        looked_at = {name: value for name, value in attributes.items() if (path, name) in read}
        modules[path] = replace(modules[path], attributes={**modules[path].attributes, **looked_at})
    return modules
