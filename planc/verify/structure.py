"""Structure checks: the plan follows from its removals, and the result has its classes, attributes,
operators and shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, analyze
from planc.analysis.outputs import freed
from planc.apply.matching import check_model
from planc.apply.module import copy_module
from planc.apply.validate import (
    Call,
    check_structure,
    compare_shapes,
    deciding_alike,
    example_call,
)
from planc.compile.outline import Removed
from planc.compile.select import write_plan
from planc.errors import PolicyError, TraceError, VerificationError
from planc.ir.guards import check
from planc.modules.nesting import map_leaves
from planc.modules.tables import modules_of
from planc.modules.tree import settings
from planc.plan import fingerprint
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import ModuleSpec, Plan
from planc.plan.specification import features, without_precision
from planc.trace import trace

_DERIVED = (
    *("source", "tensors", "modules", "groups", "attributes", "cost_before", "cost_after"),
    *("shapes", "inputs", "requires"),
)


def check_source(plan: Plan, model: nn.Module) -> None:
    try:
        check_model(plan, model)
    except (ValueError, LookupError) as error:  # members and tensors of the plan disagree
        raise VerificationError(f"the plan contradicts itself: {error}") from error


def as_planned(plan: Plan, model: nn.Module, analysis: Analysis) -> Analysis:
    """Return the analysis of the model on the inputs of the plan.

    Raises:
        VerificationError: the model has other groups on the inputs of ``analysis``.
        StalePlan: the same, under control flow that depends on input values.
    """
    if analysis.graph.data_dependent:  # the plan records only the shapes of its inputs
        check_structure(plan, analysis)
        return analysis
    if without_precision(analysis.graph.input_spec) == without_precision(plan.inputs):
        return analysis
    try:
        given = trace(model, *example_call(plan, model))
        found = analyze(freed(given, plan))
    except TraceError as error:
        raise VerificationError(
            f"the model does not run on the plan's inputs: {error}; they were made up from its "
            "specification: give inputs of the shapes that it was compiled with"
        ) from error
    if structure_digest(found.groups) != structure_digest(analysis.groups):
        raise VerificationError(
            "on these inputs the model has other groups than on those of the plan: verify on "
            "give inputs of the shapes that it was compiled with"
        )
    return found


def check_plan(plan: Plan, analysis: Analysis) -> str:
    """Check every meaningful field of the plan against the one derived from its removals."""
    names = [group.name for group in analysis.groups]
    for group, found in zip(plan.groups, analysis.groups, strict=False):
        for field in ("name", "kind", "size", "rows", "members"):
            planned, derived = getattr(group, field), getattr(found, field)
            if planned != derived:
                raise VerificationError(
                    f"group {group.name}: the plan's {field} is {_short(planned)}, the model's is "
                    f"{_short(derived)}; compile the plan again"
                )
    if len(plan.groups) != len(names):
        raise VerificationError(f"the plan has {len(plan.groups)} groups, the model {len(names)}")
    removed = tuple(tuple(group.removed) for group in plan.groups)
    for group, units in zip(plan.groups, removed, strict=True):
        in_range = not units or (units[0] >= 0 and units[-1] < group.size)
        if list(units) != sorted(set(units)) or not in_range:
            raise VerificationError(
                f"group {group.name}: removed units are not sorted and in range"
            )
    if plan.target not in ("module", "graph"):
        raise VerificationError(f'the plan\'s target is {plan.target!r}, not "module" or "graph"')
    try:
        target: Any = plan.target
        expected = write_plan(analysis, removed, target, "", "")
    except PolicyError as error:
        raise VerificationError(f"the plan breaks a constraint: {error}") from error
    expected = _as_listed(plan, expected)
    plan = plan.replace(groups=tuple(replace(group, scores=None) for group in plan.groups))
    if plan.shapes == _all_shapes(analysis, removed):
        expected = expected.replace(shapes=plan.shapes)
    deciding = analysis.graph.data_dependent
    if deciding or ("real" in analysis.graph.frontend and plan.inputs != expected.inputs):
        plan = _without_work(plan, expected)  # the amount of work depends on values
    if deciding or without_precision(plan.inputs) == without_precision(expected.inputs):
        expected = expected.replace(inputs=plan.inputs, requires=features(plan.inputs))
    expected = _in_precision(plan, expected)
    composed = len(plan.provenance) > 1
    if composed and plan.target == "graph":  # its last part was made for a rewritten graph
        plan = plan.replace(shapes=expected.shapes)
    for field in _DERIVED:
        planned, derived = getattr(plan, field), getattr(expected, field)
        if planned != derived:
            raise VerificationError(
                f"the plan's {field} differ from what its removals lead to: "
                f"{_first_difference(planned, derived)}"
            )
    # the structure of a composed plan's result is named by the last of its parts
    structure = () if composed else ("structure",)
    for field in ("attributes", "tensors", *structure):
        if getattr(plan.result, field) != getattr(expected.result, field):
            raise VerificationError(f"the plan's fingerprint of the result's {field} is wrong")
    return f"the plan's {len(plan.groups)} groups are those of a fresh analysis"


def _in_precision(plan: Plan, expected: Plan) -> Plan:
    """Return ``expected`` in the precision of ``plan``; the model may have been converted since."""
    was, before, after = plan.cost_before, expected.cost_before, expected.cost_after
    width, rest = divmod(was.bytes, max(1, was.params))
    if was.bytes == before.bytes or rest or width not in (1, 2, 4, 8):
        return expected
    return expected.replace(
        cost_before=replace(before, bytes=width * before.params),
        cost_after=replace(after, bytes=width * after.params),
        shapes=plan.shapes,  # actual conversions of precision are recorded as operators
    )


def _as_listed(plan: Plan, expected: Plan) -> Plan:
    """Return ``expected`` with the module table of ``plan``, which may list more entries.

    A composed plan has the attributes of all its parts; one of an older version has all attributes,
    but no classes.
    """
    listed = fingerprint.joined(expected.modules, plan.modules)
    if not fingerprint.lists_classes(plan.modules):
        listed = fingerprint.shared(listed, plan.modules)
    after = fingerprint.modules_after(listed, expected.attributes)
    return expected.replace(
        modules=listed,
        source=replace(expected.source, attributes=fingerprint.attributes_digest(listed)),
        result=replace(expected.result, attributes=fingerprint.attributes_digest(after)),
    )


def _all_shapes(analysis: Analysis, removed: Removed) -> bytes:
    """Return the digest of shapes in older plans, which includes constants."""
    shapes = analysis.shapes(analysis.gone(removed))
    return fingerprint.shapes_digest(
        (node.op, [shapes[ref.id] for ref in node.outputs if ref is not None], node.literals)
        for node in analysis.graph.nodes
        if not node.idle
    )


def unreached(analysis: Analysis) -> str:
    """Return the parameters unused by the run, in words; empty if all were used."""
    names = dict.fromkeys(
        pin.tensor for pin in analysis.pins if pin.reason == "not used by the traced run"
    )
    if not names:
        return ""
    some = ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{len(names)} tensors were not reached and stay whole ({some}): what runs on inputs that "
        "reach them is not known"
    )


def _without_work(plan: Plan, other: Plan) -> Plan:
    """Return ``plan`` with the MACs and shapes of ``other``."""
    costs = {
        field: replace(getattr(plan, field), macs=getattr(other, field).macs)
        for field in ("cost_before", "cost_after")
    }
    return plan.replace(shapes=other.shapes, **costs)


def check_modules(plan: Plan, model: nn.Module, smaller: nn.Module, call: Call) -> str:
    """Compare classes, structural attributes, hooks and modes with the original's, up to the plan's
    changes.
    """
    if not _alike(smaller, model):
        raise VerificationError(
            f"the pruned model is a {type(smaller).__name__}, the original a {type(model).__name__}"
        )
    expected = fingerprint.result_modules(plan)
    difference = fingerprint.first_difference((), expected, (), modules_of(smaller))
    if difference is not None:
        raise VerificationError(f"structural attributes of the pruned model: {difference}")
    for path, module, other in _pairs(model, smaller):
        where = path or "the model itself"
        if not _alike(other, module):
            raise VerificationError(
                f"{where} is a {type(other).__name__}, was a {type(module).__name__}"
            )
        was, now = _modes(module), _modes(other)
        for name, value in was.items():
            if name not in now or now[name] != value:
                raise VerificationError(f"{where}: {name} is {now.get(name)}, was {value}")
    if _other_hooks(model, smaller):
        difference = _other_hooks(_used(model, call), _used(smaller, call))
        if difference:
            raise VerificationError(difference)
    return f"structural attributes of {len(expected)} modules, {len(plan.attributes)} of them new"


def _alike(module: nn.Module, other: nn.Module) -> bool:
    """Return True if two modules have one class; graph modules, each with its own class, compare by
    code.
    """
    if isinstance(module, fx.GraphModule) and isinstance(other, fx.GraphModule):
        return module.code == other.code
    return type(module) is type(other)


def _pairs(model: nn.Module, smaller: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield the paths of ``model`` with the modules of both there."""
    others = dict(smaller.named_modules())
    return ((path, module, others[path]) for path, module in model.named_modules())


