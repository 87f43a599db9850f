"""Generate ``planc/rules/elementwise.tsv``: the behaviour at zero of torch's pointwise operators.

    python -m tests.scripts.elementwise_table

Operators are those with torch's own ``pointwise`` tag and their aliases: operators without the tag
that dispatch to exactly one operator with it. Each overload is called with zero and other numbers
in place of its tensors. The columns are the kinds of the overloads with one and with two tensors:

    keep       one tensor, f(0) = 0
    lose       f is finite and not zero where all its tensors are zero
    singular   f is not finite where a tensor is zero
    add        two tensors, f(0, 0) = 0
    mul        two tensors, f(x, 0) = f(0, x) = 0
    first      two tensors, f(0, x) = 0
    div        two tensors, f(0, x) = 0, and f(x, 0) is not finite

Operators in ``BY_HAND`` depend on a number, on a third tensor or on more than the same coordinate
of their operands. Their rules are written in ``planc/rules/families/elementwise.py``.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import planc

TABLE = Path(planc.__file__).parent / "rules" / "elementwise.tsv"
BY_HAND = """
    _add_relu add addcdiv addcmul clamp clamp_max clamp_min clip div divide float_power floor_divide
    fmod frexp hardtanh lerp masked_fill max min mul multiply pow prelu remainder rrelu rsub sub
    subtract threshold true_divide where
"""
SAMPLES = (-2.0, -0.5, 0.5, 1.0, 2.0, 3.0)
WORST = ("singular", "lose", "div", "add", "first", "mul", "keep")  # of several overloads
NUMBERS = ("number", "Scalar", "float", "int")


class _Calls(TorchDispatchMode):
    """Collects the operators behind a call."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators.append(func)
        return func(*args, **(kwargs or {}))


def pointwise() -> Iterator[tuple[str, Any]]:
    """Names and overloads of torch's forward pointwise operators with a tensor as their result."""
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        results = [str(result.type) for result in schema.returns]
        backward = name.endswith("_backward") or schema.overload_name == "grad_input"
        if space != "aten" or schema.is_mutable or results != ["Tensor"] or backward:
            continue
        packet = getattr(torch.ops.aten, name, None)
        operator = getattr(packet, schema.overload_name or "default", None)
        if operator is not None and _is_pointwise(operator):
            yield name, operator


def table() -> dict[str, tuple[str, str]]:
    """For each operator not in ``BY_HAND`` its kinds with one and with two tensors, or ``-``."""
    kinds: dict[str, dict[int, set[str]]] = {}
    for name, operator in pointwise():
        if name not in BY_HAND.split():
            count = required(operator).count("Tensor")
            kinds.setdefault(name, {}).setdefault(count, set()).add(kind_of(operator))
    return {
        name: (_worst(kinds[name].get(1, set())), _worst(kinds[name].get(2, set())))
        for name in sorted(kinds)
    }


def _worst(kinds: set[str]) -> str:
    return next((kind for kind in WORST if kind in kinds), "-")


def _is_pointwise(operator: Any) -> bool:
    if torch.Tag.pointwise in operator.tags:
        return True
    types = required(operator)
    if not {"Tensor"} <= set(types) <= {"Tensor", *NUMBERS} or types.count("Tensor") > 2:
        return False
    for dtype in (torch.float64, torch.int64):
        try:
            behind = _call(operator, (0.5, 1.0), (1.0,) * 9, dtype)[1]
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        return len(behind) == 1 and torch.Tag.pointwise in behind[0].tags
    return False


def required(operator: Any) -> list[str]:
    """The types of the arguments without a default."""
    arguments = operator._schema.arguments
    return [str(a.type) for a in arguments if not a.has_default_value()]


def _call(
    operator: Any, tensors: Sequence[float], numbers: Sequence[float], dtype: torch.dtype
) -> tuple[Tensor, list[Any]]:
    """The result for such arguments, and the operators behind the call."""
    of_tensors, of_numbers = iter(tensors), iter(numbers)
    given: dict[str, Any] = {}
    for argument in operator._schema.arguments:
        if argument.has_default_value():
            continue
        if str(argument.type) == "Tensor":
            value = torch.tensor([next(of_tensors)], dtype=torch.float64).to(dtype)
        else:
            value = next(of_numbers)
            whole = str(argument.type) == "int" or not dtype.is_floating_point
            value = int(value) if whole else value
        given[argument.name] = value
    with _Calls() as calls, warnings.catch_warnings(action="ignore"):
        return operator(**given), calls.operators


def kind_of(operator: Any) -> str:
    """The behaviour at zero of an operator of one or two tensors, in the first type it accepts."""
    probe = _one if required(operator).count("Tensor") == 1 else _two
    for dtype in (torch.float64, torch.int64):
        samples = [x for x in SAMPLES if dtype.is_floating_point or x == int(x) > 0]
        try:
            return probe(operator, samples, dtype)
        except (RuntimeError, NotImplementedError):
            continue
    raise AssertionError(f"{operator} takes neither floating-point numbers nor integers")


def _value(
    operator: Any, tensors: Sequence[float], numbers: Sequence[float], dtype: torch.dtype
) -> float:
    return float(_call(operator, tensors, numbers, dtype)[0].real.item())


def _zeros(dtype: torch.dtype) -> tuple[float, ...]:
    """Masked sums may be zeros of either sign."""
    return (0.0, -0.0) if dtype.is_floating_point else (0.0,)


def _one(operator: Any, samples: list[float], dtype: torch.dtype) -> str:
    """Numbers outside the domain are skipped: shifts by negative ones, decimals of integers."""
    values = []
    for zero in _zeros(dtype):
        for numbers in itertools.product([0.0, *samples], repeat=len(required(operator)) - 1):
            with suppress(RuntimeError):
                values.append(_value(operator, (zero,), numbers, dtype))
    if not values:
        raise NotImplementedError(f"{operator} of {dtype}")
    if not all(map(math.isfinite, values)):
        return "singular"
    return "lose" if any(values) else "keep"


def _two(operator: Any, samples: list[float], dtype: torch.dtype) -> str:
    zeros = _zeros(dtype)

    def at(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
        return [_value(operator, (x, y), (), dtype) for x in xs for y in ys]

    positive = [x for x in samples if x > 0]  # others may be outside the domain
    both, left, right = at(zeros, zeros), at(zeros, samples), at(samples, zeros)
    tame = all(map(math.isfinite, both + at(zeros, positive) + at(positive, zeros)))
    left_zero, right_zero = (not any(filter(math.isfinite, found)) for found in (left, right))
    if not tame:
        return "div" if left_zero and all(map(math.isfinite, at(zeros, positive))) else "singular"
    if any(both):
        return "lose"
    return "mul" if left_zero and right_zero else "first" if left_zero else "add"


if __name__ == "__main__":
    rows = ["operator\tone tensor\ttwo tensors"]
    rows += ["\t".join((name, *kinds)) for name, kinds in table().items()]
    TABLE.write_text("\n".join(rows) + "\n")
