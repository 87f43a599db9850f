"""A pruned random program beside its masked original, its results taken out of their containers by
the program itself: at other values and sizes, and where an early exit is taken; and its plan,
whatever ran before.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

import planc
from planc.files.formats import encode_plan
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan
from tests.programs import Program, write
from tests.programs.borders import exiting, unpacked

Call = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]
_TOLERANCE = 1e-9


def beside_masked(
    plan: Plan, program: Program, model: nn.Module, smaller: nn.Module, call: Call, by_values: bool
) -> None:
    """Compares a pruned model with the masked one on other inputs, unless these decide which
    operators run (``by_values``), and at other sizes; shapes alone where it mixes.

    Raises:
        AssertionError: they differ.
    """
    args, kwargs = call
    mixing = any(group.mixing and group.removed for group in plan.groups)
    masked = planc.mask(plan, model)
    if not by_values:
        for shift in range(1, 4):
            _same(smaller, masked, (_shifted(args, shift), kwargs), mixing)
    if plan.target == "module":
        for other in _other_sizes(args):
            _same_or_bound(smaller, masked, (other, kwargs), mixing, program)
        if not mixing and exiting(smaller) and exiting(masked):  # what mixes may not be a number
            _same(smaller, masked, call, mixing)


def plan_of_any_history(program: Program, model: nn.Module, call: Call) -> None:
    """Compiles a model, another one of the same program, and the first again once it has run.

    Raises:
        AssertionError: the plans are not the same bytes.
    """
    fresh = encode_plan(planc.compile(model, *call, ratio=0.5))
    other = program.model().double()
    planc.compile(other, *call, ratio=0.25)
    with torch.no_grad():
        model(*call[0], **call[1])
    assert encode_plan(planc.compile(model, *call, ratio=0.5)) == fresh, "the plan of a used model"


def _same_or_bound(
    smaller: nn.Module, masked: nn.Module, call: Call, mixing: bool, program: Program
) -> None:
    try:
        _same(smaller, masked, call, mixing)
    except AssertionError:
        if _free(program, call[0]):
            raise


def _same(smaller: nn.Module, masked: nn.Module, call: Call, mixing: bool) -> None:
    expected = _results(masked, call)
    if expected is None:
        return
    found = _results(smaller, call)
    assert found is not None, f"the pruned model does not run on {_sizes(call)}"
    shapes = [[tuple(tensor.shape) for tensor in side] for side in (found, expected)]
    assert shapes[0] == shapes[1], f"on {_sizes(call)} shapes {shapes[0]}, masked {shapes[1]}"
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        finite = b[b.isfinite()].abs()
        scale = max(float(finite.max()), 1.0) if finite.numel() else 1.0
        close = torch.allclose(a, b, _TOLERANCE, scale * _TOLERANCE, equal_nan=True)
        assert mixing or close, f"on {_sizes(call)} output {i} differs from the masked model's"


def _results(model: nn.Module, call: Call) -> list[torch.Tensor] | None:
    """The results of a run, None where the model does not take the inputs."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return unpacked(model(*call[0], **call[1]))
    except (RuntimeError, IndexError, ValueError):
        return None


def _shifted(args: tuple[torch.Tensor, ...], shift: int) -> tuple[torch.Tensor, ...]:
    return tuple(a.flip(0).roll(shift, -1) for a in args)


def _other_sizes(args: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs with a larger batch, and longer and shorter ones."""
    (x,) = args
    yield (torch.cat([x, x.flip(-1)[:1]]),)
    yield (torch.cat([x, x[..., :1].flip(0)], -1),)
    yield (x[..., :-1],)


def _free(program: Program, other: tuple[torch.Tensor, ...]) -> bool:
    """Whether the layers of a program have the same groups with other inputs: one may call a number
    what is the size of an input.
    """
    layers = write(program.seed, program.length)
    try:
        digests = [_groups(layers.model(), args) for args in (layers.inputs(), other)]
    except planc.PlancError:
        return False
    return digests[0] == digests[1]


def _groups(model: nn.Module, args: tuple[torch.Tensor, ...]) -> bytes:
    return structure_digest(planc.analyze(planc.trace(model, args)).groups)


def _sizes(call: Call) -> str:
    return ", ".join("x".join(map(str, a.shape)) for a in call[0])