def _modes(module: nn.Module) -> dict[str, Any]:
    """Return the modes of a module, and the flags and floats given to a torch.nn layer's
    constructor.
    """
    held = vars(module)
    made_with = {n: held[n] for n in settings(module) if type(held.get(n)) in (bool, float)}
    return {
        "training": module.training,
        "_non_persistent_buffers_set": sorted(module._non_persistent_buffers_set),
        **made_with,
    }


def _other_hooks(model: nn.Module, smaller: nn.Module) -> str:
    """Return the first difference in the number of hooks, in words; empty if there is none."""
    for path, module, other in _pairs(model, smaller):
        was, now = _hooks(module), _hooks(other)
        for name in sorted(was.keys() | now.keys()):
            if was.get(name, 0) != now.get(name, 0):
                where, counts = path or "the model itself", (now.get(name, 0), was.get(name, 0))
                return f"{where}: {name} is {counts[0]}, was {counts[1]}"
    return ""


def _hooks(module: nn.Module) -> dict[str, int]:
    """Return the number of hooks of each kind."""
    found = vars(module).items()
    return {n: len(v) for n, v in found if n.endswith("_hooks") and isinstance(v, dict)}


def _used(model: nn.Module, call: Call) -> nn.Module:
    """Return a copy of a model after one run, with the hooks installed by a first run."""
    copied = copy_module(model)
    args, kwargs = map_leaves(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, call)
    with suppress(Exception), torch.random.fork_rng(devices=[]), torch.no_grad():
        copied(*args, **kwargs)
    return copied


