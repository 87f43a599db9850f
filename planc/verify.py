"""Verification: proves a pruned model right, from the original and the plan alone.

Nothing here shares code with the executors: tensors are compared with slices taken by the labels of
a fresh analysis, shapes with a run, numbers with the rewritten graph and the masked original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from planc import fingerprint
from planc.analysis import Analysis, Gone, analyze
from planc.apply.graph import rewritten
from planc.apply.source import modules_of, tensors_of
from planc.errors import PolicyError, TraceError, VerificationError
from planc.fingerprint import structure_digest
from planc.labels import Labelled, dense
from planc.plan import Plan
from planc.select import write_plan
from planc.trace import trace
from planc.trace.clone import clone
from planc.trace.nesting import leaves
from planc.validate import Call, compare_shapes, example_call

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared and how far apart it was.

    ``error`` is the largest difference from the masked original, relative to the largest output;
    None where a mixing group was pruned, for which removing is not zeroing, or where the model is
    random (dropout in training mode). ``graph_error`` is the same for the rewritten graph, which
    holds for every plan.
    """

    checks: tuple[str, ...]
    error: float | None
    graph_error: float
    mixing: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.checks)


def verify(
    plan: Plan,
    model: nn.Module,
    smaller: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
) -> Report:
    """Proves that ``smaller`` is what ``plan`` makes of ``model``; both are only read.

    The plan is derived again from a fresh analysis of the model; every tensor of the result is
    compared bit for bit with a slice taken by the labels; classes, attributes, hooks and modes with
    the original's; every shape of a run with the prediction; outputs with the rewritten graph, and,
    where no pruned group is mixing, with the masked original.

    Args:
        args, kwargs: inputs to compare outputs on, of any shapes that the model takes; made from
            the plan's specification if not given.
        tolerance: the largest relative difference; 1e-4 in float32, 1e-9 in float64, 2e-2 below.

    Raises:
        StalePlan: the plan was made for another model.
        VerificationError: something differs; the first difference is named.
    """
    _check_source(plan, model)
    call = example_call(plan, model, args, kwargs)
    analysis = analyze(trace(model, *call))
    checks = [_check_plan(plan, _as_planned(plan, model, analysis))]
    gone = analysis.gone([group.removed for group in plan.groups])
    reference = _reference(plan, analysis, gone, model)
    if plan.target == "module":
        checks.append(_check_modules(plan, model, smaller))
    else:
        checks.append(_check_graph(reference, smaller))
    checks.append(_check_tensors(analysis, gone, model, smaller))
    checks.append(_check_shapes(plan, analysis, smaller, call))
    mixing = tuple(group.name for group in plan.groups if group.mixing and group.removed)
    if any(tensor.is_meta for tensor in _named(model).values()):
        checks.append("outputs not compared: on the meta device there are no numbers")
        return Report(tuple(checks), None, 0.0, mixing)
    allowed = tolerance or _tolerance(model)
    outputs = _run(smaller, call)
    graph_error = _error(outputs, _run(reference, call), allowed, "the rewritten graph")
    checks.append(f"outputs equal the rewritten graph's: {graph_error:.1e} relative")
    error = None
    if mixing:
        checks.append(f"not compared with the masked original: {len(mixing)} pruned groups mix")
        return Report(tuple(checks), error, graph_error, mixing)
    masked = _masked(analysis, gone, model)
    expected = _run(masked, call)
    if model.training and _differ(expected, _run(masked, call, seed=1)):
        checks.append("not compared with the masked original: in training mode it is random")
    else:
        error = _error(outputs, expected, allowed, "the masked original")
        checks.append(f"outputs equal the masked original's: {error:.1e} relative")
    return Report(tuple(checks), error, graph_error, mixing)


def _check_source(plan: Plan, model: nn.Module) -> None:
    try:
        fingerprint.check_source(plan, tensors_of(model), modules_of(model))
    except (ValueError, LookupError) as error:  # members that do not fit the plan's own tensors
        raise VerificationError(f"the plan contradicts itself: {error}") from error


