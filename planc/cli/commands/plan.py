"""``planc plan``: compile a pruning plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planc.cli.choices import chosen_units, edited_text
from planc.cli.ending import finish
from planc.cli.models import DEFAULT_INPUT, MODEL, Given, input_option, model_options
from planc.cli.options import (
    CRITERIA,
    FILE,
    RANKINGS,
    budget_options,
    json_option,
    name_options,
    output_option,
    proportion,
    ratio_option,
    repeatable,
    share,
    strict_option,
    target_option,
)
from planc.cli.origin import named_origin
from planc.cli.terminal import check_writable, note, status
from planc.errors import PlancError

if TYPE_CHECKING:
    from planc.plan.plan import Plan

_AMOUNTS = ("ratio", "macs", "params", "bytes", "latency")


@click.command()
@click.argument("model", type=MODEL, required=False)
@ratio_option("Share of the units to remove; a half where no budget is given.")
@budget_options
@click.option(
    "--criterion",
    type=click.Choice(CRITERIA),
    default="l2",
    show_default=True,
    help="Importance of a unit.",
)
@click.option(
    "--statistics",
    "collected",
    type=FILE,
    metavar="FILE",
    help="Statistics of planc calibrate, for criteria from taylor on.",
)
@click.option(
    "--ranking",
    type=click.Choice(RANKINGS),
    default="uniform",
    show_default=True,
    help="Units compete within each group, among all, among similar groups, or by score per cost.",
)
@click.option("--global", "global_ranking", is_flag=True, help="The same as --ranking global.")
@click.option(
    "--round-to",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Keep multiples of this many units.",
)
@click.option(
    "--floor",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Least number of units that a group keeps.",
)
@click.option(
    "--cap",
    callback=share(below=True),
    metavar="SHARE",
    help="Largest share of its units that a group loses.",
)
@click.option("--equal", is_flag=True, help="Similar groups keep equally many units.")
@name_options("groups")
@repeatable(
    "--kind",
    "KIND=RATIO",
    "Another ratio for groups of a kind, such as heads=0.5",
    "kinds",
    proportion,
)
@repeatable(
    "--rows", "KIND", "Remove whole rows by the common ratio or budget, such as those of heads"
)
@repeatable(
    "--ratio-of",
    "PATTERN=RATIO",
    "Another ratio for groups of these parts, such as layer1.*=0.2",
    "ratios",
    proportion,
)
@repeatable("--remove", "NAME:UNITS", "Remove these units, such as conv1:2,6,9; nothing else alone")
@repeatable("--keep-units", "NAME:UNITS", "Keep these units, such as conv1:0-7")
@repeatable("--outputs", "NAME", "Only these results keep their size, such as logits or 0")
@repeatable("--free-outputs", "NAME", "These results may shrink, such as hidden_states")
@target_option
@click.option(
    "--loadable/--no-loadable",
    default=None,
    help="Remove only what the configuration can say, so that from_pretrained loads the result; by "
    "default where the request allows it.",
)
@strict_option
@click.option("--scores", is_flag=True, help="Write the scores of all units into the plan.")
@input_option(DEFAULT_INPUT)
@model_options
@click.option(
    "--meta",
    is_flag=True,
    help="Build MODEL without memory for its tensors, and score those of --weights one by one; a "
    "directory is always read so.",
)
@click.option(
    "--from-json",
    type=FILE,
    metavar="FILE",
    help="Read the output of planc show --json instead of compiling; with MODEL, an edited one.",
)
@click.option(
    "--from-masks",
    type=FILE,
    metavar="FILE",
    help="Remove the units covered by a mask plan instead of scoring, if they have no effect.",
)
@click.option(
    "--from-history",
    type=FILE,
    metavar="FILE",
    help="Read what Torch-Pruning's pruning_history() returned, as JSON, instead of scoring.",
)
@output_option("The plan file; without it, only the summary.")
@json_option
def plan(
    model: str | None,
    given: Given,
    kinds: tuple[tuple[str, float], ...],
    ratios: tuple[tuple[str, float], ...],
    meta: bool,
    collected: Path | None,
    from_json: Path | None,
    from_masks: Path | None,
    from_history: Path | None,
    output: Path | None,
    latency_table: Path | None,
    remove: tuple[str, ...],
    keep_units: tuple[str, ...],
    outputs: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Compile a plan for MODEL, sum it up, and save it.

    Example: planc plan torchvision:resnet18 --ratio 0.5 --only 'layer4.*' -o half.planc
    """
    if model is None and from_json is None:
        raise click.UsageError("name a MODEL, or a file with --from-json")
    if meta and model is not None and given.weights_of(model) is None:
        raise click.UsageError("--meta reads the weights of MODEL from --weights: name them")
    asked = [name for name in _AMOUNTS if options[name] is not None]
    if from_masks is not None and asked:
        raise click.UsageError(f"--{asked[0]} and --from-masks: the masks say what goes")
    if from_history is not None and (asked or from_masks is not None):
        other = asked[0] if asked else "from-masks"
        raise click.UsageError(f"--{other} and --from-history: the history says what goes")
    check_writable(output)
    import planc
    from planc.plan.review.summary import timed

    measured = None if latency_table is None else planc.load_latency(latency_table)
    if model is None and from_json is not None:
        result = _plan_in(from_json)
    elif model is not None and from_json is not None:
        result = edited_text(_json_in(from_json), given.build(model), given.example_inputs(model))
    else:
        assert model is not None
        args = given.example_inputs(model)
        if from_masks is None and from_history is None:
            meta = meta or (Path(model).is_dir() and given.weights_of(model) is not None)
        built = given.build(model, "meta" if meta else "cpu")
        stored = given.stored(model, built) if meta else None
        state = built.state_dict() if remove or keep_units else {}
        ranks = {name: tensor.dim() for name, tensor in state.items()}
        with status(f"compiling a plan for {model}"):
            chosen = {name: options[name] for name in ("target", "strict")}
            if from_masks is not None:
                masks = planc.load_masks(from_masks)
                found = planc.from_masks(built, args, masks=masks, **chosen)
                result = found.plan
            elif from_history is not None:
                chosen["free_outputs"] = options["free_outputs"]
                result = _plan_of_history(from_history, built, args, chosen)
            else:
                result = planc.compile(
                    built,
                    args,
                    kinds=dict(kinds),
                    ratios=dict(ratios),
                    remove=chosen_units(remove, ranks),
                    keep_units=chosen_units(keep_units, ranks),
                    outputs=outputs or None,
                    seed=given.seed,
                    weights=stored,
                    statistics=None if collected is None else planc.load_statistics(collected),
                    latency_table=measured,
                    **options,
                )
        if from_masks is not None:
            note(str(found))
        result = named_origin(result, given, model)
    if result.latency is None:  # of a plan that was not compiled
        result = timed(result, measured)
    bounds = ("keep", "only", "cap", "equal")  # where these keep all, a warning has said so
    bounded = any(options[name] for name in bounds) or options["floor"] * options["round_to"] > 1
    finish(
        result,
        output,
        () if model is None else given.words(model),
        {name: options[name] for name in _AMOUNTS},
        told=bounded,
        as_json=as_json,
    )


