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
_CALIBRATED = ("taylor", "taylor_unit", "obd", "obd_c", "activation", "apoz", "variance", "wanda")
CRITERIA = ("l2", "l1", "random", "batch_norm", "fpgm", "lamp", *_CALIBRATED)

_LARGE = {"k": 10**3, "M": 10**6, "G": 10**9}
_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}

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


def duration(text: str) -> int | float:
    """A latency as it is written: with a unit of time a figure, else as :func:`amount` has it.

    >>> duration("12ms"), duration("1.5s"), duration("800us"), duration("0.5")
    (12000000, 1500000000, 800000, 0.5)
    """
    for unit, nanoseconds in _TIMES.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * nanoseconds)
    return amount(text)


def budget_options(command: _Command) -> _Command:
    """The options that bound what the pruned model costs."""
    for option in (
        click.option(
            "--machine",
            metavar="NAME",
            help="The machine that the latency table was measured on, where it is another one.",
        ),
        click.option(
            "--latency-table",
            type=FILE,
            metavar="FILE",
            help="What planc measure wrote, for --latency.",
        ),
        click.option(
            "--latency",
            callback=_read(duration, "write a share as 0.5 or 50%, or a time as 12ms or 800us"),
            metavar="TIME",
            help="Most time of a run, by --latency-table: 0.5 or 50% for half, 12ms.",
        ),
    ):
        command = option(command)
    for name, what in (("bytes", "bytes"), ("params", "parameters"), ("macs", "MACs")):
        command = click.option(
            f"--{name}",
            callback=_read(amount, "write a share as 0.5 or 50%, or a figure as 2000000 or 2M"),
            metavar="AMOUNT",
            help=f"Most {what}, instead of a ratio: 0.5 or 50% for half, 2000000 or 2M.",
        )(command)
    return command


def _read(read: Callable[[str], Any], advice: str) -> Callable[..., Any]:
    """A click callback for one optional value."""

    def value(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except ValueError:
            raise click.BadParameter(f"{text!r}: {advice}", ctx, param) from None

    return value


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
    """The specification of a tensor (see :mod:`planc.specification`) written as sizes and a dtype.

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


def output_option(help: str, required: bool = False) -> Callable[[_Command], _Command]:
    """The option for the file that a command writes."""
    return click.option("-o", "--output", type=FILE, metavar="FILE", required=required, help=help)


def weights_output_option(help: str) -> Callable[[_Command], _Command]:
    """The option for the weights that a command writes, and whether they replace others."""

    def both(command: _Command) -> _Command:
        command = click.option(
            "--overwrite", is_flag=True, help="Replace directories that are there already."
        )(command)
        names = ("-o", "--output", "--out")
        return click.option(*names, type=FILE, metavar="PATH", required=True, help=help)(command)

    return both


def ratio_option(help: str) -> Callable[[_Command], _Command]:
    """The option for the share of something that goes."""
    return click.option("--ratio", type=click.FloatRange(0, 1, max_open=True), help=help)


def repeatable(
    name: str,
    metavar: str,
    help: str,
    to: str | None = None,
    read: Callable[[str], Any] | None = None,
) -> Callable[[_Command], _Command]:
    """An option that may be given more than once, with ``read`` each time as ``key=value``."""
    names = (name,) if to is None else (name, to)
    callback = None if read is None else pairs(read)
    help = f"{help}; repeatable."
    return click.option(*names, multiple=True, metavar=metavar, callback=callback, help=help)


def name_options(what: str) -> Callable[[_Command], _Command]:
    """The options that say by name what stays whole, and what alone is touched."""

    def both(command: _Command) -> _Command:
        command = repeatable("--only", "PATTERN", f"Prune {what} of this name only")(command)
        return repeatable("--keep", "PATTERN", f"Leave {what} of this name whole")(command)

    return both


def n_of_m(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """A click callback: "2:4" as two numbers."""
    if text is None:
        return None
    n, colon, m = text.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal()):
        raise click.BadParameter(f"{text!r}: write 2:4, for two of four that stay", ctx, param)
    return int(n), int(m)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
