"""``planc inspect``: list the contents of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from planc.cli.options import FILE, json_option
from planc.cli.terminal import columns, print_json, say, show


@click.command()
@click.argument("weights", type=FILE)
@json_option
def inspect(weights: Path, as_json: bool) -> None:
    """List the contents of the checkpoint WEIGHTS, and show the plan in it.

    Example: planc inspect small.safetensors
    """
    import planc
    from planc.cli.report.plain import plan_json
    from planc.cli.report.plan import plan_screen

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
    show(plan_screen(found.plan, columns()))
    size = sum(shard.size for shard in found.shards)
    say(f"{len(found.tensors)} tensors in {len(found.shards)} files, {size:,} bytes")
