"""The values of a recorded run: placeholders for the model's tensors, and known contents.

A value is identified by the tensor computed in the run. On meta and fake tensors it has a shape and
a dtype but no content.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from planc.ir.expressions import Number, Scalar, Size
from planc.ir.graph import Ref, Value
from planc.modules.tree import described_value
from planc.trace.memory import Memory
from planc.trace.numbers import noted

CPU = torch.device("cpu")
Kind = Literal["meta", "fake", "real"]
_OUR_REFERENCES = 3  # the list of live tensors, the loop variable, the argument
_CONSTANT_LIMIT = 1 << 20  # elements; larger constants are not kept as data
_NUMBERS = 64  # elements; larger tensors are not searched for sizes


class RunValues:
    """The values of one run on tensors of one kind, in the order of their appearance."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.fake_mode = _fake_mode() if kind == "fake" else None
        self.described: list[Value] = []
        self.captured: dict[int, torch.Tensor] = {}
        self.numbers: dict[int, tuple[Number, ...]] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.ids: dict[int, int] = {}  # by the id of the tensor
        self.returned: set[int] = set()  # captured, possibly from departed values
        self.open = False  # True once a value departed
        self.memory = Memory() if kind == "real" else None
        self._constant: set[int] = set()
        self._originals: dict[int, torch.Tensor] = {}  # by the id of the stand-in
        self._alive: list[torch.Tensor] = []  # ids stay unique while their objects live

    def stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The replacement of a tensor of the model during the run."""
        floating = tensor.is_floating_point() or tensor.is_complex()
        if self.kind == "real" or not (floating or tensor.is_meta):
            kept = tensor.detach()
            if not isinstance(tensor, nn.Parameter):
                kept = kept.clone()
        else:
            kept = self.placeholder(tensor)
        if isinstance(tensor, nn.Parameter):
            kept = nn.Parameter(kept, requires_grad=tensor.requires_grad)
        self._originals[id(kept)] = tensor
        self.keep(kept)
        return kept

    def placeholder(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor without content: meta, or fake over meta."""
        if self.kind == "meta" and tensor.layout is not torch.strided:
            raise NotImplementedError(f"there are no operators for {tensor.layout} on meta tensors")
        shape, stride, dtype = tensor.shape, tensor.stride(), tensor.dtype
        meta = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        if self.fake_mode is None:
            return meta
        return FakeTensor(self.fake_mode, meta, CPU if tensor.is_meta else tensor.device)

    def layout_of(self, tensor: torch.Tensor) -> str:
        """The layout of the model's tensor represented by ``tensor``, as named by torch."""
        return str(self._originals.get(id(tensor), tensor).layout).removeprefix("torch.")

    def keep(self, tensor: torch.Tensor) -> None:
        """Keep a tensor alive until the end of the run, so its id stays unique."""
        self._alive.append(tensor)

    def new(self, tensor: torch.Tensor, constant: bool) -> int:
        """A new value; ``constant`` marks it independent of inputs and parameters."""
        value = len(self.described)
        self.described.append(described_value(tensor, value))
        self.ids[id(tensor)] = value
        self.keep(tensor)
        if self.memory is not None:
            self.memory.add(tensor, value)
        if constant:
            self._constant.add(value)
            small = tensor.numel() <= _CONSTANT_LIMIT
            integral = not (tensor.is_floating_point() or tensor.is_complex())
            strided = tensor.layout is torch.strided
            if small and integral and strided and not is_empty(tensor):
                with torch._C.DisableTorchFunction():
                    self.constants[value] = tensor.detach().cpu().numpy().copy()
        return value

    def ref(self, tensor: torch.Tensor, numbers: Iterable[Any] | None) -> Ref:
        """The value of a tensor; an unknown one is captured from outside the module tree, or from
        an attribute of a module.

        A captured tensor is compared with ``numbers``, those of the current operator.
        """
        value = self.ids.get(id(tensor))
        if value is None:
            made = self.open and id(tensor) not in self._originals
            value = self.new(tensor, constant=not made)
            if made:
                self.returned.add(value)
            self.captured[value] = self._originals.get(id(tensor), tensor).detach()
            if numbers is not None and 0 < tensor.numel() <= _NUMBERS and not is_empty(tensor):
                self._note_numbers(value, tensor, numbers)
        return Ref(value)

    def sharing(self, tensor: torch.Tensor) -> list[int]:
        """The values sharing memory with a tensor of unknown origin."""
        if self.memory is None or id(tensor) in self.ids:
            return []
        return list(self.memory.sharing(tensor))

    def is_known(self, tensor: torch.Tensor) -> bool:
        """True if a tensor is a constant value with content."""
        return self.ids[id(tensor)] in self._constant and not is_empty(tensor)

    def held(self) -> list[int]:
        """The values referenced by running code, and so possibly read later."""
        return [
            self.ids[id(tensor)]
            for tensor in self._alive
            if sys.getrefcount(tensor) > _OUR_REFERENCES and id(tensor) in self.ids
        ]

    def all_constant(self, tensors: Iterable[torch.Tensor]) -> bool:
        """True if all tensors are independent of inputs and parameters."""
        return all(self.ids[id(tensor)] in self._constant for tensor in tensors)

    def _note_numbers(self, value: int, tensor: torch.Tensor, numbers: Iterable[Any]) -> None:
        """Note the provenance of a tensor made of numbers, such as ``torch.tensor(x.shape)``."""
        rest = list(numbers)
        for i in range(len(rest) - tensor.numel() + 1):
            made = tuple(rest[i : i + tensor.numel()])
            if any(isinstance(n, Size | Scalar) for n in made) and holds(tensor, made):
                self.numbers[value] = tuple(map(noted, made))
                return


def holds(tensor: torch.Tensor, numbers: tuple[Number, ...]) -> bool:
    """True if the elements of a tensor equal ``numbers``, in its precision."""
    floating = tensor.is_floating_point()
    allowed = torch.finfo(tensor.dtype).eps if floating else 0.0
    content = tensor.reshape(-1).tolist()
    return (
        not tensor.is_complex()
        and len(content) == len(numbers)
        and all(
            math.isclose(number, held, rel_tol=allowed)
            for number, held in zip(numbers, content, strict=True)
        )
    )


def _fake_mode() -> FakeTensorMode:
    """A mode with fake tensors without an address: code reading their memory fails, and runs on
    real ones.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    mode._allow_unsafe_data_ptr_access = False
    return mode


def is_empty(tensor: torch.Tensor) -> bool:
    """True if a tensor has no content."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def on_meta(argument: Any) -> Any:
    """An operator's argument moved to the meta device: constants and devices."""
    if isinstance(argument, torch.Tensor) and not argument.is_meta:
        return torch.empty_strided(
            argument.shape, argument.stride(), dtype=argument.dtype, device="meta"
        )
    return torch.device("meta") if isinstance(argument, torch.device) else argument