def _plan_of_history(path: Path, model: Any, args: Any, chosen: dict[str, Any]) -> Plan:
    """Return the plan of a history in a JSON file."""
    import planc

    steps = _json(path, "JSON of pruning_history()")
    try:
        return planc.from_history(model, args, history=steps, **chosen)
    except planc.PolicyError as error:
        raise planc.PolicyError(f"{path}: {error}") from None


def _plan_in(path: Path) -> Plan:
    """Return the plan described by a JSON file."""
    from planc.cli.report.plain import plan_from_json

    plain = _json_in(path)
    try:
        return plan_from_json(plain)
    except PlancError as error:
        raise PlancError(f"{path}: {error}") from None


def _json_in(path: Path) -> dict[str, Any]:
    """Return the plain data of a plan in a JSON file."""
    plain = _json(path, "JSON of planc show --json")
    if not isinstance(plain, dict):
        raise PlancError(f"{path}: not a JSON object; name what planc show --json printed")
    return plain


def _json(path: Path, expected: str) -> Any:
    """Return the content of a JSON file."""
    from planc.files.disk.atomic import read_file
    from planc.files.disk.limits import DEFAULT
    from planc.files.formats.nature import START, nature

    try:
        content = read_file(path, DEFAULT.file)
        name, use = nature(content[:START])
        if name not in ("", "JSON", "text"):
            raise PlancError(f"{path}: is {name}, not {expected}; {use}")
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PlancError(f"{path}: not JSON: {error}") from None
