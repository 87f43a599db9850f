"""Options shared by several commands, and the parsers of their values."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

EXIT_CODES = """\b
Exit codes:
  0    done
  1    an error: the message on standard error says what and where (diff: the plans differ)
  2    the command line could not be understood (diff: or another error)
  4    verify: the smaller model is not what the plan promises
  130  interrupted
"""


class _File(click.Path):
    """A path; an empty one is a mistake, such as a variable of the shell without a value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("an empty name", param, ctx)
        return super().convert(value, param, ctx)


FILE = _File(path_type=Path)

# the names in planc.criteria and planc.compile, repeated because importing those imports torch
CALIBRATED = ("taylor", "taylor_unit", "obd", "obd_c", "activation", "apoz", "variance", "wanda")
CRITERIA = ("l2", "l1", "random", "batch_norm", "fpgm", "lamp", *CALIBRATED)
RANKINGS = ("uniform", "global", "isomorphic", "per_cost")

_LARGE = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}

Command = TypeVar("Command", bound=Callable[..., Any])

target_option = click.option(
    "--target",
    type=click.Choice(["module", "graph"]),
    default="module",
    show_default=True,
    help="Keep the model's class, or allow changes that only its rewritten graph supports.",
)
strict_option = click.option("--strict", is_flag=True, help="Fail on an operator without a rule.")


