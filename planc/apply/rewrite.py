"""Graph rewriting: a traced model as a ``torch.fx.GraphModule`` with the constants of the pruned
model.

For ``target="graph"`` it is the result. For ``target="module"`` it is the reference for verifying
the eager module; numbers computed by the module from sizes are then evaluated again.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone, predicted_shape
from planc.apply.holder import assign, holder
from planc.apply.literals import Literals
from planc.apply.operators import call, keep_scale, pruned_parts
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

_LIFTED = ("aten.lift_fresh.default", "aten.detach_.default")  # called by torch.tensor()


def rewritten(
    plan: Plan,
    analysis: Analysis,
    gone: Gone,
    tensors: Mapping[str, torch.Tensor],
    model: nn.Module,
    bound: Sequence[Binding] = (),
) -> fx.GraphModule:
    """Return the traced graph with rewritten constants, over the given tensors.

    Args:
        plan: with target "module", numbers are computed again with the changed attributes; with
            target "graph", they stay as traced.
        gone: mask over the atoms, True for removed ones (:meth:`Analysis.gone`).
        tensors: the pruned parameters and buffers by their first names.
        model: the original. Its ``forward`` names the inputs; its untraced modules are called by
            the graph as pruned copies.
        bound: input sizes held by the graph as literals without an expression; the graph checks
            them.
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
        op, args, kwargs = node.op, list(node.args), dict(node.kwargs)
        parts = pruned_parts(node, self.graph, self.shapes)
        if parts is not None:
            dim, widths = parts
            self.numbers.hold(node.args[0].id, dim, f"the parts of {node}")
            op, args, kwargs = "aten.split_with_sizes.default", [node.args[0], widths, dim], {}
        else:
            for demand in self.demands.get(i, ()):
                self._rewrite(node, demand, args, kwargs)
        if self.plan.target == "graph":
            keep_scale(op, args, kwargs, self.graph, self.shapes)
        if op in _LIFTED and self._holds_numbers(node):
            return
        name_args = tuple(self._argument(arg) for arg in args)
        name_kwargs = {name: self._argument(arg) for name, arg in kwargs.items()}
        self._results(node, *call(self.fx, op, name_args, name_kwargs))

    def _holds_numbers(self, node: Node) -> bool:
        """Return True if a node only forwards a tensor made of numbers, and map its result to that
        tensor.
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
        """Call the pruned copy of an untraced module."""
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

    def _rewrite(self, node: Node, demand: Demand, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Write the predicted width into the argument named by a demand."""
        fn = find(node.op)
        names = parameters(fn) if fn is not None else ()
        at = names.index(demand.arg) if demand.arg in names else len(args)
        given = kwargs[demand.arg] if demand.arg in kwargs else args[at] if at < len(args) else None
        index = demand.index if isinstance(given, tuple) else None
        item: Any = given if given is None or index is None else given[index]
        if not isinstance(item, int) or item != demand.sign * demand.labelled.shape[demand.dim]:
            return  # omitted, or a bound beyond the end: not a width
        width = predicted_shape(demand.labelled, self.gone)[demand.dim]
        new = self.numbers.width(expr_of(item), demand.labelled, demand.dim, width, demand.sign)
        if given is not None and index is not None:
            new = (*given[:index], new, *given[index + 1 :])
        if demand.arg in kwargs:
            kwargs[demand.arg] = new
        else:
            args[at] = new

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
        if value not in self.values:  # a captured tensor made of numbers
            constant = self.graph.captured[value]
            numbers = [
                self.numbers.held(n) if isinstance(n, Size | Scalar) else n
                for n in self.graph.numbers[value]
            ]
            self.values[value] = self._made(value, constant, numbers)
        return self.values[value]

    def _made(self, value: int, constant: torch.Tensor, numbers: list[Any]) -> fx.Node:
        """Return a tensor of these numbers, in the shape, dtype and device of a captured one."""
        if any(isinstance(number, fx.Node) for number in numbers):
            shape, kind = tuple(constant.shape), constant.dtype
            node = self.fx.call_function(held, (numbers, shape, kind, constant.device))
            node.meta["is_wrapped"] = True
            return node
        made = torch.tensor(numbers, dtype=constant.dtype, device=constant.device)
        self.root[f"{CAPTURED}{value}"] = made.reshape(constant.shape)
        return self.fx.get_attr(f"{CAPTURED}{value}")


def _plain(nested: Any) -> bool:
    """Return True if fx can print the containers and their content as code."""
    if type(nested) in (tuple, list):
        return all(map(_plain, nested))
    if type(nested) is dict:
        return all(type(key) is str and _plain(item) for key, item in nested.items())
    return nested is None or _filled(nested) or type(nested) in (bool, int, float, str)


def _filled(leaf: Any) -> bool:
    """Return True if a part of a result is computed: a tensor, or a number made of sizes."""
    return isinstance(leaf, Ref | Size | Scalar)


def _item(nested: Any, key: Any) -> Any:
    """Return an item of a nested input or of an operator's results."""
    return nested[key]


class _Nested:
    """Puts tensors into the containers returned by the model."""

    __name__ = __qualname__ = "nested"  # fx prints functions by name

    def __init__(self, template: Any) -> None:
        self.template = template

    def __call__(self, *tensors: torch.Tensor) -> Any:
        flat = iter(tensors)
        result = map_leaves(lambda leaf: next(flat) if _filled(leaf) else leaf, self.template)
        return result.make(result.parts) if isinstance(result, Rebuilt) else result
