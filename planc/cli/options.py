"""The options that several commands share, and how their texts are read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error: the message on standard error says what and where
  2    the command line could not be understood
  3    diff: the plans differ
  4    verify: the smaller model is not what the plan promises
  130  interrupted
"""
IMAGE = "1x3x224x224"
FILE = click.Path(path_type=Path)
_CALIBRATED = ("taylor", "obd", "obd_c", "activation", "apoz", "variance", "wanda")
CRITERIA = ("l2", "l1", "random", "batch_norm", "fpgm", "lamp", *_CALIBRATED)

_LARGE = {"k": 10**3, "M": 10**6, "G": 10**9}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def pairs(read: Callable[[str], Any]) -> Callable[..., tuple[tuple[str, Any], ...]]:
    """A click callback: each ``key=value`` as a pair, the value read by ``read``."""

    def split(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> Any:
        result = []
        for text in texts:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise click.BadParameter(f"{text!r}: write {param.metavar}", ctx, param)
            try:
                result.append((key, read(value)))
            except ValueError as error:
                raise click.BadParameter(f"{text!r}: {error}", ctx, param) from None
        return tuple(result)

    return split


def literal(text: str) -> Any:
    """A Python literal, or the text itself where it is none: a bare word is a string.

    >>> literal("(3, 3)"), literal("relu")
    ((3, 3), 'relu')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def amount(text: str) -> int | float:
    """A budget as it is written: a whole number is a figure, anything else a share.

    >>> amount("0.5"), amount("2_000_000"), amount("1.5G"), amount("40%")
    (0.5, 2000000, 1500000000, 0.4)
    """
    if text.endswith("%"):
        return float(text[:-1]) / 100
    if text[-1:] in _LARGE:
        return round(float(text[:-1]) * _LARGE[text[-1]])
    return int(text) if text.replace("_", "").isdecimal() else float(text)


def budget_options(command: _Command) -> _Command:
    """The options that bound what the pruned model costs."""
    for name, what in (("bytes", "bytes"), ("params", "parameters"), ("macs", "MACs")):
        command = click.option(
            f"--{name}",
            callback=_amount,
            metavar="AMOUNT",
            help=f"Most {what}, instead of a ratio: 0.5 or 50% for half, 2000000 or 2M.",
        )(command)
    return command


def _amount(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    try:
        return None if text is None else amount(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write a share as 0.5 or 50%, or a figure as 2000000 or 2M", ctx, param
        ) from None


def model_options(command: _Command) -> _Command:
    """The options of each command that builds a model."""
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
    for option in reversed(options):
        command = option(command)
    return command


def shape(text: str) -> tuple[str, tuple[int, ...], str]:
    """The specification of a tensor (see :mod:`planc.inputs`) written as sizes and a dtype.

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


def input_option(default: str) -> Callable[[_Command], _Command]:
    """The option for example inputs; ``default`` says what is taken where none is given."""
    return click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="SHAPE[:DTYPE]",
        callback=_shapes,
        help=f"A positional example input, as 2x16:int64; once for each.  [default: {default}]",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