def _as_planned(plan: Plan, model: nn.Module, analysis: Analysis) -> Analysis:
    """The analysis of the model on the inputs that the plan was made with.

    Raises:
        VerificationError: on the inputs of ``analysis`` the model has other groups.
    """
    if analysis.graph.input_spec == plan.inputs:
        return analysis
    try:
        planned = analyze(trace(model, *example_call(plan, model)))
    except TraceError as error:
        raise VerificationError(f"the model does not run on the plan's inputs: {error}") from error
    if structure_digest(planned.groups) != structure_digest(analysis.groups):
        raise VerificationError(
            "on these inputs the model has other groups than on those of the plan: verify on "
            "inputs of the shapes that it was compiled with"
        )
    return planned


def _check_plan(plan: Plan, analysis: Analysis) -> str:
    """The plan is the one that its removals lead to, in every field that means something."""
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
    removed = tuple(group.removed for group in plan.groups)
    for group in plan.groups:
        units = group.removed
        if list(units) != sorted(set(units)) or (units and not 0 <= units[0] <= units[-1] < group.size):
            raise VerificationError(f"group {group.name}: removed units are not sorted and in range")
    if plan.target not in ("module", "graph"):
        raise VerificationError(f'the plan\'s target is {plan.target!r}, not "module" or "graph"')
    try:
        target: Any = plan.target
        expected = write_plan(analysis, removed, target, "", "")
    except PolicyError as error:
        raise VerificationError(f"the plan breaks a constraint: {error}") from error
    for field in ("source", "tensors", "modules", "groups", "attributes", "cost_before",
                  "cost_after", "shapes", "inputs", "requires"):
        planned, derived = getattr(plan, field), getattr(expected, field)
        if planned != derived:
            raise VerificationError(
                f"the plan's {field} differ from what its removals lead to: "
                f"{_first_difference(planned, derived)}"
            )
    # the result of a composed plan bears the name that the last of its parts gave it
    fields = ("attributes", "tensors", "structure") if len(plan.provenance) == 1 else ("attributes", "tensors")
    for field in fields:
        if getattr(plan.result, field) != getattr(expected.result, field):
            raise VerificationError(f"the plan's fingerprint of the result's {field} is wrong")
    return f"the plan's {len(plan.groups)} groups are those of a fresh analysis"


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


def _vanished(labelled: Labelled, gone: Gone) -> np.ndarray:
    """For each coordinate of a tensor whether it vanishes, by its labels."""
    lost = np.zeros((1,) * labelled.rank, dtype=bool)
    for layer in dense(labelled).layers:
        lost = lost | gone[layer.atoms]
    return np.broadcast_to(lost, labelled.shape)


