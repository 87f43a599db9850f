"""What a result computes, beside the rewritten graph and the masked original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone
from planc.apply.rewrite import rewritten
from planc.errors import TraceError, VerificationError
from planc.plan import Plan
from planc.replay import sliced, vanished
from planc.trace.clone import clone
from planc.trace.decisions import Replay
from planc.trace.nesting import leaves, map_leaves
from planc.validate import Call
from planc.verify.tensors import named

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def rewritten_graph(plan: Plan, analysis: Analysis, gone: Gone, model: nn.Module) -> fx.GraphModule:
    """The rewritten graph over slices of the original's tensors, taken by the labels."""
    before, shapes = named(model), analysis.shapes(gone)
    tensors: dict[str, torch.Tensor] = {}
    for t in analysis.graph.tensors:
        old, labels = before[t.name], analysis.walked.labels[t.value]
        new = sliced(labels, gone, old.detach(), shapes[t.value]).clone()
        parameter = isinstance(old, nn.Parameter)
        tensors[t.name] = nn.Parameter(new, requires_grad=False) if parameter else new
    return rewritten(plan, analysis, gone, tensors, model)


def masked_original(analysis: Analysis, gone: Gone, model: nn.Module) -> nn.Module:
    """The original with every vanished coordinate zero, by the labels."""
    zeroed: dict[int, torch.Tensor] = {}
    before = named(model)
    for t in analysis.graph.tensors:
        tensor = before[t.name]
        lost = vanished(analysis.walked.labels[t.value], gone)
        if lost.any():
            holes = torch.from_numpy(lost.copy()).to(tensor.device)
            zeroed[id(tensor)] = tensor.detach().masked_fill(holes, 0)

    return _copied(model, zeroed)


def run(
    model: nn.Module, call: Call, seed: int = 0, replay: Replay | None = None
) -> list[torch.Tensor]:
    """Outputs of one run in the model's own mode. The run is that of a copy: what it writes to
    tensors and attributes (statistics, caches, flags) is not the model's, nor is the random state.
    """
    model = _copied(model, {})
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _deciding(replay):
        torch.manual_seed(seed)
        args, kwargs = map_leaves(_own, call)  # the model may write to its inputs
        result = model(*args, **kwargs)
        return [leaf.clone() for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]


def _copied(model: nn.Module, values: Mapping[int, torch.Tensor]) -> nn.Module:
    """A copy of a model, in which tensors have other ``values``, by the ``id`` of the old one."""

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        new = values[id(tensor)] if id(tensor) in values else tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new

    return clone(model, replace)


@contextmanager
def _deciding(replay: Replay | None) -> Iterator[None]:
    """Within it a model runs operator by operator as it was traced, deciding as ``replay`` says."""
    if replay is None:
        yield
        return
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), replay:
            yield
        replay.finish()
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run as the original: {error}") from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


_GROWN = 100


def compare_operands(replay: Replay, other: Replay, allowed: float, what: str) -> float:
    """The largest difference of the values that two runs decided by, relative to each tensor's.

    They are small differences of large coordinates, and logarithms of those: rounding has grown in
    them, for which a hundred times what is ``allowed`` of outputs is let pass.
    """
    worst, allowed = 0.0, _GROWN * allowed
    for i, (a, b) in enumerate(zip(replay.operands, other.operands, strict=True)):
        worst = max(worst, _distance(a, b, allowed, f"what decides in {replay.where(i)}", what))
    return worst


def differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return not all(map(torch.equal, some, others))


def difference(
    outputs: list[torch.Tensor], expected: list[torch.Tensor], allowed: float, what: str
) -> float:
    """The largest difference of outputs, relative to the largest expected value of each."""
    worst = 0.0
    if len(outputs) != len(expected):
        raise VerificationError(f"{len(outputs)} outputs, {what} has {len(expected)}")
    for i, (a, b) in enumerate(zip(outputs, expected, strict=True)):
        worst = max(worst, _distance(a, b, allowed, f"output {i}", what))
    return worst


def _distance(a: torch.Tensor, b: torch.Tensor, allowed: float, name: str, what: str) -> float:
    """The largest difference of two tensors, relative to the largest finite value of ``b``."""
    if a.shape != b.shape:
        raise VerificationError(f"{name} has shape {tuple(a.shape)}, {what} {tuple(b.shape)}")
    if not a.numel():
        return 0.0
    if not a.is_complex():
        wide = torch.float64 if a.is_floating_point() else torch.int64
        a, b = a.to(wide), b.to(wide)
    sizes = b.abs()
    sizes = sizes[sizes.isfinite()]
    scale = float(sizes.max()) if sizes.numel() else 0.0
    difference = float(torch.where(a == b, 0, a - b).abs().max())  # infinities may be equal
    error = difference / scale if scale else difference
    if not error <= allowed:
        raise VerificationError(
            f"{name} differs from that of {what} by {error:.2e} relative, allowed {allowed:g}"
        )
    return error


def tolerance_of(model: nn.Module) -> float:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((TOLERANCE.get(dtype, 2e-2) for dtype in types), default=1e-4)


def _own(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
