"""Example inputs: the arguments of a call, their specification, and arguments made from it.

The forms of a specification are in :mod:`planc.plan.specification`. An argument of another kind is
opaque: it has a name but cannot be made again. A plan carries a specification, so its predictions
can be checked without the original inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from planc.errors import PlancError, TraceError
from planc.plan.specification import INTEGERS, MOST_OF_ALL, MOST_OF_ONE, Spec, is_value

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in map(vars(torch).get, dir(torch))
    if isinstance(dtype, torch.dtype)
}
_LARGEST = 1 << 32  # bytes of one input made from a specification


def as_call(
    args: Any = None, kwargs: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of one call in normal form: a tuple and a dict.

    Args:
        args: the positional arguments in a tuple or a list, or a single one; None for none.
        kwargs: the keyword arguments.

    Raises:
        TraceError: ``kwargs`` is not a mapping from names; an argument is a nested tensor.
    """
    if kwargs is None:
        kwargs = {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TraceError(
            f"kwargs is of type {type(kwargs).__name__}: give a mapping from the names of "
            "arguments to their values"
        )
    if args is None:
        args = ()
    if not isinstance(args, tuple):
        args = tuple(args) if isinstance(args, list) else (args,)
    given = {**{f"args[{i}]": arg for i, arg in enumerate(args)}, **kwargs}
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.is_nested:
            raise TraceError(
                f"{name} is a nested tensor, whose sizes differ from row to row: pad it, as "
                "torch.nested.to_padded_tensor does, and give the lengths or a mask"
            )
    return args, dict(kwargs)


def specify(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Spec:
    """The specification of the arguments of one call, small integer tensors by value."""
    writer = _Writer()
    return ("tuple", writer.form(tuple(args)), writer.form(dict(kwargs)))


def materialise(
    spec: Spec,
    device: str | torch.device = "cpu",
    seed: int = 0,
    types: Sequence[torch.dtype] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments matching a specification, for ``model(*args, **kwargs)``.

    Floating-point tensors are standard normal, equal for equal seeds on every device. Integer
    tensors have their recorded values, if there are any. Other integer tensors are zeros, valid
    indices everywhere; booleans are all True.

    Args:
        spec: the result of :func:`specify`.
        device: the device of the tensors; on ``"meta"`` they have shapes only.
        seed: seed of the random numbers.
        types: floating-point types of the model. A tensor of another type is made in the first.

    Raises:
        PlancError: a part is opaque, malformed, or too large to create.
    """
    if not _is_call(spec):
        raise PlancError(f"not the specification of a call's inputs: {_short(spec)}")
    maker = _Maker(torch.device(device), torch.Generator().manual_seed(seed), types)
    args = maker.make(spec[1], "args")
    kwargs = maker.make(spec[2], "kwargs")
    return args, kwargs


@dataclass
class _Writer:
    """Specifications of the parts of one call, with a shared bound on values."""

    left: int = MOST_OF_ALL

    def form(self, value: Any) -> Spec:
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            return self.tensor(value)
        if type(value) is tuple or type(value) is torch.Size:
            return ("tuple", *map(self.form, value))
        if type(value) is list:
            return ("list", *map(self.form, value))
        if type(value) is dict and all(type(key) is str for key in value):
            return ("dict", *((key, self.form(item)) for key, item in value.items()))
        if is_value(value):
            return ("value", value)
        return ("opaque", type(value).__name__)

    def tensor(self, tensor: torch.Tensor) -> Spec:
        dtype = str(tensor.dtype).removeprefix("torch.")
        spec = ("tensor", tuple(int(size) for size in tensor.shape), dtype)
        if dtype not in INTEGERS or tensor.is_meta or isinstance(tensor, FakeTensor):
            return spec
        if not 0 < tensor.numel() <= min(MOST_OF_ONE, self.left):
            return spec
        values = tuple(tensor.detach().reshape(-1).tolist())
        if values == (dtype == "bool",) * len(values):  # equal to the default values
            return spec
        self.left -= len(values)
        return (*spec, values)


def _is_call(spec: Any) -> bool:
    return (
        isinstance(spec, tuple)
        and len(spec) == 3
        and spec[0] == "tuple"
        and all(isinstance(part, tuple) and part for part in spec[1:])
        and (spec[1][0], spec[2][0]) == ("tuple", "dict")
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    device: torch.device
    generator: torch.Generator
    types: Sequence[torch.dtype]

    def make(self, spec: Any, path: str) -> Any:
        match spec:
            case ("tensor", tuple(shape), str(dtype)):
                return self.tensor(shape, dtype, path)
            case ("tensor", tuple(shape), str(dtype), tuple(values)) if dtype in INTEGERS:
                return self.kept(shape, dtype, values, path)
            case ("tuple", *items):
                return tuple(self.make(item, f"{path}[{i}]") for i, item in enumerate(items))
            case ("list", *items):
                return [self.make(item, f"{path}[{i}]") for i, item in enumerate(items)]
            case ("dict", *items) if all(_is_item(item) for item in items):
                return {key: self.make(item, f"{path}[{key!r}]") for key, item in items}
            case ("value", value) if is_value(value):
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
        if dtype.is_floating_point and self.types and dtype not in self.types:
            dtype = self.types[0]
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
        # drawn on the CPU in a type with a normal distribution, then converted
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        if dtype.is_complex:
            wide = torch.complex128 if dtype is torch.complex128 else torch.complex64
        drawn = torch.randn(shape, generator=self.generator, dtype=wide, device="cpu")
        return drawn.to(device=self.device, dtype=dtype)

    def kept(
        self, shape: tuple[Any, ...], name: str, values: tuple[Any, ...], path: str
    ) -> torch.Tensor:
        made = self.tensor(shape, name, path)
        if len(values) != made.numel() or not all(value in INTEGERS[name] for value in values):
            raise PlancError(f"{path}: {len(values)} values do not fit {name} of shape {shape}")
        if made.is_meta:
            return made
        return torch.tensor(values, dtype=made.dtype, device=self.device).reshape(shape)


def _is_item(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and type(item[0]) is str


def _short(spec: Any) -> str:
    text = repr(spec)
    return text if len(text) <= 80 else text[:77] + "..."
