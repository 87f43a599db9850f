"""The model that a command line names, and the inputs it is traced with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planc.cli.options import IMAGE, shape
from planc.cli.terminal import status
from planc.errors import PlancError

if TYPE_CHECKING:
    import torch
    from torch import nn

Settings = tuple[tuple[str, Any], ...]
Shapes = tuple[tuple[str, tuple[int, ...], str], ...]


def build(
    model: str,
    settings: tuple[tuple[str, Any], ...],
    seed: int,
    weights: Path | None,
    device: str = "cpu",
) -> nn.Module:
    """The model of the command line, with the weights of a file if one is given."""
    from planc.cli.named import assign_weights, load_model, read_weights

    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does, for package.module:factory
    stored = None if weights is None else read_weights(weights)
    with status(f"building {model}"):
        built = load_model(model, dict(settings), seed, device)
    if stored is not None:
        assign_weights(built, stored, str(weights))
    return built


def example_inputs(inputs: Shapes, seed: int) -> tuple[torch.Tensor, ...]:
    """Random example inputs of those shapes; an image where none are given."""
    from planc.modules.inputs import materialise

    items = inputs or (shape(IMAGE),)
    args, _ = materialise(("tuple", ("tuple", *items), ("dict",)), seed=seed)
    return args


def on_device(
    model: nn.Module, args: tuple[torch.Tensor, ...], device: str
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The model and its inputs where they are to run.

    Raises:
        PlancError: there is no such device.
    """
    try:
        return model.to(device), tuple(arg.to(device) for arg in args)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise PlancError(f"--device {device}: {first}; name one that torch has here") from None
