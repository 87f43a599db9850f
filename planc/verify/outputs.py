"""What a result computes, beside the rewritten graph and the masked original."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone
from planc.apply.graph import rewritten
from planc.errors import VerificationError
from planc.plan import Plan
from planc.trace.clone import clone
from planc.trace.nesting import leaves, map_leaves
from planc.validate import Call
from planc.verify.tensors import named, sliced, vanished

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def rewritten_graph(plan: Plan, analysis: Analysis, gone: Gone, model: nn.Module) -> fx.GraphModule:
    """The rewritten graph over slices of the original's tensors, taken by the labels."""
    before, shapes = named(model), analysis.shapes(gone)
    tensors = {
        t.name: sliced(
            analysis.walked.labels[t.value], gone, before[t.name].detach(), shapes[t.value]
        ).clone()
        for t in analysis.graph.tensors
    }
    changed = {(change.module, change.name): change.after for change in plan.attributes}
    return rewritten(
        analysis, gone, tensors, changed if plan.target == "module" else None, model.forward
    )


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

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        new = zeroed.get(id(tensor), tensor.detach().clone())
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(new, requires_grad=tensor.requires_grad)
        return new

    return clone(model, replace)


def run(model: nn.Module, call: Call, seed: int = 0) -> list[torch.Tensor]:
    """Outputs of one run in the model's own mode; buffers and random state stay as they were."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        args, kwargs = map_leaves(_own, call)  # the model may write to its inputs
        result = model(*args, **kwargs)
        outputs = [leaf.clone() for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            buffer.copy_(buffers[name])
    return outputs


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
        if a.shape != b.shape:
            raise VerificationError(
                f"output {i} has shape {tuple(a.shape)}, {what} {tuple(b.shape)}"
            )
        if not a.numel():
            continue
        real = a.is_floating_point() or a.dtype == torch.bool
        wide = torch.float64 if real else a.dtype
        scale = float(b.to(wide).abs().max())
        difference = float((a.to(wide) - b.to(wide)).abs().max())
        error = difference / scale if scale else difference
        if not error <= allowed:
            raise VerificationError(
                f"output {i} differs from that of {what} by {error:.2e} relative, "
                f"allowed {allowed:g}"
            )
        worst = max(worst, error)
    return worst


def tolerance_of(model: nn.Module) -> float:
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((TOLERANCE.get(dtype, 2e-2) for dtype in types), default=1e-4)


def _own(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
