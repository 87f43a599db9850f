"""planc beside Torch-Pruning, model by model, measured in the same run.

    python -m tests.bench.torch_pruning [MODEL ...] [--ratio 0.5] [--limit 150]

Both get the same randomised torchvision model, ratio and criterion (L2 magnitude of groups), a
process of their own with one thread, and a small model first that pays for one-time imports.
``seconds`` is from the model to the pruned model, ``MiB`` the peak of resident memory above what
the process held before. Torch-Pruning is told which layer to ignore and that heads are groups of
channels, and ViT's ``hidden_dim`` is patched afterwards, as its own examples do; planc is told
nothing.

``error`` is the largest relative difference from the masked original: the original with every
removed coordinate at zero, its layer norms taking their statistics over what is kept, its
attention scaled for the kept width of a head if that is closer. Which coordinates were removed is
read off planc's plan by ``planc.mask``; for Torch-Pruning by replaying its pruning history on
a copy of the model whose parameters hold their own positions. Both sides of the comparison are
then the same code.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tests.support.measure import child, macs, stage
from tests.zoo import torchvision as zoo

TOOLS = ("planc", "torch-pruning")
Masks = Mapping[str, torch.Tensor]


def main() -> int:
    """Runs the benchmark and returns the exit code."""
    options = _options()
    if options.tool:
        torch.set_num_threads(1)
        print(json.dumps(measure(options.models[0], options.tool, options.ratio)))
        return 0
    print("| model | tool | seconds | MiB | parameters M | MACs G | error |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name in options.models or zoo.classification_models():
        for tool in TOOLS:
            call = [name, "--tool", tool, f"--ratio={options.ratio}"]
            answer = child("tests.bench.torch_pruning", call, options.limit)
            print(f"| {name} | {tool} | {_cells(answer)} |", flush=True)
    return 0


def measure(name: str, tool: str, ratio: float) -> dict[str, Any]:
    """One model pruned by one tool in this process."""
    prune = _with_planc if tool == "planc" else _with_torch_pruning
    small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    prune(small.eval(), torch.randn(1, 3, 8, 8), ratio)
    model = zoo.build(name)
    images = zoo.example_input(name, seed=1)
    before = [_parameters(model), macs(model, images)]
    original = copy.deepcopy(model)
    with stage() as taken:
        pruned, evidence = prune(model, images, ratio)
    row: dict[str, Any] = {
        "seconds": taken.seconds,
        "peak": taken.peak,
        "before": before,
        "after": [_parameters(pruned), macs(pruned, images)],
    }
    masks = _masks(original, images, evidence)
    return row | {"error": _error(original, pruned, masks, zoo.example_input(name, seed=2))}


def _with_planc(model: nn.Module, images: torch.Tensor, ratio: float) -> tuple[nn.Module, Any]:
    import planc

    plan = planc.compile(model, (images,), ratio=ratio, criterion="l2")
    return planc.apply(plan, model), plan


def _with_torch_pruning(
    model: nn.Module, images: torch.Tensor, ratio: float
) -> tuple[nn.Module, Any]:
    import torch_pruning as tp

    classes = _last_layer(model)
    ignored = [classes] if classes is not None else []
    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    heads |= {m.qkv: m.num_heads for m in model.modules() if hasattr(m, "qkv")}
    pruner = tp.pruner.BasePruner(
        model,
        images,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=ignored,
        channel_groups=heads,
    )
    pruner.step()
    if hasattr(model, "hidden_dim") and hasattr(model, "conv_proj"):
        model.hidden_dim = model.conv_proj.out_channels
    return model, pruner.DG.pruning_history()


def _last_layer(model: nn.Module) -> nn.Module | None:
    """The layer that gives the classes: the last one with weights, as each model here is built."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    wide = [layer for layer in layers if layer.weight.shape[0] == 1000]
    return (wide or layers or [None])[-1]


