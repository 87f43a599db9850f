"""The state of an optimizer as plain data and tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from planc.errors import PlancError
from planc.files.checkpoint.contents import Content, content_of
from planc.files.checkpoint.values import encoded

OPTIMIZER = "planc.optimizer"  # key of the optimizer's numbers in the record's metadata
_AGAIN = "make an optimizer of the parameters of the model that is saved, or save its state apart"


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Check that the parameters of an optimizer, and those in its state, are the model's.

    Raises:
        PlancError: one is not, such as a parameter of the unpruned model; names the first.
    """
    own = {id(parameter) for parameter in model.parameters()}
    for where, parameter in _parameters(optimizer):
        if id(parameter) not in own:
            raise PlancError(
                f"optimizer: {where}, of shape {tuple(parameter.shape)}, is none of the model's "
                f"{len(own)} parameters; {_AGAIN}"
            )


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    listed = set()
    for number, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or []
        for i, parameter in enumerate(group["params"]):
            named = f" ({names[i]})" if i < len(names) else ""
            listed.add(id(parameter))
            yield f"parameter {i}{named} of group {number}", parameter
    for key in optimizer.state:
        if isinstance(key, torch.Tensor) and id(key) not in listed:
            yield "a parameter in its state, but in none of its groups", key


def optimizer_contents(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> tuple[Any, list[Content]]:
    """Return the optimizer's state as plain data with names in place of tensors, and the tensors.

    Raises:
        PlancError: a parameter is not the model's, or part of the state is not plain data.
    """
    check_optimizer(optimizer, model)
    tensors: list[Content] = []

    def without_tensors(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(content_of(value, (path,), "optimizer"))
            return ("type", path)
        if type(value) is dict:
            pairs = ((encoded(k), without_tensors(v, f"{path}/{k}")) for k, v in value.items())
            return ("dict", *pairs)
        if type(value) in (list, tuple):
            items = (without_tensors(v, f"{path}/{i}") for i, v in enumerate(value))
            return (type(value).__name__, *items)
        plain = encoded(value)
        if isinstance(plain, tuple) and plain[0] == "type":
            raise PlancError(f"{path}: a {plain[1]} is no plain data, cannot be saved")
        return plain

    return without_tensors(optimizer.state_dict(), "optimizer"), tensors
