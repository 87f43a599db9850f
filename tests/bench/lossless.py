"""How many units that do nothing `planc.lossless` finds and removes.

    python -m tests.bench.lossless [MODEL ...] [--way zero ...] [--target graph] [--share 0.25]

A MODEL is a name of torchvision's or, ``transformers:NAME``, of tests/zoo/transformers. In each
group of it that is not mixing, a random share of the units is silenced in one ``way`` (see
:mod:`tests.support.silenced`).

``superfluous`` counts the units of those whose members, set to zero, leave the output as it is (for
scale: all, each is constant). ``found`` are the units among them that :func:`planc.fold` and
:class:`planc.criteria.dead.Dead` prove to be dead, ``removed`` those that the plan removes: the
rows of a group lose equally many, and a module may be bound to more. ``error`` is the largest
difference of the pruned model's outputs, relative to the largest output, in double precision.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.criteria.dead import Dead
from tests.support.silenced import WAYS, Units, chosen_units, silenced, zero
from tests.zoo import torchvision, transformers

MODELS = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11_bn",
    "vit_b_32",
    "transformers:llama",
    "transformers:gpt2",
    "transformers:gemma2",
    "transformers:qwen3",
    "transformers:falcon",
    "transformers:bert",
    "transformers:t5",
    "transformers:whisper",
)
EXACT = 1e-10


@dataclass(frozen=True)
class Case:
    """A model in double precision, and the arguments of one call."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def outputs(self, model: nn.Module) -> list[torch.Tensor]:
        """The tensors among the results of ``model``."""
        with torch.no_grad():
            found = model(*self.args, **self.kwargs)
        return [t for t in _leaves(found) if t.is_floating_point()]

    def error(self, expected: list[torch.Tensor], model: nn.Module) -> float:
        """The largest difference of the outputs of ``model``, relative to the largest output."""
        largest = 0.0
        for a, b in zip(expected, self.outputs(model), strict=True):
            largest = max(largest, float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)))
        return largest


def case(name: str, size: int = 64) -> Case:
    """A model by its name, its images as small as the model takes them."""
    library, _, name = name.rpartition(":")
    if library == "transformers":
        inputs = {
            key: value.double() if value.is_floating_point() else value
            for key, value in transformers.example_inputs(name, batch=2).items()
        }
        return Case(transformers.build(name, dtype=torch.float64), (), inputs)
    images = torchvision.example_input(name, batch=2).double()
    if not name.startswith(("vit", "inception", "swin", "maxvit")):
        images = images[..., :size, :size].contiguous()
    return Case(torchvision.build(name, dtype=torch.float64), (images,), {})


def main() -> int:
    """Runs the benchmark and returns the exit code: whether an output changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--way", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--target", default="graph", choices=("module", "graph"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--missed", action="store_true", help="name the groups with units missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | way | made so | superfluous | found | removed | error |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    worst, totals = 0.0, dict.fromkeys(options.way, np.zeros(4, dtype=int))
    for name in options.models:
        given = case(name)
        analysis = planc.analyze(planc.trace(given.model, given.args, given.kwargs))
        for way in options.way:
            found = measured(given, analysis, way, options)
            if found is None:
                continue
            counts, error = found
            worst = max(worst, error)
            totals[way] = totals[way] + counts
            print(f"| {name} | {way} | " + " | ".join(map(str, counts)) + f" | {error:.0e} |")
            sys.stdout.flush()
    for way, counts in totals.items():
        print(f"| all | {way} | " + " | ".join(map(str, counts)) + " | |")
    return int(worst > EXACT)


def measured(
    given: Case, analysis: Analysis, way: str, options: argparse.Namespace
) -> tuple[Units, float] | None:
    """Units made so, superfluous ones, found and removed ones; and the error. None if no group
    has such units.
    """
    rng = np.random.default_rng(options.seed)
    model = copy.deepcopy(given.model)
    chosen = chosen_units(analysis, options.share, rng, options.target)
    made = silenced(model, analysis, chosen, way, rng)
    if not sum(map(len, made)):
        return None
    expected = given.outputs(model)
    dead = made if way == "scale" else list(_superfluous(given, model, analysis, made, expected))
    ready, plan = planc.lossless(model, given.args, given.kwargs, target=options.target)
    tensors = {**dict(ready.named_parameters()), **dict(ready.named_buffers())}
    scores = Dead(options.target)(analysis, tensors)
    found = [units[scores[g][units] == 0] for g, units in enumerate(dead)]
    # whole rows (heads) are dead with all that is inside, of which any may go
    removed = [group.removed[: len(units)] for units, group in zip(dead, plan.groups, strict=True)]
    if options.missed:
        for group, all_, some in zip(analysis.groups, dead, found, strict=True):
            if len(some) < len(all_):
                print(f"    {way}: {len(some)} of {len(all_)} in {group}", file=sys.stderr)
    error = given.error(expected, planc.apply(plan, ready, validate=False))
    counts = np.array([sum(map(len, units)) for units in (made, dead, found, removed)])
    return counts, error


def _superfluous(
    given: Case,
    model: nn.Module,
    analysis: Analysis,
    made: list[np.ndarray],
    expected: list[torch.Tensor],
) -> Iterator[np.ndarray]:
    """The units of each group if the output does not notice that they are zero all over."""
    for group, units in zip(analysis.groups, made, strict=True):
        masked = copy.deepcopy(model)
        for member in group.members if len(units) else ():
            zero(masked, member, units)
        unnoticed = len(units) and given.error(expected, masked) < EXACT
        yield units if unnoticed else np.array([], dtype=int)


def _leaves(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested results."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)


if __name__ == "__main__":
    sys.exit(main())