def _masks(original: nn.Module, images: torch.Tensor, evidence: Any) -> Masks:
    """What was kept of each floating-point tensor of the state, as zeros and ones."""
    if not isinstance(evidence, list):
        import planc

        ones = {name: torch.ones_like(tensor) for name, tensor in original.state_dict().items()}
        return planc.mask(evidence, ones)
    import torch_pruning as tp

    positions = copy.deepcopy(original).double()
    graph = tp.DependencyGraph().build_dependency(positions, images.double(), verbose=False)
    with torch.no_grad():
        for tensor in positions.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    graph.load_pruning_history(evidence)
    masks = {}
    kept = positions.state_dict()
    for name, tensor in original.state_dict().items():
        mask = torch.ones_like(tensor)
        if tensor.is_floating_point():
            mask.zero_().view(-1)[kept[name].long().view(-1)] = 1
        masks[name] = mask
    return masks


def _error(original: nn.Module, pruned: nn.Module, masks: Masks, images: torch.Tensor) -> float:
    """The largest difference from the masked original, relative to its largest value."""
    for name, tensor in pruned.state_dict().items():
        kept = int(masks[name].sum()) if tensor.is_floating_point() else tensor.numel()
        assert kept == tensor.numel(), f"{name}: {kept} kept, but {tensor.numel()} are there"
    errors = []
    for scaled in (False, True):
        masked = copy.deepcopy(original)
        with torch.no_grad():
            for name, tensor in masked.state_dict().items():
                if tensor.is_floating_point():
                    tensor.mul_(masks[name])
            if scaled:
                _scale_queries(masked, pruned)
            with _KeptStatistics(masked, masks):
                expected = masked(images)
            found = pruned(images)
        errors.append(float((found - expected).abs().max() / expected.abs().max()))
    return min(errors)


def _scale_queries(masked: nn.Module, pruned: nn.Module) -> None:
    """Gives attention the scale that it computes from the kept width of a head."""
    smaller = dict(pruned.named_modules())
    for name, module in masked.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            wide, kept = module.head_dim, smaller[name].head_dim
            queries = [module.in_proj_weight, module.in_proj_bias]
        elif type(module).__name__ == "ShiftedWindowAttention":
            wide, kept = module.qkv.in_features, smaller[name].qkv.in_features
            queries = [module.qkv.weight, module.qkv.bias]
        else:
            continue
        for parameter in queries:
            parameter[: parameter.shape[0] // 3] *= math.sqrt(wide / kept)


class _KeptStatistics(TorchFunctionMode):
    """Layer norms take mean and variance over the kept features; the others give zero."""

    def __init__(self, masked: nn.Module, masks: Masks) -> None:
        super().__init__()
        self.kept = {
            id(parameter): masks[name].flatten().nonzero().flatten()
            for name, parameter in masked.named_parameters()
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Intercepts ``layer_norm``; everything else is called as it is."""
        kwargs = kwargs or {}
        if func is not functional.layer_norm:
            return func(*args, **kwargs)
        return self.layer_norm(*args, **kwargs)

    def layer_norm(
        self,
        values: torch.Tensor,
        normalized_shape: Any,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """What ``torch.nn.functional.layer_norm`` would give if only the kept features existed."""
        kept = self.kept[id(weight)]
        narrow = values[..., kept]
        normed = functional.layer_norm(narrow, (len(kept),), weight[kept], bias[kept], eps)
        result = torch.zeros_like(values)
        result[..., kept] = normed
        return result


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _cells(answer: dict[str, Any]) -> str:
    """The cells of one row after the model and the tool."""
    if "failed" in answer:
        return f"failed: {answer['failed'][:80]} | | | |"
    (params, work), (params_after, work_after) = answer["before"], answer["after"]
    return (
        f"{answer['seconds']:.2f} | {answer['peak']:.0f} | "
        f"{params / 1e6:.1f} → {params_after / 1e6:.1f} | "
        f"{work / 1e9:.2f} → {work_after / 1e9:.2f} | {answer['error']:.0e}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.torch_pruning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="default: all 80")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--limit", type=float, default=150.0, help="seconds for one model and tool")
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
