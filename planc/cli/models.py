"""Models on the command line: the options that describe one, its module and its inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli.options import FILE, Command, literal, pairs
from planc.cli.terminal import status
from planc.errors import PlancError

if TYPE_CHECKING:
    import torch
    from torch import nn

Shape = tuple[str, tuple[int, ...], str]
IMAGE = "1x3x224x224"


@dataclass(frozen=True, slots=True)
class Given:
    """The values of :func:`model_options` and :func:`input_option`."""

    settings: tuple[tuple[str, Any], ...]
    weights: Path | None
    seed: int
    inputs: tuple[Shape, ...] = ()

    def build(self, model: str, device: str = "cpu") -> nn.Module:
        """Build ``model`` with the given weights; on "meta", no weights are read."""
        from planc.cli.named import assign_weights, load_model, read_weights

        if "" not in sys.path:
            sys.path.insert(0, "")  # like `python -m`, for package.module:factory
        stored = None
        if self.weights is not None and device != "meta":
            stored = read_weights(self.weights)
        with status(f"building {model}"):
            built = load_model(model, dict(self.settings), self.seed, device)
        if stored is not None:
            assign_weights(built, stored, str(self.weights))
        return built

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Return random example inputs of the given shapes, by default an image."""
        from planc.modules.inputs import materialise

        items = self.inputs or (shape(IMAGE),)
        args, _ = materialise(("tuple", ("tuple", *items), ("dict",)), seed=self.seed)
        return args


def model_options(command: Command) -> Callable[..., Any]:
    """Add the options of a command that builds a model, passed to it as ``given``."""

    @wraps(command)
    def collected(
        settings: tuple[tuple[str, Any], ...],
        weights: Path | None,
        seed: int,
        inputs: tuple[Shape, ...] = (),
        **options: Any,
    ) -> Any:
        return command(given=Given(settings, weights, seed, inputs), **options)

    options = (
        click.option(
            "--set",
            "settings",
            multiple=True,
            callback=pairs(literal),
            metavar="KEY=VALUE",
            help="A keyword argument of MODEL, a Python literal; may be repeated.",
        ),
        click.option(
            "--weights", type=FILE, metavar="FILE", help="Weights of MODEL, a safetensors file."
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Of random weights (where none are given), inputs and scores.",
        ),
    )
    result: Callable[..., Any] = collected
    for option in reversed(options):
        result = option(result)
    return result


def shape(text: str) -> Shape:
    """Parse sizes and a dtype as a tensor's :mod:`planc.plan.specification`.

    >>> shape("2x16:int64")
    ('tensor', (2, 16), 'int64')
    """
    sizes, _, dtype = text.partition(":")
    if not all(size.isdecimal() for size in sizes.split("x")):
        raise ValueError(f"{text!r}: write sizes with x between, as 1x3x224x224 or 2x16:int64")
    return "tensor", tuple(map(int, sizes.split("x"))), dtype or "float32"


def _shapes(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> Any:
    try:
        return tuple(map(shape, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def input_option(default: str) -> Callable[[Command], Command]:
    """Return the option for example inputs; ``default`` describes the inputs taken without it."""
    return click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SHAPE[:DTYPE]",
        callback=_shapes,
        help=f"A positional example input, as 2x16:int64; once for each.  [default: {default}]",
    )


def on_device(
    model: nn.Module, args: tuple[torch.Tensor, ...], device: str
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Move a model and its inputs to a device.

    Raises:
        PlancError: there is no such device.
    """
    try:
        return model.to(device), tuple(arg.to(device) for arg in args)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise PlancError(f"--device {device}: {first}; name one that torch has here") from None
