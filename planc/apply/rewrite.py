"""The rewritten graph: a traced model as a ``torch.fx.GraphModule`` whose constants are what the
labels say after pruning.

For ``target="graph"`` it is the result. For ``target="module"`` it is the reference that the eager
module is compared with: there, numbers that the module computes from sizes are computed again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone, predicted_shape
from planc.apply.holder import assign, holder
from planc.apply.literals import Literals
from planc.apply.sizes import Computed, Input, comparisons_due, held
from planc.apply.tensors import copy_tensor
from planc.apply.trials import Binding
from planc.errors import AnalysisError
from planc.ir.expressions import Scalar, Size, expr_of
from planc.ir.graph import CAPTURED, Node, Ref, refs
from planc.modules.attributes import inside, set_attributes
from planc.modules.copies import clone
from planc.modules.nesting import leaves, map_leaves
from planc.modules.tree import owned_tensors
from planc.plan.plan import Plan
from planc.rules import find, parameters
from planc.rules.labels.facts import Demand
from planc.trace.leaf import named_operands
from planc.trace.rebuilding import Rebuilt

_EQUAL_PARTS = (
    "aten.chunk.",
    "aten.unsafe_chunk.",
    "aten.split.Tensor",
    "aten.tensor_split.sections",
    "aten.hsplit.int",
    "aten.vsplit.int",
    "aten.dsplit.int",
)
_LIFTED = ("aten.lift_fresh.default", "aten.detach_.default")  # what torch.tensor() calls
_ATTENTION = "aten.scaled_dot_product_attention."
_ANY_LAYOUT = {  # contiguous() leaves no operator where it has nothing to do
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
}
_PAIRS = "aten.view_as_complex."  # reads neighbours in memory


def rewritten(
    plan: Plan,
    analysis: Analysis,
    gone: Gone,
    tensors: Mapping[str, torch.Tensor],
    model: nn.Module,
    bound: Sequence[Binding] = (),
) -> fx.GraphModule:
    """The traced graph with rewritten constants, over the given tensors.

    Args:
        plan: for the module, numbers are computed again with the attributes that it changes; for
            the graph, each stays as it was traced.
        gone: which atoms have vanished (:meth:`Analysis.gone`).
        tensors: the pruned parameters and buffers by their first names.
        model: the original, whose ``forward`` names the inputs. Its modules that are not traced
            into are called by the graph, too, as pruned copies.
        bound: sizes of inputs that the graph holds as literals, unseen; it checks them.
    """
    return _Rewriter(plan, analysis, gone, tensors, model).module(bound)


class _Rewriter:
    def __init__(
        self,
        plan: Plan,
        analysis: Analysis,
        gone: Gone,
        tensors: Mapping[str, torch.Tensor],
        model: nn.Module,
    ) -> None:
        self.plan, self.model = plan, model
        self.analysis, self.graph = analysis, analysis.graph
        self.shapes = analysis.shapes(gone)
        self.gone = gone
        self.tensors = tensors
        self.demands: dict[int, list[Demand]] = {}
        for demand in analysis.walked.facts.demands:
            self.demands.setdefault(demand.node, []).append(demand)
        self.fx = fx.Graph()
        self.root: dict[str, Any] = {}
        self.values: dict[int, fx.Node] = {}
        self.leaves: dict[str, nn.Module] = {}
        self.inputs: list[Input] = []
        self.numbers: Literals | Computed = Literals(plan, self.shapes)

    def module(self, bound: Sequence[Binding]) -> fx.GraphModule:
        self._inputs(self.model.forward)
        used = {
            ref.id for node in self.graph.nodes for ref in refs((node.args, node.kwargs_values))
        }
        used |= {ref.id for ref in self.graph.outputs}
        for tensor in self.graph.tensors:
            self.root[tensor.name] = self.tensors[tensor.name]
            if tensor.value in used:
                self.values[tensor.value] = self.fx.get_attr(tensor.name)
        for value, constant in self.graph.captured.items():
            if value in used and value not in self.graph.numbers:
                self.root[f"{CAPTURED}{value}"] = constant.clone()
                self.values[value] = self.fx.get_attr(f"{CAPTURED}{value}")
        if self.plan.target == "graph":
            self.numbers = Computed(self.analysis, self.shapes, self.fx, self.values, self.inputs)
            self.numbers.bind(bound)
        due = comparisons_due(self.graph) if self.plan.target == "graph" else {}
        for i, node in enumerate(self.graph.nodes):
            for comparison in due.get(i - 1, ()):
                self.numbers.compare(comparison)
            self._node(i, node)
        self._output()
        module = fx.GraphModule(holder(self.root, self.leaves), self.fx)
        for tensor in self.graph.tensors:  # unused and tied ones too, under all their names
            for name in tensor.names:
                assign(module, name, self.root[tensor.name])
        for value in self.graph.captured:  # never part of the model's state
            module._non_persistent_buffers_set.add(f"{CAPTURED}{value}")
        module.train(self.graph.training)
        return module

    # -- inputs and outputs --------------------------------------------------------------------

    def _inputs(self, forward: Any) -> None:
        names = list(inspect.signature(forward).parameters)
        _, args, kwargs = self.graph.input_spec
        refs = iter(self.graph.inputs)
        for i, spec in enumerate(args[1:]):
            name = names[i] if i < len(names) else f"argument_{i}"
            self._input(name, self.fx.placeholder(name), spec, refs)
        for name, spec in kwargs[1:]:
            self._input(name, self.fx.placeholder(name, default_value=None), spec, refs)

    def _input(self, name: str, at: fx.Node, spec: Any, refs: Any) -> None:
        if spec[0] == "tensor":
            self.values[next(refs).id] = at
            self.inputs.append((name, at, tuple(spec[1])))
        elif spec[0] in ("tuple", "list", "dict"):
            items = spec[1:] if spec[0] == "dict" else enumerate(spec[1:])
            for key, item in items:
                inner = self.fx.call_function(_item, (at, key))
                self._input(f"{name}[{key!r}]", inner, item, refs)
        elif spec[0] == "opaque":
            raise AnalysisError(
                f"an input of type {spec[1]} cannot be an input of a graph; pass its tensors apart"
            )

    def _output(self) -> None:
        if self.graph.unwritable:
            raise AnalysisError(f"a graph cannot make its results: {self.graph.unwritable}")
        template = self.graph.output_spec
        if _plain(template):
            plain = map_leaves(self._leaf, template)
            self.fx.output(plain)
            return
        flat = tuple(self._argument(leaf) for leaf in leaves(template) if _filled(leaf))
        self.fx.output(self.fx.call_function(_Nested(template), flat))

    def _leaf(self, leaf: Any) -> Any:
        return self._argument(leaf) if _filled(leaf) else leaf

    # -- one operator ----------------------------------------------------------------------------

    def _node(self, i: int, node: Node) -> None:
        if node.leaf:
            self._call_leaf(node)
            return
        args, kwargs = list(node.args), dict(node.kwargs)
        if node.op.startswith(_EQUAL_PARTS) and self._labelled_parts(node):
            op = "aten.split_with_sizes.default"
            dim = self._dim(node)
            self.numbers.hold(node.args[0].id, dim, f"the parts of {node}")
            widths = tuple(self.shapes[ref.id][dim] for ref in node.outputs if ref is not None)
            args, kwargs = [node.args[0], widths, dim], {}
        else:
            op = node.op
            for demand in self.demands.get(i, ()):
                self._rewrite(node, demand, args, kwargs)
        if op.startswith(_ATTENTION) and self.plan.target == "graph":
            self._keep_scale(args, kwargs)
        if op in _LIFTED and self._holds_numbers(node):
            return
        name_args = tuple(self._argument(arg) for arg in args)
        name_kwargs = {name: self._argument(arg) for name, arg in kwargs.items()}
        if op.startswith(_PAIRS):
            whole = self.fx.call_function(torch.ops.aten.contiguous.default, name_args[:1])
            name_args = (whole, *name_args[1:])
        op = _ANY_LAYOUT.get(op, op)
        called = self.fx.call_function(_overload(op), name_args, name_kwargs)
        self._results(node, called, _returns_list(op))

    def _holds_numbers(self, node: Node) -> bool:
        """Whether a node only passes on a tensor that the graph makes of numbers: what makes it
        does that as well.
        """
        made = self._value(node.args[0].id)
        if made.target is not held or node.outputs[0] is None:
            return False
        self.values[node.outputs[0].id] = made
        return True

    def _results(self, node: Node, called: fx.Node, several: bool) -> None:
        if len(node.outputs) == 1 and not several:
            ref = node.outputs[0]
            if ref is not None:
                self.values[ref.id] = called
            return
        for at, ref in enumerate(node.outputs):
            if ref is not None:
                self.values[ref.id] = self.fx.call_function(_item, (called, at))

    def _call_leaf(self, node: Node) -> None:
        """Calls the pruned copy of a module that was not traced into."""
        path, module = node.module, self.model.get_submodule(node.module)
        if path not in self.leaves:
            names = {id(owned.tensor): owned.names[0] for owned in owned_tensors(self.model)}

            def pruned(tensor: torch.Tensor) -> torch.Tensor:
                name = names.get(id(tensor))
                return copy_tensor(tensor) if name is None else self.tensors[name]

            self.leaves[path] = clone(module, pruned)
            set_attributes(self.leaves[path], inside(path, self.plan.attributes))
        own = {*named_operands(module), *self.graph.modules[path].attributes}
        args = tuple(self._argument(arg) for arg in node.args)
        kwargs = {name: self._argument(arg) for name, arg in node.kwargs if name not in own}
        self._results(node, self.fx.call_module(path, args, kwargs), len(node.outputs) > 1)

    def _labelled_parts(self, node: Node) -> bool:
        return any(
            self.shapes[ref.id] != self.graph.values[ref.id].shape
            for ref in node.outputs
            if ref is not None
        )

    def _dim(self, node: Node) -> int:
        """The dimension that a node cuts into parts."""
        whole = self.graph.values[node.args[0].id].shape
        part = next(self.graph.values[ref.id].shape for ref in node.outputs if ref is not None)
        return next((d for d, (n, m) in enumerate(zip(whole, part, strict=True)) if n != m), 0)

    def _rewrite(self, node: Node, demand: Demand, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Puts the predicted width where a demand says it belongs."""
        fn = find(node.op)
        names = parameters(fn) if fn is not None else ()
        at = names.index(demand.arg) if demand.arg in names else len(args)
        given = kwargs[demand.arg] if demand.arg in kwargs else args[at] if at < len(args) else None
        index = demand.index if isinstance(given, tuple) else None
        item: Any = given if given is None or index is None else given[index]
        if not isinstance(item, int) or item != demand.sign * demand.labelled.shape[demand.dim]:
            return  # not given, or a bound beyond the end: it is no width
        width = predicted_shape(demand.labelled, self.gone)[demand.dim]
        new = self.numbers.width(expr_of(item), demand.labelled, demand.dim, width, demand.sign)
        if given is not None and index is not None:
            new = (*given[:index], new, *given[index + 1 :])
        if demand.arg in kwargs:
            kwargs[demand.arg] = new
        else:
            args[at] = new

    def _keep_scale(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """The default scale of attention, written down as it was before pruning."""
        given = args[6] if len(args) > 6 else kwargs.get("scale")
        width = self.graph.values[args[0].id].shape[-1]
        if given is None and self.shapes[args[0].id][-1] != width:
            del args[6:7]
            kwargs["scale"] = 1 / math.sqrt(width)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return self._value(argument.id)
        if isinstance(argument, tuple):
            items = [self._argument(item) for item in argument]
            return items if any(isinstance(item, fx.Node) for item in items) else tuple(items)
        if isinstance(argument, Size | Scalar):
            return self.numbers.argument(argument)
        if isinstance(argument, int) and not isinstance(argument, bool):
            return int(argument)
        return argument

    def _value(self, value: int) -> fx.Node:
        if value not in self.values:  # a captured tensor that is made of numbers
            constant = self.graph.captured[value]
            numbers = [
                self.numbers.held(n) if isinstance(n, Size | Scalar) else n
                for n in self.graph.numbers[value]
            ]
            self.values[value] = self._made(value, constant, numbers)
        return self.values[value]

    def _made(self, value: int, constant: torch.Tensor, numbers: list[Any]) -> fx.Node:
        """A tensor like a captured one, of these numbers."""
        if any(isinstance(number, fx.Node) for number in numbers):
            shape, kind = tuple(constant.shape), constant.dtype
            node = self.fx.call_function(held, (numbers, shape, kind, constant.device))
            node.meta["is_wrapped"] = True
            return node
        made = torch.tensor(numbers, dtype=constant.dtype, device=constant.device)
        self.root[f"{CAPTURED}{value}"] = made.reshape(constant.shape)
        return self.fx.get_attr(f"{CAPTURED}{value}")


def _overload(op: str) -> Any:
    namespace, name, overload = op.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def _returns_list(op: str) -> bool:
    returns = _overload(op)._schema.returns
    return len(returns) != 1 or "[]" in str(returns[0].type) or "List" in str(returns[0].type)


def _plain(nested: Any) -> bool:
    """Whether fx can write down the containers (and what else is in them) as code."""
    if type(nested) in (tuple, list):
        return all(map(_plain, nested))
    if type(nested) is dict:
        return all(type(key) is str and _plain(item) for key, item in nested.items())
    return nested is None or _filled(nested) or type(nested) in (bool, int, float, str)


def _filled(leaf: Any) -> bool:
    """Whether a part of a result is computed: a tensor, or a number that is made of sizes."""
    return isinstance(leaf, Ref | Size | Scalar)


def _item(nested: Any, key: Any) -> Any:
    """An item of a nested input or of an operator's results."""
    return nested[key]


class _Nested:
    """Puts tensors in the containers that the model returns them in."""

    __name__ = __qualname__ = "nested"  # fx calls what it calls by name

    def __init__(self, template: Any) -> None:
        self.template = template

    def __call__(self, *tensors: torch.Tensor) -> Any:
        flat = iter(tensors)
        result = map_leaves(lambda leaf: next(flat) if _filled(leaf) else leaf, self.template)
        return result.make(result.parts) if isinstance(result, Rebuilt) else result