def check_graph(plan: Plan, reference: fx.GraphModule, smaller: nn.Module) -> str:
    """Compare every operator, argument and constant of the result's graph with the reference."""
    if not isinstance(smaller, fx.GraphModule):
        raise VerificationError(
            f"the pruned model is a {type(smaller).__name__}, the plan is for a GraphModule"
        )
    wanted, found = list(reference.graph.nodes), list(smaller.graph.nodes)
    for want, have in zip(wanted, found, strict=False):
        if _spelled(want) != _spelled(have):
            raise VerificationError(
                f"the graph has {_short(_spelled(have))}, expected {_short(_spelled(want))}"
            )
    if len(wanted) != len(found):
        raise VerificationError(f"the graph has {len(found)} nodes, expected {len(wanted)}")
    for node in wanted:
        if node.op == "call_module":
            _check_leaf(str(node.target), plan, reference, smaller)
    if smaller.training != reference.training:
        raise VerificationError(f"training is {smaller.training}, was {reference.training}")
    return f"the {len(found)} nodes of the graph are those of the rewritten one"


def _check_leaf(path: str, plan: Plan, reference: fx.GraphModule, smaller: fx.GraphModule) -> None:
    """Check a called module for the reference's class and the planned attributes."""
    parts = dict(smaller.get_submodule(path).named_modules())
    for inner, want in reference.get_submodule(path).named_modules():
        have = parts.get(inner, smaller)
        if type(have) is not type(want):
            raise VerificationError(
                f"{path}.{inner} is a {type(have).__name__}, was a {type(want).__name__}"
            )
        if _modes(have) != _modes(want):
            raise VerificationError(
                f"{path}.{inner}: expected {_modes(want)}, found {_modes(have)}"
            )
    expected = tuple(
        ModuleSpec(spec.path[len(path) + 1 :], spec.attributes)
        for spec in fingerprint.modules_after(plan.modules, plan.attributes)
        if f"{spec.path}.".startswith(f"{path}.")
    )
    found = modules_of(smaller.get_submodule(path))
    difference = fingerprint.first_difference((), expected, (), found)
    if difference is not None:
        raise VerificationError(f"in {path}: {difference}")


def _spelled(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", node.target)  # function name, or text
    args = node.args[:3] if node.target is check else node.args  # the rest is for its message
    return f"{node.op} {name} {args} {node.kwargs}"


def check_shapes(plan: Plan, analysis: Analysis, smaller: nn.Module, call: Call) -> str:
    found = deciding_alike(plan, analysis, smaller, call)
    compare_shapes(plan, analysis, found)
    return f"all {len(found.nodes)} operators have the predicted shapes"


def _first_difference(planned: Any, derived: Any) -> str:
    if isinstance(planned, tuple) and isinstance(derived, tuple):
        for a, b in zip(planned, derived, strict=False):
            if a != b:
                return f"{_short(a)}, expected {_short(b)}"
        return f"{len(planned)} entries, expected {len(derived)}"
    return f"{_short(planned)}, expected {_short(derived)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
