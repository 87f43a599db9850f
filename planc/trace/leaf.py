"""Leaves: modules recorded as one node, because a rule is registered for their class.

The module's tensors and attributes become keyword arguments under the names of its rule. Its result
is computed out of sight of planc's modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from planc.errors import TraceError
from planc.ir.expressions import Attribute, Size
from planc.modules.nesting import as_sequence
from planc.modules.tree import owned_tensors
from planc.rules import leaf


class NeedsValues(Exception):
    """The run needs tensors with content."""


def leaves_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules of ``model`` with a rule, and their paths."""
    inside: list[str] = []
    for path, module in model.named_modules():
        if not any(path.startswith(outer) for outer in inside) and leaf(type(module)) is not None:
            inside.append(f"{path}." if path else "")
            yield path, module


def named_operands(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a leaf, by their names in its rule."""
    return {
        name.replace(".", "_"): owned.tensor
        for owned in owned_tensors(module)
        for name in owned.names
    }


def named_sizes(path: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The integer attributes of a leaf, each with its provenance."""

    def size(value: Any, name: str, index: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            return tuple(size(item, name, (*index, i)) for i, item in enumerate(value))
        return Size(value, Attribute(path, name, value, index)) if type(value) is int else value

    return {
        name: size(value, name, ())
        for name, value in attributes.items()
        if type(value) in (int, tuple)
    }


def call(
    module: nn.Module, forward: Any, empty: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of a leaf for arguments with content, or for ``empty`` ones.

    Raises:
        NeedsValues: the arguments are empty, and its rule has no function for the result's shapes.
        TraceError: it returns anything but tensors.
    """
    found = leaf(type(module))
    assert found is not None
    if empty and found.meta is None:
        raise NeedsValues
    with _unseen():
        result = found.meta(module, *args, **kwargs) if empty and found.meta else None
        if not empty:
            result = forward(*args, **kwargs)
    if not all(isinstance(item, torch.Tensor) for item in as_sequence(result)):
        raise TraceError(
            f"{type(module).__name__} has a rule, and returns {type(result).__name__}: "
            "a leaf returns a tensor, or a tuple of tensors"
        )
    return result


@contextmanager
def _unseen() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch._C.DisableTorchFunction())
        yield
