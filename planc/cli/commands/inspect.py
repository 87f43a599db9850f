"""``planc inspect``: list the contents of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import FILE, json_option, screen_options
from planc.cli.terminal import columns, print_json, show


@click.command()
@click.argument("weights", type=FILE)
@screen_options("List every group, attribute and constraint.")
@json_option
def inspect(weights: Path, full: bool, width: int | None, pager: bool, as_json: bool) -> None:
    """List the contents of the checkpoint WEIGHTS, and show the plan in it.

    Example: planc inspect small.safetensors
    """
    from rich.console import Group as Stack

    import planc
    from planc.cli.report.plain import plan_json
    from planc.cli.report.plan import FULL, plan_screen
    from planc.cli.report.screen import counted, line

    found = planc.inspect(weights)
    if as_json:
        print_json(
            {
                "plan": plan_json(found.plan),
                "shards": [{"name": s.name, "size": s.size} for s in found.shards],
                "tensors": [
                    {
                        "names": list(t.names),
                        "dtype": t.dtype,
                        "shape": list(t.shape),
                        "role": t.role,
                        "sha256": t.digest.hex(),
                        "file": found.shards[t.shard].name,
                    }
                    for t in found.tensors
                ],
            }
        )
        return
    size = sum(shard.size for shard in found.shards)
    counts = [counted(len(found.tensors), "tensor"), counted(len(found.shards), "file")]
    sum_line = line(f"{' in '.join(counts)}, {size:,} bytes")
    shown = plan_screen(found.plan, columns(width), full, FULL)
    show(Stack(shown, line(), sum_line), columns(width), pager)
