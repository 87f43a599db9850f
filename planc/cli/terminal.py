"""Output of commands: tables and JSON to standard output, notes and progress to standard error."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from planc.errors import PlancError, PlancWarning
from planc.errors.text import escaped

_PIPED_WIDTH = 160
_STAND_INS = str.maketrans(
    {"→": ">", "−": "-", "–": "-", "×": "x", "█": "#", "░": ".", "±": "~", "µ": "u", "…": "..."}
    | {"\N{CHECK MARK}": "+"}
)


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """Replace a sign that the output cannot encode by a plain one; a handler for codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end].translate(_STAND_INS)
    return signs.encode("ascii", "replace").decode("ascii"), error.end


def encode_all() -> None:
    """Let every text be written to standard output and error, whatever their encoding."""
    codecs.register_error("planc", stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="planc")


def columns(width: int | None = None) -> int:
    """The columns of a screen: ``width``, $COLUMNS, those of the terminal, or 160 in a pipe."""
    if width is None and os.environ.get("COLUMNS", "").isdecimal():
        width = int(os.environ["COLUMNS"])
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    return width or _PIPED_WIDTH


def show(
    renderable: Any, width: int | None = None, pager: bool = False, color: bool = False
) -> None:
    """Print a table, or any other renderable of rich, to standard output.

    Args:
        width: the columns, by default those of :func:`columns`.
        pager: show more than a screen in a pager, in a terminal.
        color: use colors in a pipe, too; $NO_COLOR leaves them out everywhere.
    """
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(width=columns(width), highlight=False, force_terminal=True if color else None)
    rendered = (part for part in console.render(renderable) if not part.control)
    shown: list[Segment] = []
    lines = list(Segment.split_lines(rendered))
    for found in lines:
        parts = [Segment(escaped(part.text), part.style) for part in found]
        while parts and not parts[-1].text.rstrip():
            parts.pop()
        if parts:
            parts[-1] = Segment(parts[-1].text.rstrip(), parts[-1].style)
        shown += [*parts, Segment("\n")]
    if pager and console.is_terminal and len(lines) >= console.height:
        with console.capture() as capture:
            console.print(Segments(shown), end="", soft_wrap=True)
        if _paged(capture.get()):
            return
    console.print(Segments(shown), end="", soft_wrap=True)


def _paged(text: str) -> bool:
    """Show a text in the reader's pager; False without one: ``cat``, empty or not installed."""
    command = os.environ.get("PLANC_PAGER", os.environ.get("PAGER", "less"))
    if command in ("", "cat") or shutil.which(shlex.split(command)[0]) is None:
        return False
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}  # as git's: colors, no clearing
    with contextlib.suppress(BrokenPipeError):  # the reader has seen enough
        subprocess.run(command, shell=True, input=text.encode(), env=environment, check=False)
    return True


def print_json(value: Any) -> None:
    """Print plain data as indented JSON."""
    say(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


def say(text: str, err: bool = False) -> None:
    """Print text, with escapes in place of invisible characters."""
    click.echo(escaped(text, "\n"), err=err)


def problem(error: Exception) -> str:
    """The message for an error that ends a command."""
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"planc: {name}{error.strerror or error}"
    return f"planc: {error}"


def note(text: str) -> None:
    """Print one line to standard error."""
    say(text, err=True)


def warning(text: str) -> None:
    """Print a warning of planc as one line to standard error."""
    note(f"planc: warning: {text}")


@contextlib.contextmanager
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
            warning(str(message))
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.showwarning = printed
        yield


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner while the body runs, if standard error is a terminal."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(escaped(text))), own_code(text):
        yield


@contextlib.contextmanager
def own_code(what: str) -> Iterator[None]:
    """Run code of a model: its prints go to standard error, its exit is an error.

    Raises:
        PlancError: the code raised SystemExit, or another exception that is no error; ``what`` was
            being done.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
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
