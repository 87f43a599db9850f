"""Output of commands: tables and JSON to standard output, notes and progress to standard error."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import click

from planc.errors import PlancError, PlancWarning
from planc.errors.text import escaped

_PIPED_WIDTH = 160


def show(renderable: Any) -> None:
    """Print a table, or any other renderable of rich, to standard output."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH  # in a file or a pager, names stay on one line
    rows = [
        Segment(escaped(part.text, "\n"), part.style)
        for part in console.render(renderable)
        if not part.control
    ]
    console.print(Segments(rows), end="", soft_wrap=True)


def print_json(value: Any) -> None:
    """Print plain data as indented JSON."""
    say(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def say(text: str, err: bool = False) -> None:
    """Print text, with escapes in place of invisible characters."""
    click.echo(escaped(text, "\n"), err=err)


def note(text: str) -> None:
    """Print one line to standard error."""
    say(text, err=True)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print planc's own warnings as one line each, without the line of planc's code."""

    def printed(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, PlancWarning):
            note(f"planc: warning: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.showwarning = printed
        yield


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner while the body runs, if standard error is a terminal."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(escaped(text))), own_code(text):
        yield


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Run code of a model: its prints go to standard error, its exit is an error.

    Raises:
        PlancError: the code raised SystemExit, or another exception that is no error; ``what`` was
            being done.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise PlancError(
            f"{what}: its code ended the program ({type(error).__name__}: {error}); remove the "
            "call, or put it under if __name__ == '__main__'"
        ) from error


def check_writable(path: Path | None, directories: bool = False) -> None:
    """Check before the work begins that ``path`` can be created or replaced.

    Args:
        directories: accept a directory, too.

    Raises:
        PlancError: it cannot be written.
    """
    if path is None:
        return
    if path.is_dir() and not directories:
        raise PlancError(f"cannot write {path}: it is a directory; name a file")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise PlancError(f"cannot write {path}: {path.parent}: {error.strerror}") from None
