"""Output comparison: runs of a result, the rewritten graph and the masked original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone
from planc.analysis.outputs import shrinking
from planc.apply.replay import blanked, sliced
from planc.apply.rewrite import rewritten
from planc.apply.trials import Binding, bindings
from planc.apply.validate import Call
from planc.errors import PlancError, TraceError, VerificationError
from planc.modules.copies import clone
from planc.modules.forgetting import Forgetting, forget_tensors
from planc.modules.nesting import map_leaves, named_leaves
from planc.modules.reach import one_at_a_time, reach_of
from planc.modules.tree import tensors_by_name
from planc.plan.plan import OutputChange, Plan
from planc.trace.caches import caches_apart
from planc.trace.chance import Chance
from planc.trace.decisions import Replay
from planc.trace.unfused import unfused
from planc.verify.contents import Contents, compare_texts, contents, texts_differ
from planc.verify.precision import Precision, converted

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def rewritten_graph(
    plan: Plan, analysis: Analysis, gone: Gone, model: nn.Module, call: Call | None = None
) -> fx.GraphModule:
    """Return the rewritten graph over slices of the original's tensors, taken by the labels.

    With ``call``, the graph checks the input sizes bound by trial, as the result does.
    """
    before, shapes = tensors_by_name(model), analysis.shapes(gone)
    tensors: dict[str, torch.Tensor] = {}
    for t in analysis.graph.tensors:
        old, labels = before[t.name], analysis.walked.labels[t.value]
        new = sliced(labels, gone, old.detach(), shapes[t.value]).clone()
        parameter = isinstance(old, nn.Parameter)
        tensors[t.name] = nn.Parameter(new, requires_grad=False) if parameter else new
    bound: tuple[Binding, ...] = ()
    if call is not None and plan.target == "graph":
        bound = bindings(analysis.graph, model, call)
    return rewritten(plan, analysis, gone, tensors, model, bound)


def graph_or_reason(
    plan: Plan, analysis: Analysis, gone: Gone, model: nn.Module, call: Call | None = None
) -> fx.GraphModule | str:
    """Return the rewritten graph, or in words the reason for its absence.

    No graph exists if values leave torch unobserved, or the results cannot be written.
    """
    graph = analysis.graph
    left = [f"a value {departure.reason}" for departure in graph.departures if departure.outside]
    for reason in filter(None, (*left, graph.unwritable)):
        return f"not compared with the rewritten graph: {reason}"
    return rewritten_graph(plan, analysis, gone, model, call)


def masked_original(analysis: Analysis, gone: Gone, model: nn.Module) -> nn.Module:
    """Return the original with zeros at every removed coordinate, by the labels."""
    zeroed: dict[int, torch.Tensor] = {}
    before = tensors_by_name(model)
    for t in analysis.graph.tensors:
        tensor = before[t.name]
        lost = blanked(analysis.walked.labels[t.value], gone)
        if lost.any():
            holes = torch.from_numpy(lost.copy()).to(tensor.device)
            zeroed[id(tensor)] = tensor.detach().masked_fill(holes, 0)

    masked = _copied(model, zeroed)
    forget_tensors(masked)
    if changes := shrinking(analysis, gone) if analysis.graph.free else ():
        masked.register_forward_hook(partial(_shrunk, analysis, changes))
    return masked


def _shrunk(
    analysis: Analysis, changes: Sequence[OutputChange], module: nn.Module, args: Any, result: Any
) -> Any:
    """Return the result of a masked model without the indices that free outputs lose."""
    names = iter([name for name, _ in named_leaves(result)])
    known = set(analysis.graph.output_names)

    def shrunk(leaf: Any) -> Any:
        name = next(names)
        slices: dict[int, torch.Tensor] = {}
        for change in changes:
            at, _, index = change.name.rpartition(".")
            if change.name == name:
                leaf = leaf.index_select(change.dim, _kept(change, leaf))
            elif at == name and change.name not in known:
                slices[int(index)] = leaf[int(index)].index_select(change.dim, _kept(change, leaf))
        return torch.stack([slices[i] for i in sorted(slices)]) if slices else leaf

    return map_leaves(shrunk, result)


def _kept(change: OutputChange, leaf: torch.Tensor) -> torch.Tensor:
    return torch.tensor(tuple(change.kept), device=leaf.device)


def run(
    model: nn.Module,
    call: Call,
    seed: int = 0,
    replay: Replay | None = None,
    dtype: torch.dtype | None = None,
) -> Contents:
    """Return the outputs of one run in the model's own mode, in its precision or that of ``dtype``.

    A copy is run: writes to tensors and attributes (statistics, caches, flags) do not reach the
    model, and the random state is restored. Fused attention is off. Under ``replay``, and in the
    precision of ``dtype``, the copy runs as if for the first time: state left by earlier runs
    belongs to other decisions, and to another precision.

    Raises:
        VerificationError: the run fails, or has other decisions than ``replay``.
    """
    if replay is None and dtype is None:
        return _run(model, call, seed)
    forgetting = Forgetting()
    once = partial(_run, model, call, seed, replay, dtype, forgetting)
    return forgetting.repeated(once, VerificationError)


def _run(
    model: nn.Module,
    call: Call,
    seed: int,
    replay: Replay | None = None,
    dtype: torch.dtype | None = None,
    forgetting: Forgetting | None = None,
) -> Contents:
    copied = _copied(model, {}, dtype)
    precision = Precision(dtype) if dtype else nullcontext()
    if replay is not None:
        replay.begin()
    with unfused(), Chance(seed).seeded(), torch.no_grad(), precision:
        torch.manual_seed(seed)
        args, kwargs = map_leaves(partial(_own, dtype=dtype), call)  # the model may write to them
        with _first_run(copied, forgetting), _deciding(replay):
            try:
                return contents(copied, copied(*args, **kwargs))
            except PlancError:
                raise
            except Exception as error:
                raise VerificationError(_failed(model, error)) from error


@contextmanager
def _first_run(model: nn.Module, forgetting: Forgetting | None) -> Iterator[None]:
    """Context of a run without the state of earlier ones, which leaves none to later ones."""
    if forgetting is None:
        yield
        return
    with one_at_a_time:
        reach = reach_of(model)
        forgetting.begin(model, reach)
        with caches_apart(reach, forgetting):
            yield
            forgetting.check()


def _failed(model: nn.Module, error: Exception) -> str:
    text = str(error).strip() or "no message"
    return (
        f"a run of {type(model).__name__} fails: {type(error).__name__}: {text.splitlines()[0]}; "
        "verify with args= and kwargs= that the original takes in its present mode"
    )


def _copied(
    model: nn.Module, values: Mapping[int, torch.Tensor], dtype: torch.dtype | None = None
) -> nn.Module:
    """Return a copy of a model, its tensors replaced by ``values`` (keyed by ``id``) or cast."""

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        new = values[id(tensor)] if id(tensor) in values else tensor.detach().clone()
        new = converted(new, dtype)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new

    return clone(model, replace)


@contextmanager
def _deciding(replay: Replay | None) -> Iterator[None]:
    """Context of a run operator by operator, as traced, under the decisions of ``replay``."""
    if replay is None:
        yield
        return
    try:
        with torch.inference_mode(), replay:
            yield
        replay.finish()
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run as the original: {error}") from None


_GROWN = 100


def compare_operands(replay: Replay, other: Replay, allowed: float, what: str) -> float:
    """Return the largest difference of the deciding values of two runs, relative to each tensor's.

    These values are small differences of large coordinates, or logarithms of such. Rounding errors
    have grown in them, so the tolerance is a hundred times the ``allowed`` one of outputs.
    """
    worst, allowed = 0.0, _GROWN * allowed
    for i, (a, b) in enumerate(zip(replay.operands, other.operands, strict=True)):
        worst = max(worst, _distance(a, b, allowed, f"what decides in {replay.where(i)}", what))
    return worst


def differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return texts_differ(some, others) or bool(differing(some, others))


def differing(some: list[torch.Tensor], others: list[torch.Tensor]) -> set[int]:
    """Return the indices of outputs without an equal in the other run."""
    unlike = {i for i, (a, b) in enumerate(zip(some, others, strict=False)) if not _equal(a, b)}
    return unlike | set(range(min(len(some), len(others)), max(len(some), len(others))))


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and not bool(gaps(a, b).any())


def blind(outputs: list[torch.Tensor]) -> Iterator[str]:
    """Yield a remark for each output without numbers to compare."""
    for i, output in enumerate(outputs):
        if not output.numel():
            yield f"output {i} is empty ({_shape(output)}): it has no numbers to compare"
        elif not bool(output.isfinite().all()):
            count = int((~output.isfinite()).sum())
            yield (
                f"output {i} has {count} of {output.numel()} values that are NaN or infinite, in "
                "the reference as well: verify with inputs that the original gives numbers for"
            )


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def difference(
    outputs: list[torch.Tensor], expected: list[torch.Tensor], allowed: float, what: str
) -> float:
    """Return the largest difference of outputs, relative to the largest expected value of each."""
    worst = 0.0
    if len(outputs) != len(expected):
        raise VerificationError(f"{len(outputs)} outputs, {what} has {len(expected)}")
    compare_texts(outputs, expected, what)
    for i, (a, b) in enumerate(zip(outputs, expected, strict=True)):
        name = outputs.name(i) if isinstance(outputs, Contents) else f"output {i}"
        worst = max(worst, _distance(a, b, allowed, name, what))
    return worst


def _distance(a: torch.Tensor, b: torch.Tensor, allowed: float, name: str, what: str) -> float:
    """Return the largest difference of two tensors, relative to the largest finite ``b``."""
    if a.shape != b.shape:
        raise VerificationError(f"{name} has shape {tuple(a.shape)}, {what} {tuple(b.shape)}")
    if not a.numel():
        return 0.0
    difference, scale = float(gaps(a, b).max()), largest(b)
    error = difference / scale if scale else difference
    if not error <= allowed:
        raise VerificationError(
            f"{name} differs from that of {what} by {error:.2e} relative, allowed {allowed:g}"
        )
    return error


def gaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the absolute elementwise difference; equal infinities and two NaNs count as equal."""
    a, b = _wide(a), _wide(b)
    return torch.where((a == b) | (a.isnan() & b.isnan()), 0, a - b).abs()


def largest(values: torch.Tensor) -> float:
    """Return the largest finite magnitude, 0 if there is none."""
    sizes = _wide(values).abs()
    sizes = sizes[sizes.isfinite()]
    return float(sizes.max()) if sizes.numel() else 0.0


def _wide(values: torch.Tensor) -> torch.Tensor:
    if values.is_complex():
        return values
    return values.to(torch.float64 if values.is_floating_point() else torch.int64)


def tolerance_of(model: nn.Module) -> float:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((TOLERANCE.get(dtype, 2e-2) for dtype in types), default=1e-4)


def _own(leaf: Any, dtype: torch.dtype | None) -> Any:
    return converted(leaf.clone(), dtype) if isinstance(leaf, torch.Tensor) else leaf