def _sliced(
    labelled: Labelled, gone: Gone, tensor: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    lost = _vanished(labelled, gone)
    if not lost.any():
        return tensor
    if tensor.is_meta:
        return tensor.new_empty(shape)
    keep = torch.from_numpy(np.ascontiguousarray(~lost)).to(tensor.device)
    return tensor.detach()[keep].reshape(shape)


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _check_tensors(
    analysis: Analysis, gone: Gone, model: nn.Module, smaller: nn.Module
) -> str:
    """Every tensor of the result is the slice that the labels say, bit for bit."""
    before, after = _named(model), _named(smaller)
    shapes = analysis.shapes(gone)
    wanted = {name for tensor in analysis.graph.tensors for name in tensor.names}
    captured = {f"captured_{value}" for value in analysis.graph.captured}
    after = {name: new for name, new in after.items() if name not in captured}
    if set(after) != wanted:
        names = sorted(set(after) ^ wanted)
        raise VerificationError(f"the pruned model has other tensors: {', '.join(names[:5])}")
    for tensor in analysis.graph.tensors:
        old = before[tensor.name]
        for name in tensor.names:
            new = after[name]
            if new is not after[tensor.name]:
                raise VerificationError(f"{name} is no longer tied to {tensor.name}")
            if tuple(new.shape) != shapes[tensor.value]:
                raise VerificationError(
                    f"{name} has shape {tuple(new.shape)}, predicted {shapes[tensor.value]}"
                )
        new = after[tensor.name]
        kind = "parameter" if isinstance(new, nn.Parameter) else "buffer"
        if kind != tensor.kind:
            raise VerificationError(f"{tensor.name} is a {kind}, was a {tensor.kind}")
        for field in ("dtype", "device", "requires_grad"):
            if getattr(new, field) != getattr(old, field):
                raise VerificationError(
                    f"{tensor.name}: {field} is {getattr(new, field)}, was {getattr(old, field)}"
                )
        long = [dim for dim, size in enumerate(new.shape) if size > 1]
        if _order(new, long) != _order(old, long):
            raise VerificationError(
                f"{tensor.name}: its memory format has changed, strides are {new.stride()}, "
                f"were {old.stride()}"
            )
        if old.is_meta:
            continue
        expected = _sliced(analysis.walked.labels[tensor.value], gone, old, tuple(new.shape))
        if not _same_bits(new.detach(), expected.detach()):
            raise VerificationError(f"{tensor.name}: its values are not the kept ones, in order")
    _check_memory(analysis, before, after)
    return f"{len(analysis.graph.tensors)} tensors hold exactly the kept values"


def _check_memory(
    analysis: Analysis, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> None:
    """Nothing shares memory with the original, nor with anything it did not share it with there."""
    originals = {_storage(old): name for name, old in before.items() if old.numel()}
    owners: dict[int, str] = {}
    for tensor in analysis.graph.tensors:
        name, new = tensor.name, after[tensor.name]
        if new.is_meta or not new.numel():
            continue
        if _storage(new) in originals:
            raise VerificationError(
                f"{name} shares memory with the original's {originals[_storage(new)]}"
            )
        other = owners.setdefault(_storage(new), name)
        if _storage(before[other]) != _storage(before[name]):
            raise VerificationError(f"{name} shares memory with {other}, which it did not before")


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    # not torch.equal: NaNs are unequal and zeros of both signs equal, their bits are not
    a, b = (x.resolve_conj().resolve_neg().contiguous().reshape(-1) for x in (a, b))
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def _order(tensor: torch.Tensor, dims: list[int]) -> list[int]:
    """``dims`` from the outermost in memory to the innermost."""
    return sorted(dims, key=lambda dim: -tensor.stride(dim))


def _check_modules(plan: Plan, model: nn.Module, smaller: nn.Module) -> str:
    """Classes, attributes, hooks and modes are the original's, but for what the plan changes."""
    if type(smaller) is not type(model):
        raise VerificationError(
            f"the pruned model is a {type(smaller).__name__}, the original a {type(model).__name__}"
        )
    expected = fingerprint.modules_after(plan.modules, plan.attributes)
    difference = fingerprint.first_difference((), expected, (), modules_of(smaller))
    if difference is not None:
        raise VerificationError(f"structural attributes of the pruned model: {difference}")
    changed = {(change.module, change.name) for change in plan.attributes}
    others = dict(smaller.named_modules())
    for path, module in model.named_modules():
        where, other = path or "the model itself", others[path]
        if type(other) is not type(module):
            raise VerificationError(
                f"{where} is a {type(other).__name__}, was a {type(module).__name__}"
            )
        was, now = _plain_attributes(module), _plain_attributes(other)
        for name in sorted(was.keys() | now.keys()):
            if (path, name) not in changed and was.get(name) != now.get(name):
                raise VerificationError(
                    f"{where}: {name} is {now.get(name, 'not there')}, "
                    f"was {was.get(name, 'not there')}"
                )
    return f"structural attributes of {len(expected)} modules, {len(plan.attributes)} of them new"


def _plain_attributes(module: nn.Module) -> dict[str, str]:
    """What ``module`` holds beside tensors and modules, as text: numbers, flags, counts of hooks."""
    found = {}
    for name, value in vars(module).items():
        if name.endswith("_hooks") and isinstance(value, dict):
            found[name] = str(len(value))
        elif name == "_non_persistent_buffers_set":
            found[name] = repr(sorted(value))
        elif _is_plain(value):
            found[name] = repr(value)
    return found


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _check_graph(reference: fx.GraphModule, smaller: nn.Module) -> str:
    """The graph of the result has every operator, argument and constant of the reference."""
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
    if smaller.training != reference.training:
        raise VerificationError(f"training is {smaller.training}, was {reference.training}")
    return f"the {len(found)} nodes of the graph are those of the rewritten one"


def _spelled(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{node.op} {name} {node.args} {node.kwargs}"


def _check_shapes(plan: Plan, analysis: Analysis, smaller: nn.Module, call: Call) -> str:
    try:
        found = trace(smaller, *call)
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run: {error}") from error
    compare_shapes(plan, analysis, found)
    return f"all {len(found.nodes)} operators have the predicted shapes"


def _reference(
    plan: Plan, analysis: Analysis, gone: Gone, model: nn.Module
) -> fx.GraphModule:
    """The rewritten graph over slices of the original's tensors, taken by the labels."""
    before, shapes = _named(model), analysis.shapes(gone)
    tensors = {
        t.name: _sliced(
            analysis.walked.labels[t.value], gone, before[t.name].detach(), shapes[t.value]
        ).clone()
        for t in analysis.graph.tensors
    }
    changed = {(change.module, change.name): change.after for change in plan.attributes}
    return rewritten(
        analysis, gone, tensors, changed if plan.target == "module" else None, model.forward
    )


def _masked(analysis: Analysis, gone: Gone, model: nn.Module) -> nn.Module:
    """The original with every vanished coordinate zero, by the labels."""
    zeroed: dict[int, torch.Tensor] = {}
    before = _named(model)
    for t in analysis.graph.tensors:
        tensor = before[t.name]
        lost = _vanished(analysis.walked.labels[t.value], gone)
        if lost.any():
            holes = torch.from_numpy(lost.copy()).to(tensor.device)
            zeroed[id(tensor)] = tensor.detach().masked_fill(holes, 0)

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        new = zeroed.get(id(tensor), tensor.detach().clone())
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new

    return clone(model, replace)


def _run(model: nn.Module, call: Call, seed: int = 0) -> list[torch.Tensor]:
    """Outputs of one run in the model's own mode; buffers and random state stay as they were."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        result = model(*call[0], **call[1])
        outputs = [leaf.clone() for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            buffer.copy_(buffers[name])
    return outputs


def _differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return not all(map(torch.equal, some, others))


def _error(
    outputs: list[torch.Tensor], expected: list[torch.Tensor], allowed: float, what: str
) -> float:
    """The largest difference of outputs, relative to the largest expected value of each."""
    worst = 0.0
    if len(outputs) != len(expected):
        raise VerificationError(f"{len(outputs)} outputs, {what} has {len(expected)}")
    for i, (a, b) in enumerate(zip(outputs, expected, strict=True)):
        if a.shape != b.shape:
            raise VerificationError(f"output {i} has shape {tuple(a.shape)}, {what} {tuple(b.shape)}")
        if not a.numel():
            continue
        wide = torch.float64 if a.is_floating_point() else a.dtype
        scale = float(b.to(wide).abs().max())
        difference = float((a.to(wide) - b.to(wide)).abs().max())
        error = difference / scale if scale else difference
        if not error <= allowed:
            raise VerificationError(
                f"output {i} differs from that of {what} by {error:.2e} relative, allowed {allowed:g}"
            )
        worst = max(worst, error)
    return worst


def _tolerance(model: nn.Module) -> float:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((TOLERANCE.get(dtype, 2e-2) for dtype in types), default=1e-4)


