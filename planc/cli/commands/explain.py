"""``planc explain``: give the reasons of couplings, pins and constraints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planc.cli import terminal
from planc.cli.models import DEFAULT_INPUT, MODEL, Given, input_option, model_options
from planc.cli.options import json_option, screen_options
from planc.cli.terminal import print_json, status
from planc.errors import PlancError


@click.command()
@click.argument("model", type=MODEL, metavar="MODEL|PLAN")
@click.argument("name", required=False)
@input_option(DEFAULT_INPUT)
@model_options
@screen_options("List each member by itself, and files under their full path.")
@json_option
def explain(
    model: str,
    given: Given,
    name: str | None,
    full: bool,
    width: int | None,
    pager: bool,
    as_json: bool,
) -> None:
    """Say why units are removed together, and what keeps others from being removed.

    NAME is a tensor of MODEL, one of its dimensions (conv1.weight:0), a group, a module, or a
    pattern such as 'layer4.*'. Without NAME, list all pins, each with the change that would free
    it, and all constraints on widths. Of a PLAN, list what it removes by group, without its model.

    Example: planc explain torchvision:resnet18 layer1.0.conv1.weight:0
    """
    found = _of_plan(Path(model), name) if _is_plan(model) else _of_model(model, given, name)
    if as_json:
        print_json([{k: v for k, v in entry.items() if k != "title"} for entry in found])
        return
    from rich.console import Group as Stack

    from planc.cli.report.explanation import explanation

    columns = terminal.columns(width)
    terminal.show(Stack(*explanation(found, columns, full)), columns, pager)


def _is_plan(text: str) -> bool:
    from planc.files.formats.nature import nature, start_of

    path = Path(text)
    return path.is_file() and nature(start_of(path))[0] == "a plan"


def _of_model(model: str, given: Given, name: str | None) -> list[dict[str, Any]]:
    import planc

    args = given.example_inputs(model)
    built = given.build(model)
    with status(f"analysing {model}"):
        return [*planc.explain(built, args, name).entries]


def _of_plan(path: Path, name: str | None) -> list[dict[str, Any]]:
    """The groups of a plan, with their members where a name is given."""
    import planc
    from planc.analysis.answers import groups_named
    from planc.errors.text import near

    plan = planc.load_plan(path)
    chosen = range(len(plan.groups)) if name is None else groups_named(plan.groups, name)
    if not chosen and name is not None:
        known = [group.name for group in plan.groups]
        raise PlancError(
            f"{path}: no group has a tensor, module or name {name!r}{near(name, known)}; explain "
            "MODEL gives the reasons of what is in no group"
        )
    made = "; ".join(f"{p.criterion}, {p.policy}, seed {p.seed}" for p in plan.provenance)
    found = []
    for group in (plan.groups[g] for g in chosen):
        places = dict.fromkeys(f"{member.tensor}:{member.dim}" for member in group.members)
        reasons = [f"{len(places)} members leave together:", *(f"  {p}" for p in places)]
        if group.mixing:
            reasons.append(f"mixing: {group.mixing}")
        if not group.removed:
            reasons.append(f"stays whole: by {made}")
        title = f"{group}: {len(group.removed)} removed, {group.kept} kept"
        entry: dict[str, Any] = {"title": title, "group": group.name, "size": group.size}
        entry |= {"removed": [int(unit) for unit in group.removed], "members": [*places]}
        found.append(entry | ({"reasons": reasons} if name is not None else {}))
    return found
