"""Help of the commands: options under headings, an example for each command, and ``--debug``."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import click

from planc.cli.options import EXIT_CODES

_OTHER = "Other options"
_EXAMPLE = "\n\nExample: "  # the last paragraph of a command's text may be one
_HEADINGS: dict[str, tuple[str, ...]] = {
    "Amount": ("ratio", "macs", "params", "bytes", "latency", "latency_table", "machine"),
    "Choice": ("criterion", "collected", "ranking", "global_ranking", "all_together", "largest"),
    "Limits": ("round_to", "floor", "cap", "equal", "n_of_m", "along"),
    "Scope": (
        *("keep", "only", "kinds", "rows", "ratios"),
        *("remove", "keep_units", "outputs", "free_outputs", "loadable"),
    ),
    "Model": (
        "inputs",
        "settings",
        "weights",
        "trust_pickle",
        "trust_remote_code",
        "seed",
        "device",
        "threads",
        "meta",
    ),
    "Data": ("data", "loss", "batches"),
    _OTHER: (),
}

# one or two of each; "planc " stands before them
EXAMPLES = {
    "plan": (
        "plan torchvision:resnet50 --macs 50% --round-to 8 -o half.planc",
        "plan net.py:build --input 1x3x32x32 --weights net.pt --trust-pickle -o net.planc",
    ),
    "calibrate": (
        "calibrate net.py:build --data net.py:loader --criterion wanda -o net.statistics",
        "calibrate net.py:build --data net.py:loader --criterion taylor --loss mse_loss -o grads",
    ),
    "mask": ("mask torchvision:resnet18 --n-of-m 2:4 --only '*.conv*' -o sparse.masks",),
    "measure": ("measure torchvision:resnet18 --threads 4 -o here.latency",),
    "show": ("show half.planc",),
    "explain": (
        "explain torchvision:resnet18 layer1.0.conv1",
        "explain half.planc 'layer4.*'",
    ),
    "apply": (
        "apply half.planc --weights resnet50.safetensors -o smaller.safetensors",
        "apply half.planc torchvision:resnet50 --weights resnet50.safetensors -o smaller",
    ),
    "inspect": ("inspect smaller.safetensors",),
    "restore": ("restore smaller --removed removed -o original",),
    "verify": ("verify half.planc torchvision:resnet50 --result smaller.safetensors",),
    "diff": ("diff half.planc third.planc",),
    "report": ("report half.planc third.planc -o plans.html",),
}
_TAKES_FACTORIES = """\b
MODEL is one of:
  torchvision:NAME        torchvision:resnet50
  timm:NAME               timm:resnet50.a1_in1k
  file.py:factory         a function, a class or a model in a file
  package.module:factory  the same in an importable module
  DIRECTORY               a checkpoint with config.json (transformers, timm)
"""


_SECTIONS = {
    "Make": ("plan", "mask", "calibrate", "measure", "edit", "recover"),
    "Review": ("show", "explain", "diff", "report"),
    "Apply": ("apply", "inspect", "restore", "verify"),
}


class Group(click.Group):
    """The commands under headings, in the order of their use."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name for names in _SECTIONS.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in listed]
        for heading, names in (*_SECTIONS.items(), ("Other commands", others)):
            found = {name: self.get_command(ctx, name) for name in names}
            rows = [
                (n, c.get_short_help_str(formatter.width - 12))
                for n, c in found.items()
                if c is not None
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class Command(click.Command):
    """A command with options under headings, and its examples at the end of its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed: dict[str, list[tuple[str, str]]] = {"Options": [], **{h: [] for h in _HEADINGS}}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if isinstance(param, click.Option) and row is not None:
                names = (heading for heading, held in _HEADINGS.items() if param.name in held)
                listed[_OTHER if param.is_eager else next(names, "Options")].append(row)
        if len(listed["Amount"]) == 1:  # a table of times beside no budget
            listed["Options"] += listed.pop("Amount")
        for heading, rows in listed.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        without = click.Command(self.name, help=(self.help or "").partition(_EXAMPLE)[0])
        without.format_help_text(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if any(param.name == "model" for param in self.params):
            _write(formatter, _TAKES_FACTORIES)
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(f"{self.epilog}\n")
            if "Example" in self.epilog:
                return
        own = (self.help or "").partition(_EXAMPLE)[2]
        examples = [*filter(None, [own]), *EXAMPLES.get(self.name or "", ())]
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for example in examples:
                formatter.write(f"  planc {example.removeprefix('planc ')}\n")


def dressed(command: click.Command) -> Command:
    """``command`` with the help of this module, and ``--debug``."""
    return Command(
        name=command.name,
        callback=command.callback,
        params=[*command.params, debug_option()],
        help=cleandoc(command.help or ""),
        epilog=(command.epilog or "").replace(EXIT_CODES, "").strip("\b\n ") or None,
        short_help=command.short_help,
        context_settings=command.context_settings,
    )


def debug_option() -> click.Option:
    """The option that makes :func:`planc.cli.run` print the traceback of an error."""

    def noted(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            ctx.ensure_object(set).add("debug")

    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=noted,
        help="Print the traceback of an error.",
    )


def _write(formatter: click.HelpFormatter, text: str) -> None:
    formatter.write_paragraph()
    formatter.write_text(text)
