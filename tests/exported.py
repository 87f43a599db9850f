"""The graph of ``torch.export`` converted to the IR of a recorded run: an oracle for the recorder.

It is independent of the recorder: the model does not run under any mode of planc, operators come
from the exported graph, shapes from its fake tensors. Regions wrapped in higher-order operators
(``no_grad``, autocast, checkpoints) are inlined; asserts and guards are left out. The numbers of an
exported graph are literals, without provenance.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from planc.errors import TraceError
from planc.ir.graph import Graph, Node, Ref, Tensor, Value
from planc.modules.inputs import as_call, specify
from planc.modules.nesting import leaves
from planc.modules.tree import described, described_value, owned_tensors
from planc.trace.leaf import leaves_of
from planc.trace.recording import ASSERTS

_CONSTANT_LIMIT = 1 << 20  # elements; larger constants are not kept as data
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_RANDOM = re.compile(r"aten\.(rand|normal|bernoulli|multinomial|poisson|dropout)")


def export(model: nn.Module, args: Any = None, kwargs: Mapping[str, Any] | None = None) -> Graph:
    """The graph of ``torch.export.export(model, args, kwargs, strict=False)``.

    Raises:
        TraceError: torch cannot export the model (its control flow depends on values, ...).
    """
    args, kwargs = as_call(args, kwargs)
    for path, module in leaves_of(model):
        raise TraceError(
            f"{path} is a {type(module).__name__}, whose rule says that it is not traced into; "
            "export looks into every module"
        )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, args, dict(kwargs), strict=False)
    except Exception as error:
        text = str(error).strip() or "no message"
        raise TraceError(
            f"{type(model).__name__} could not be exported: {type(error).__name__}: "
            f"{text.splitlines()[0]}"
        ) from error
    return _Conversion(model, program).graph(args, kwargs)


class _Conversion:
    """One exported program, read node by node."""

    def __init__(self, model: nn.Module, program: torch.export.ExportedProgram) -> None:
        self.model = model
        self.program = program
        self.modules = dict(described(model))
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.captured: dict[int, torch.Tensor] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.known: dict[int, torch.Tensor] = {}  # the content of values independent of inputs
        self.tensors: dict[str, int] = {}  # values of parameters and buffers, by all names

    def graph(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
        tensors = self._tensors()
        env = self._placeholders()
        self._run(self.program.graph, env)
        inputs = self._inputs(args, kwargs, env)
        spec = self._outputs(env)
        outputs = tuple(leaf for leaf in leaves(spec) if isinstance(leaf, Ref))
        if not outputs:
            raise TraceError(f"{type(self.model).__name__} returns no tensor")
        return Graph(
            values=tuple(self.values),
            nodes=tuple(self.nodes),
            tensors=tensors,
            inputs=inputs,
            outputs=outputs,
            captured=self.captured,
            numbers={},
            constants=self.constants,
            modules=self.modules,
            frontend="export",
            input_spec=specify(args, kwargs),
            output_spec=spec,
            training=self.model.training,
        )

    # -- values --------------------------------------------------------------------------------

    def _value(self, tensor: torch.Tensor, known: torch.Tensor | None = None) -> Ref:
        value = len(self.values)
        self.values.append(described_value(tensor, value))
        if known is not None:
            self.known[value] = known
            if not (known.is_floating_point() or known.is_complex()):
                self.constants[value] = known.detach().cpu().numpy().copy()
        return Ref(value)

    def _tensors(self) -> tuple[Tensor, ...]:
        """The parameters and buffers of the model as values, tied names together."""
        placeholders = {node.name: node for node in self.program.graph.nodes}
        faked = {
            spec.target: placeholders[spec.arg.name].meta["val"]
            for spec in self.program.graph_signature.input_specs
            if spec.target is not None and spec.arg.name in placeholders
        }
        result = []
        for owned in owned_tensors(self.model):
            tensor = owned.tensor
            fake = next((faked[name] for name in owned.names if name in faked), tensor)
            fixed = owned.kind == "buffer" and not tensor.is_floating_point() and not tensor.is_meta
            known = tensor.detach().clone() if fixed and _small(tensor) else None
            ref = self._value(fake, known)
            self.tensors |= dict.fromkeys(owned.names, ref.id)
            shape, dtype = self.values[ref.id].shape, self.values[ref.id].dtype
            size, layout = tensor.element_size(), str(tensor.layout).removeprefix("torch.")
            result.append(Tensor(owned.names, shape, dtype, owned.kind, ref.id, size, layout))
        return tuple(result)

    def _placeholders(self) -> dict[str, Any]:
        """The values of the graph's placeholders, by name."""
        env: dict[str, Any] = {}
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            spec, fake = specs[node.name], node.meta.get("val")
            if spec.target in self.tensors:
                env[node.name] = Ref(self.tensors[spec.target])
            elif spec.kind is InputKind.USER_INPUT:
                env[node.name] = self._value(fake) if isinstance(fake, torch.Tensor) else fake
            elif spec.target in self.program.constants:
                content = self.program.constants[spec.target]
                ref = self._value(fake, content.detach().clone() if _small(content) else None)
                self.captured[ref.id] = content.detach()
                env[node.name] = ref
            else:
                raise TraceError(f"{type(self.model).__name__}: exported with an input {spec}")
        return env

    def _inputs(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], env: Mapping[str, Any]
    ) -> tuple[Ref, ...]:
        """The values of the tensors among the arguments, in order of nesting."""
        in_spec = self.program.call_spec.in_spec
        assert in_spec is not None
        ordered = {name: kwargs[name] for name in in_spec.child(1).context}
        specs = self.program.graph_signature.input_specs
        flat = [env[spec.arg.name] for spec in specs if spec.kind is InputKind.USER_INPUT]
        found: dict[int, list[Ref]] = {}
        for leaf, at in zip(pytree.tree_leaves((args, ordered)), flat, strict=True):
            if isinstance(leaf, torch.Tensor):
                found.setdefault(id(leaf), []).append(at)
        given = [leaf for leaf in leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]
        return tuple(found[id(leaf)].pop(0) for leaf in given)

    def _outputs(self, env: Mapping[str, Any]) -> Any:
        """The result of the model, with references for tensors; writes to buffers become nodes."""
        signature, results = self.program.graph_signature, []
        written = next(n for n in self.program.graph.nodes if n.op == "output")
        for spec, item in zip(signature.output_specs, written.args[0], strict=True):
            found = env[item.name] if isinstance(item, fx.Node) else item
            if spec.kind is OutputKind.USER_OUTPUT:
                results.append(found)
            elif spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
                assert spec.target is not None
                self._copied(Ref(self.tensors[spec.target]), found)
            else:
                raise TraceError(f"{type(self.model).__name__}: exported with an output {spec}")
        out_spec = self.program.call_spec.out_spec
        assert out_spec is not None
        return pytree.tree_unflatten(results, out_spec)

    def _copied(self, target: Ref, source: Ref) -> None:
        at = self.values[target.id]
        self.values.append(at)
        result = (Ref(len(self.values) - 1),)
        self.nodes.append(Node("aten.copy_.default", (target, source), (), result, "", ("", 0)))

    # -- operators -----------------------------------------------------------------------------

    def _run(self, graph: fx.Graph, env: dict[str, Any]) -> Any:
        """Read the nodes of a graph, or of a wrapped part of it, into ``env``."""
        for node in graph.nodes:
            if node.op == "output":
                return self._read(node.args[0], env)
            if node.op == "get_attr":
                env[node.name] = operator.attrgetter(str(node.target))(graph.owning_module)
            elif node.op == "call_function":
                env[node.name] = self._call(node, env)
            elif node.op != "placeholder":
                raise TraceError(f"{type(self.model).__name__}: exported with a {node.op} {node}")
        return None

    def _call(self, node: fx.Node, env: dict[str, Any]) -> Any:
        args = tuple(self._read(arg, env) for arg in node.args)
        if node.target is operator.getitem:
            return args[0][args[1]]
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self._inlined(node, args)
        op = str(node.target)
        if ASSERTS.match(op):
            return None
        kwargs = tuple((name, self._read(arg, env)) for name, arg in node.kwargs.items())
        result = node.meta.get("val")
        known = self._computed(node.target, args, dict(kwargs), result)
        flat = result if isinstance(result, tuple | list) else (result,)
        contents = known if isinstance(known, tuple | list) else (known,) * len(flat)
        outputs = tuple(
            self._value(item, content) if isinstance(item, torch.Tensor) else None
            for item, content in zip(flat, contents, strict=True)
        )
        if not any(outputs):
            outputs = ()
        self.nodes.append(Node(op, args, kwargs, outputs, *self._place(node)))
        return list(outputs) if isinstance(result, tuple | list) else (*outputs, None)[0]

    def _read(self, argument: Any, env: Mapping[str, Any]) -> Any:
        if isinstance(argument, fx.Node):
            return env[argument.name]
        if isinstance(argument, tuple | list):
            return tuple(self._read(item, env) for item in argument)
        return argument

    def _inlined(self, node: fx.Node, args: tuple[Any, ...]) -> Any:
        """The result of a wrapped region: an operator over one graph and its arguments."""
        inner = [i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule)]
        if len(inner) != 1:
            raise TraceError(
                f"{type(self.model).__name__}: {node.target} in {self._place(node)[0] or 'it'} "
                "chooses between graphs by the values of tensors"
            )
        body = args[inner[0]].graph
        names = [n.name for n in body.nodes if n.op == "placeholder"]
        env = dict(zip(names, args[inner[0] + 1 :], strict=True))
        return self._run(body, env)

    def _computed(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        """The content of a result independent of inputs, parameters and floating-point buffers."""
        results = result if isinstance(result, tuple | list) else (result,)
        wanted = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Ref)]
        if (
            any(ref.id not in self.known for ref in wanted)
            or not all(isinstance(item, torch.Tensor) and _small(item) for item in results)
            or _RANDOM.match(str(target))
        ):
            return None
        given = pytree.tree_map_only(Ref, lambda ref: self.known[ref.id], (args, kwargs))
        return target(*given[0], **given[1])

    def _place(self, node: fx.Node) -> tuple[str, tuple[str, int]]:
        """The module of a node, and the line of the user's code."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack else ""
        frames = _FRAME.findall(node.meta.get("stack_trace") or "")
        hidden = torch.__path__[0]
        own = [(file, int(line)) for file, line in frames if not file.startswith(hidden)]
        return path if path in self.modules else "", own[-1] if own else ("", 0)


def _small(tensor: torch.Tensor) -> bool:
    return tensor.numel() <= _CONSTANT_LIMIT
