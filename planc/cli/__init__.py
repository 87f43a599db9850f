"""The command line.

Torch, NumPy and rich are imported by the commands that need them, so that ``planc --help``
answers at once. Results go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

import io
import os
import sys

import click

from planc import __version__
from planc.cli.commands.apply import apply
from planc.cli.commands.diff import diff
from planc.cli.commands.edit import edit
from planc.cli.commands.explain import explain
from planc.cli.commands.inspect import inspect
from planc.cli.commands.mask import mask
from planc.cli.commands.measure import measure
from planc.cli.commands.plan import plan
from planc.cli.commands.report import report
from planc.cli.commands.restore import restore
from planc.cli.commands.show import show
from planc.cli.commands.verify import verify
from planc.cli.options import EXIT_CODES
from planc.cli.terminal import encode_all, note, plain_warnings, problem
from planc.errors import PlancError, VerificationError

_UNPROVEN = 4


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Compile pruning plans for PyTorch models; show, compare, apply and verify them.

    MODEL is torchvision:NAME or package.module:factory; the current directory is searched too.
    """


_COMMANDS = (
    plan,
    edit,
    mask,
    measure,
    show,
    explain,
    apply,
    inspect,
    restore,
    verify,
    diff,
    report,
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    encode_all()
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run ``arguments`` (by default those of the process) and return the exit code."""
    try:
        with plain_warnings():
            code = cli.main(arguments, prog_name="planc", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        note(shown.getvalue().rstrip("\n"))
        return error.exit_code
    except click.Abort:
        note("planc: interrupted")
        return 130
    except BrokenPipeError:  # the reader, a pager or `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PlancError, OSError) as error:
        note(problem(error))
        return _UNPROVEN if isinstance(error, VerificationError) else 1
    return code if isinstance(code, int) else 0
