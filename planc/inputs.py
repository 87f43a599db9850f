"""Specifications of example inputs: the arguments of a model in, nested tuples of plain data out,
and arguments made from them again.

A specification is one of ::

    ("tensor", shape, dtype)            ("value", None | bool | int | float | str)
    ("tuple", item, ...)                ("list", item, ...)
    ("dict", (key, item), ...)          ("opaque", type name)

and at the top ``("tuple", ("tuple", *args), ("dict", *kwargs))``. What is none of the others is
opaque: it can be named, not made again. A plan carries one, so that what it predicts can be
checked where the inputs it was compiled with are not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from planc.errors import PlancError

Spec = tuple[Any, ...]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in map(vars(torch).get, dir(torch))
    if isinstance(dtype, torch.dtype)
}
_LARGEST = 1 << 32  # bytes of one input that is made up from a specification


def specify(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Spec:
    """The specification of the arguments of one call."""
    return ("tuple", _specify(tuple(args)), _specify(dict(kwargs)))


def materialise(
    spec: Spec, device: str | torch.device = "cpu", seed: int = 0
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments that meet a specification: ``model(*args, **kwargs)``.

    Floating-point tensors are standard normal, the same ones for the same seed on every device;
    integer tensors are zeros (valid as indices everywhere), boolean ones all true.

    Args:
        spec: what :func:`specify` returned.
        device: where the tensors are made; on ``"meta"`` they have shapes only.
        seed: seed of the random numbers.

    Raises:
        PlancError: a part is opaque, malformed, or too large to be made up.
    """
    if not _is_call(spec):
        raise PlancError(f"not the specification of a call's inputs: {_short(spec)}")
    maker = _Maker(torch.device(device), torch.Generator().manual_seed(seed))
    args = maker.make(spec[1], "args")
    kwargs = maker.make(spec[2], "kwargs")
    return args, kwargs


def _specify(value: Any) -> Spec:
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        shape = tuple(int(size) for size in value.shape)
        return ("tensor", shape, str(value.dtype).removeprefix("torch."))
    if type(value) is tuple or type(value) is torch.Size:
        return ("tuple", *map(_specify, value))
    if type(value) is list:
        return ("list", *map(_specify, value))
    if type(value) is dict and all(type(key) is str for key in value):
        return ("dict", *((key, _specify(item)) for key, item in value.items()))
    if _is_value(value):
        return ("value", value)
    return ("opaque", type(value).__name__)


def _is_value(value: Any) -> bool:
    """Whether a plan file can hold ``value`` such that what is read equals what was written."""
    if type(value) is int:
        return -(1 << 63) <= value < 1 << 63
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, str)


def _is_call(spec: Any) -> bool:
    return (
        isinstance(spec, tuple)
        and len(spec) == 3
        and spec[0] == "tuple"
        and all(isinstance(part, tuple) and part for part in spec[1:])
        and (spec[1][0], spec[2][0]) == ("tuple", "dict")
    )


class _Maker:
    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self.device = device
        self.generator = generator

    def make(self, spec: Any, path: str) -> Any:
        match spec:
            case ("tensor", tuple(shape), str(dtype)):
                return self.tensor(shape, dtype, path)
            case ("tuple", *items):
                return tuple(self.make(item, f"{path}[{i}]") for i, item in enumerate(items))
            case ("list", *items):
                return [self.make(item, f"{path}[{i}]") for i, item in enumerate(items)]
            case ("dict", *items) if all(_is_item(item) for item in items):
                return {key: self.make(item, f"{path}[{key!r}]") for key, item in items}
            case ("value", value) if _is_value(value):
                return value
            case ("opaque", str(name)):
                raise PlancError(
                    f"{path} is a {name}, which a specification of inputs cannot make again: "
                    "give the inputs"
                )
        raise PlancError(f"{path}: not a specification of an input: {_short(spec)}")

    def tensor(self, shape: tuple[Any, ...], name: str, path: str) -> torch.Tensor:
        dtype = _DTYPES.get(name)
        if dtype is None or not all(type(size) is int and size >= 0 for size in shape):
            raise PlancError(f"{path}: no tensor of shape {shape} and type {name!r} exists")
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        if math.prod(shape) * dtype.itemsize > _LARGEST:
            raise PlancError(
                f"{path} is a tensor of {shape} {name}, more than {_LARGEST >> 30} GiB: "
                "give the inputs"
            )
        if dtype is torch.bool:
            return torch.ones(shape, dtype=dtype, device=self.device)
        if not (dtype.is_floating_point or dtype.is_complex):
            return torch.zeros(shape, dtype=dtype, device=self.device)
        # drawn on the CPU in a type that has a normal distribution, then converted
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        if dtype.is_complex:
            wide = torch.complex128 if dtype is torch.complex128 else torch.complex64
        drawn = torch.randn(shape, generator=self.generator, dtype=wide, device="cpu")
        return drawn.to(device=self.device, dtype=dtype)


def _is_item(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and type(item[0]) is str


def _short(spec: Any) -> str:
    text = repr(spec)
    return text if len(text) <= 80 else text[:77] + "..."