def pairs(read: Callable[[str], Any]) -> Callable[..., tuple[tuple[str, Any], ...]]:
    """Return a click callback that splits each ``key=value`` and parses the value by ``read``."""

    def split(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> Any:
        result = []
        for text in texts:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise click.BadParameter(f"{text!r}: write {param.metavar}", ctx, param)
            try:
                result.append((key, read(value)))
            except (ValueError, OverflowError) as error:
                raise click.BadParameter(f"{text!r}: {error}", ctx, param) from None
        return tuple(result)

    return split


def literal(text: str) -> Any:
    """Parse a Python literal; any other text, such as a bare word, is a string.

    >>> literal("(3, 3)"), literal("relu")
    ((3, 3), 'relu')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def amount(text: str) -> int | float:
    """Parse a budget: an integer, or a number with a prefix or an exponent, is a figure, any other
    a share.

    >>> amount("0.5"), amount("2_000_000"), amount("1.5G"), amount("40%"), amount("100 kB")
    (0.5, 2000000, 1500000000, 0.4, 100000)
    >>> amount("2e9")
    2000000000
    """
    text = text.strip().removesuffix("B").replace(",", "_")
    if text.endswith("%"):
        return float(text[:-1]) / 100
    if text[-1:] in _LARGE:
        return round(float(text[:-1]) * _LARGE[text[-1]])
    if text.replace("_", "").isdecimal():
        return int(text)
    number = float(text)
    return int(number) if "e" in text.lower() and number.is_integer() else number


def proportion(text: str) -> float:
    """Parse a share of the whole, from 0 to 1.

    >>> proportion("0.5"), proportion("50%"), proportion("12.5 %")
    (0.5, 0.5, 0.125)

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise ValueError("write a share as 0.5 or 50%") from None
    if not 0 <= share <= 1:
        advice = f"; {text}% is written with its sign" if 1 < share <= 100 else ""
        raise ValueError(f"not a share from 0 to 1, such as 0.5 or 50%{advice}")
    return share


def share(above: bool = False, below: bool = False) -> Callable[..., float | None]:
    """Return a click callback that parses a share, ``above`` 0 or ``below`` 1 where asked."""

    def value(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            found = proportion(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", ctx, param) from None
        if (above and found == 0) or (below and found == 1):
            asked = "above 0" if above and found == 0 else "below 1"
            raise click.BadParameter(f"{text!r}: give a share {asked}", ctx, param)
        return found

    return value


def duration(text: str) -> int | float:
    """Parse a latency: nanoseconds if it has a unit of time, else an :func:`amount`.

    >>> duration("12ms"), duration("1.5s"), duration("800us"), duration("0.5")
    (12000000, 1500000000, 800000, 0.5)
    """
    for unit, nanoseconds in _TIMES.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * nanoseconds)
    return amount(text)


def budget_options(command: Command) -> Command:
    """Add the options that bound the cost of the pruned model."""
    for option in (
        click.option(
            "--machine",
            metavar="NAME",
            help="The machine of the latency table, where it is another one.",
        ),
        click.option(
            "--latency-table",
            type=FILE,
            metavar="FILE",
            help="The file written by planc measure: the latency that --latency bounds, and that "
            "the plan records.",
        ),
        click.option(
            "--latency",
            callback=_read(duration, "write a share as 0.5 or 50%, or a time as 12ms or 800us"),
            metavar="TIME",
            help="Most time of a run, by --latency-table: 0.5 or 50% for half, 12ms.",
        ),
    ):
        command = option(command)
    for name, cost in (("bytes", "bytes"), ("params", "parameters"), ("macs", "MACs")):
        command = click.option(
            f"--{name}",
            callback=_read(amount, "write a share as 0.5 or 50%, or a figure as 2000000 or 2M"),
            metavar="AMOUNT",
            help=f"Most {cost}, instead of a ratio: 0.5 or 50% for half, 2000000 or 2M.",
        )(command)
    return command


def _read(read: Callable[[str], Any], advice: str) -> Callable[..., Any]:
    """Return a click callback that parses one optional value."""

    def value(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except (ValueError, OverflowError):
            raise click.BadParameter(f"{text!r}: {advice}", ctx, param) from None

    return value


def output_option(help: str) -> Callable[[Command], Command]:
    """Return the option for the file written by a command."""
    return click.option("-o", "--output", type=FILE, metavar="FILE", help=help)


def weights_output_option(help: str) -> Callable[[Command], Command]:
    """Return the options for the weights written by a command, and for replacing others."""

    def both(command: Command) -> Command:
        command = click.option(
            "--overwrite", is_flag=True, help="Replace directories that are there already."
        )(command)
        names = ("-o", "--output", "--out")
        return click.option(*names, type=FILE, metavar="PATH", required=True, help=help)(command)

    return both


def ratio_option(help: str) -> Callable[[Command], Command]:
    """Return the option for a share to remove."""
    callback = share(below=True)
    help = f"{help} 0.5 or 50% for half."
    return click.option("--ratio", metavar="SHARE", callback=callback, help=help)


def repeatable(
    name: str,
    metavar: str,
    help: str,
    to: str | None = None,
    read: Callable[[str], Any] | None = None,
) -> Callable[[Command], Command]:
    """Return an option that may be repeated; with ``read``, each value is ``key=value``."""
    names = (name,) if to is None else (name, to)
    callback = None if read is None else pairs(read)
    help = f"{help}; repeatable."
    return click.option(*names, multiple=True, metavar=metavar, callback=callback, help=help)


def name_options(kind: str) -> Callable[[Command], Command]:
    """Return the options that choose by name the ``kind`` to leave whole, or to prune alone."""

    def both(command: Command) -> Command:
        command = repeatable("--only", "PATTERN", f"Prune {kind} of these parts only")(command)
        return repeatable("--keep", "PATTERN", f"Leave {kind} of these parts whole")(command)

    return both


def sha256(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Check a digest in hexadecimal; a click callback."""
    if text is not None and re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise click.BadParameter(f"{text!r}: write 64 hexadecimal digits", ctx, param)
    return text


def n_of_m(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """Parse "2:4" as two numbers; a click callback."""
    if text is None:
        return None
    n, colon, m = text.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal()):
        raise click.BadParameter(f"{text!r}: write 2:4, for two of four that stay", ctx, param)
    return int(n), int(m)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def table_option(command: Command) -> Command:
    """Add the option for the latency of plans made by hand or by another budget."""
    return click.option(
        "--latency-table",
        type=FILE,
        metavar="FILE",
        help="Add the latency before and after, by the file that planc measure wrote.",
    )(command)


def screen_options(full: str) -> Callable[[Command], Command]:
    """Return the options of a screen: its width, the pager, and everything with ``--full``."""

    def all_of_them(command: Command) -> Command:
        command = click.option(
            "--pager/--no-pager",
            default=True,
            help="In a terminal, show more than a screen in $PLANC_PAGER, $PAGER or less.",
        )(command)
        command = click.option(
            "--width", type=click.IntRange(60), metavar="N", help="Columns of the screen."
        )(command)
        return click.option("--full", is_flag=True, help=full)(command)

    return all_of_them
