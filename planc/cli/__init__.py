"""The command line.

Torch, NumPy and rich are imported by the commands that need them, so that ``planc --help``
answers at once. Results go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback

import click

from planc import __version__
from planc.cli.commands.apply import apply
from planc.cli.commands.calibrate import calibrate
from planc.cli.commands.diff import diff
from planc.cli.commands.edit import edit
from planc.cli.commands.explain import explain
from planc.cli.commands.inspect import inspect
from planc.cli.commands.mask import mask
from planc.cli.commands.measure import measure
from planc.cli.commands.plan import plan
from planc.cli.commands.recover import recover
from planc.cli.commands.report import report
from planc.cli.commands.restore import restore
from planc.cli.commands.show import show
from planc.cli.commands.verify import verify
from planc.cli.help import Group, debug_option, dressed
from planc.cli.options import EXIT_CODES
from planc.cli.terminal import encode_all, note, plain_warnings, problem
from planc.errors import PlancError, VerificationError

_UNPROVEN = 4
_MODEL = re.compile(r"^(torchvision|timm):|^[\w.]+:[\w.]+$|\.py:")


@click.group(cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Compile pruning plans for PyTorch models; show, compare, apply and verify them.

    planc COMMAND --help has examples, and the forms of MODEL.
    """


cli.params.append(debug_option())


_MADE, _REVIEWED = (plan, edit, recover, mask, calibrate, measure), (show, explain, diff, report)
for _command in (*_MADE, *_REVIEWED, apply, inspect, restore, verify):
    cli.add_command(dressed(_command))


def main() -> None:
    """Run the command line of this process and exit with its code."""
    encode_all()
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run ``arguments`` (by default those of the process) and return the exit code."""
    asked: set[str] = set()
    try:
        with plain_warnings():
            code = cli.main(arguments, prog_name="planc", standalone_mode=False, obj=asked)
        sys.stdout.flush()
    except click.Abort:
        note("planc: interrupted")
        return 130
    except BrokenPipeError:  # the reader, a pager or `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if "debug" in asked:
            note("".join(traceback.format_exception(error.__cause__ or error)).rstrip("\n"))
        code, message = _told(error)
        note(message)
        return code
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> tuple[int, str]:
    """The exit code and the message of an error."""
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        return error.exit_code, shown.getvalue().rstrip("\n")
    if isinstance(error, PlancError):
        advice = "; --input gives their shapes" if "example inputs have the" in str(error) else ""
        code = _UNPROVEN if isinstance(error, VerificationError) else 1
        return code, f"{problem(error)}{advice}"
    if isinstance(error, OSError):
        return 1, f"{problem(error)}{_swapped(error)}"
    first = (str(error) or "no message").splitlines()[0]
    return 1, (
        f"planc: unexpected {type(error).__name__}: {first}; --debug prints the traceback: report "
        "it where planc's own code raised it"
    )


def _swapped(error: OSError) -> str:
    """Advice where the name of a model stands for that of a file."""
    is_model = isinstance(error, FileNotFoundError) and _MODEL.search(str(error.filename))
    return "; this is the name of a MODEL: PLAN stands before it" if is_model else ""
