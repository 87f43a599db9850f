"""The end of a command that makes a plan: its sum, remarks, the file, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planc.cli.terminal import note, print_json, say

if TYPE_CHECKING:
    from planc.plan.plan import Plan


def finish(
    plan: Plan,
    output: Path | None,
    model: Sequence[str] = (),
    budgets: Mapping[str, float | None] | None = None,
    told: bool = False,
    as_json: bool = False,
) -> None:
    """Print what a plan does, write it, and name the commands that review and apply it.

    Args:
        output: the plan file; None to write nothing.
        model: the words that name the model and its weights again; none if more is needed.
        budgets: the limits that were asked for, for remarks on them.
        told: a warning has said why nothing is removed, where that is so.
        as_json: print the whole plan as JSON, as planc show does.
    """
    import planc
    from planc.cli.report.plain import plan_json
    from planc.plan.review.remarks import remarks

    if as_json:
        print_json(plan_json(plan))
    else:
        say(plan.summary())
    for remark in remarks(plan, budgets or {}):
        note(f"planc: note: {remark}")
    if plan.groups and not told and not any(group.removed for group in plan.groups):
        note(
            "nothing is removed: every group stays whole; planc explain MODEL lists what is pinned"
        )
    if output is None:
        note("nothing is written: -o FILE saves the plan")
        return
    planc.save_plan(plan, output)
    note(f"wrote {output}\nnext: {_next(output, model)}")


def _next(output: Path, model: Sequence[str]) -> str:
    """The commands that review and apply a plan."""
    show = shlex.join(["planc", "show", str(output)])
    if not model:
        return show
    suffix = "" if Path(model[0]).is_dir() else ".safetensors"  # of directories, a directory
    pruned = f"{output.with_suffix('')}-pruned{suffix}"
    return f"{show}, then {shlex.join(['planc', 'apply', str(output), *model, '-o', pruned])}"
