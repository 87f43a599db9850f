"""Screens of plans: golden texts of well-known models, and the claims of every screen."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc import PlancError, load_plan
from planc.cli.report.group import group_lines
from planc.cli.report.plan import LINES, plan_screen
from planc.cli.report.screen import fold, screen
from planc.plan.plan import AttributeChange, OutputChange, Plan, PlanGroup, WidthConstraint
from planc.plan.review.constraints import binding
from planc.plan.review.find import groups_named
from planc.plan.review.rows import collapsed, fitting, series
from planc.plan.review.summary import batch, totals
from tests.cli.report.printed import text
from tests.scripts.screens import SCREENS
from tests.support.strategies import complete, example_plan, plans

PLAN = example_plan()
MODELS = ("resnet50", "resnet50-global", "vit_b_16", "vit_b_16-global", "llama", "llama-global")


def golden(name: str) -> Plan:
    return load_plan(SCREENS / f"{name}.planc")


def shown(plan: Plan, width: int = 100, full: bool = False) -> str:
    return text(plan_screen(plan, width, full), width)


def shown_group(plan: Plan, name: str, width: int = 100, full: bool = False) -> str:
    found = groups_named(plan, name)
    return text(screen(part for g in found for part in group_lines(plan, g, width, full)), width)


def group(name: str, size: int = 8, removed: tuple[int, ...] = (), **changes: object) -> PlanGroup:
    made = PlanGroup(name, "channels", size, 1, (), removed=removed)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", MODELS)
def test_screens_are_the_golden_texts(name: str, width: int, regenerate: bool) -> None:
    found = shown(golden(name), width)
    path = SCREENS / f"{name}.{width}.txt"
    if regenerate:
        path.write_text(found)
    assert found == path.read_text(), f"if the change is right: pytest --regenerate {__file__}"


@pytest.mark.parametrize(
    ("name", "of"),
    [("resnet50", "layer3.0.conv3"), ("vit_b_16", "class_token"), ("llama", "0.self_attn.v_proj")],
)
def test_screens_of_groups_are_the_golden_texts(name: str, of: str, regenerate: bool) -> None:
    found = shown_group(golden(name), of, 80)
    path = SCREENS / f"{name}.group.txt"
    if regenerate:
        path.write_text(found)
    assert found == path.read_text(), f"if the change is right: pytest --regenerate {__file__}"


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("name", MODELS)
def test_a_well_known_model_fits_one_screen(name: str, width: int) -> None:
    lines = shown(golden(name), width).splitlines()
    assert len(lines) <= LINES
    assert all(len(line) <= width for line in lines)


@settings(max_examples=15)
@given(plans(), st.integers(40, 160))
def test_every_plan_is_shown_within_the_width(plan: Plan, width: int) -> None:
    for full in (False, True):
        lines = shown(plan, width, full).splitlines()
        assert plan.fingerprint[:16] in lines[0]
        assert all(len(line) <= width for line in lines)


@settings(max_examples=15)
@given(plans())
def test_the_full_screen_names_all_of_a_plan(plan: Plan) -> None:
    words = shown(plan, 160, full=True).split()
    assert {group.name for group in plan.groups} <= set(words)
    assert all(f"{change.module}.{change.name}".strip(".") in words for change in plan.attributes)


@settings(max_examples=15)
@given(plans())
def test_every_group_can_be_shown(plan: Plan) -> None:
    for entry in plan.groups:
        assert groups_named(plan, entry.name) == (entry,)
        found = shown_group(plan, entry.name, 160, full=True)
        assert all(member.tensor in found for member in entry.members)


def test_a_shown_plan_says_what_it_removes_and_saves() -> None:
    found = shown(PLAN, 140)
    assert "l2, ratio 0.5, seed 0 (planc 0.1.0, torch 2.15)" in found
    assert "float32[1, 3, 8, 8], [None, 2.5], mask=<Mask>, flag=True" in found
    assert "parameters 97 → 49 (−49 %)" in found
    assert "~ removing is not zeroing: layer norm (1 group)" in found
    assert re.search(r"  parameters +97 → +49  +−49 %", shown(PLAN, 140, full=True))


def test_attributes_that_follow_from_widths_are_counted_and_others_listed() -> None:
    found = shown(PLAN, 140)
    assert "attributes follow from these widths" in found
    assert "a.scale 0.5 → 0.25" in found
    assert "a.shape" not in found
    changes = tuple(AttributeChange(f"m{i}", "scale", 1.0, 0.5) for i in range(3))
    repeated = complete(PLAN.tensors, (), PLAN.groups, changes)
    assert "  scale 1.0 → 0.5 in 3 modules" in shown(repeated)
    assert "  m1.scale 1.0 → 0.5" in shown(repeated, full=True)


def test_names_are_shown_as_they_are_not_as_markup() -> None:
    odd = replace(PLAN.groups[0], name="[bold]x\x1b[/bold]:0", mixing="[red]")
    found = shown(complete(PLAN.tensors, (), (odd, *PLAN.groups[1:]), ()), full=True)
    assert "[bold]x\\x1b[/bold]:0 ~" in found
    assert "[red] (1 group)" in found


def test_like_layers_share_a_row_and_others_do_not() -> None:
    groups = [group(f"layer{i}.{j}.conv1.weight:0", 8 * i) for i in (1, 2) for j in range(3)]
    assert [row.label for row in collapsed(groups)] == ["layer1.0–2.conv1", "layer2.0–2.conv1"]
    groups[1] = group("layer1.1.conv1.weight:0", 8, (2,))
    assert [row.label for row in collapsed(groups)] == [
        "layer1.0,2.conv1", "layer1.1.conv1", "layer2.0–2.conv1",
    ]  # fmt: skip
    dims = [group("a.weight:0"), group("a.weight:1")]
    assert [row.label for row in collapsed(dims)] == ["a.weight:0", "a.weight:1"]


def test_rows_with_different_widths_are_joined_where_a_screen_is_short() -> None:
    groups = [group(f"h.{i}.mlp.weight:0", 64, tuple(range(i))) for i in range(40)]
    [row] = fitting(groups, 28)
    assert (row.label, row.widths, row.size) == ("h.0–39.mlp", (25, 64), 40 * 64)
    stages = [f"{a}{b}" for a in "abcdef" for b in "uvwxy"]
    several = [group(f"{s}.{i}.x:0", 9, tuple(range(i))) for i in range(2) for s in stages]
    many = fitting(several, 28)
    assert len(many) == 30
    assert sum(row.size for row in many) == 9 * 60


@given(st.lists(st.text("ab.01234:#/", max_size=8), unique=True, max_size=30))
def test_rows_hold_every_item_once(names: list[str]) -> None:
    found = series([(name, 0, name) for name in names])
    assert sorted(item for _, _, items in found for item in items) == sorted(names)
    assert len({label for label, _, items in found if "…" not in label}) == sum(
        "…" not in label for label, _, _ in found
    )


def test_constraints_that_no_width_violates_are_left_out() -> None:
    sizes = (group("a:0", 64), group("b.weight:0", 300))
    texts = {
        "256 + -1 * kept a:0 >= 0": False,
        "256 + -1 * kept b.weight:0 >= 0": True,
        "-1 + kept a:0 >= 0": True,
        "1 + 2 * kept a:0 * kept b.weight:0 >= 0": False,
        "kept a:0 = kept b.weight:0": True,
        "a:0 stays whole": True,
        "5 + min([kept a:0]) >= 0": True,
        "kept unknown >= 0": True,
    }
    plan = PLAN.replace(
        groups=sizes, constraints=tuple(WidthConstraint(name, "why") for name in texts)
    )
    assert [c.text for c in binding(plan)] == [name for name, binds in texts.items() if binds]


@pytest.mark.parametrize(
    ("inputs", "examples"),
    [
        ([(8, 3, 32, 32)], 8),
        ([(4, 16), (4, 16)], 4),
        ([(3, 224, 224)], None),
        ([(8, 16), (16,)], None),
        ([(8, 16), (2, 16)], None),
        ([], None),
    ],
)
def test_macs_name_the_batch_where_the_inputs_have_one(
    inputs: list[tuple[int, ...]], examples: int | None
) -> None:
    tensors = tuple(("tensor", shape, "float32") for shape in inputs)
    plan = PLAN.replace(inputs=("tuple", ("tuple", *tensors), ("dict",)))
    assert batch(plan) == examples
    said = "for the inputs" if examples is None else f"for a batch of {examples}"
    assert totals(plan).endswith(said)


def test_a_group_is_found_by_what_the_screen_shows() -> None:
    plan = golden("resnet50")
    for name, count in (
        ("layer3.0.conv1.weight:0", 1),
        ("layer3.0.conv1", 1),
        ("layer3.0–5.conv1", 6),
        ("layer3.*.conv2*", 6),
        ("layer3", 13),
        ("conv3", 4),
        ("layer3.4.bn1.weight", 1),
    ):
        assert len(groups_named(plan, name)) == count, name
    with pytest.raises(PlancError, match=r"layer3\.9\.conv1.*did you mean layer3"):
        groups_named(plan, "layer3.9.conv1")


def test_a_group_of_rows_lists_them_up_to_eight() -> None:
    found = shown_group(golden("vit_b_16"), "encoder_layer_3.self_attention.in_proj_weight:0")
    assert "row 7" in found
    assert "and 4 rows more" in found


def with_scores(plan: Plan, *scores: float) -> Plan:
    first = replace(plan.groups[0], scores=np.array(scores, "<f4").tobytes())
    return plan.replace(groups=(first, *plan.groups[1:]))


def test_scores_of_removed_units_are_set_against_those_of_kept_ones() -> None:
    found = shown_group(with_scores(PLAN, 5, 0.5, 7, 6, 1.5, 8.5), "a.weight:0")
    assert "  removed  0.5 to 1.5, median 1\n" in found
    assert "  kept     5 to 8.5, median 6.5\n" in found
    histogram = "".join(re.findall(r"^ +[\d.]+ to [\d.]+  ([░█]*)$", found, re.MULTILINE))
    assert histogram == "░░████"
    assert "scores" not in shown_group(PLAN, "a.weight:0")


def test_equal_scores_are_shown() -> None:
    assert "median 3" in shown_group(with_scores(PLAN, *[3.0] * 6), "a.weight:0")


def test_the_origin_of_the_weights_is_in_the_header() -> None:
    entry = replace(
        PLAN.provenance[0],
        weights=b"\xab" * 32,
        origin="factory",
        statistics=b"\x01" * 32,
        decisions=("keep a.weight:0 2,6",),
    )
    found = shown(PLAN.replace(provenance=(entry,)))
    assert "weights      abababababababab, as the factory built them" in found
    assert "statistics   0101010101010101" in found
    assert "decisions    keep a.weight:0 2,6" in found


def test_outputs_that_shrink_are_named() -> None:
    outputs = (OutputChange("hidden.0", 2, 64, (1, 2, 3)), OutputChange("", 1, 8, (0,)))
    found = shown(PLAN.replace(outputs=outputs))
    assert "outputs that shrink (2)" in found
    assert "  hidden.0, dimension 2: 64 → 3" in found
    assert "  the result, dimension 1: 8 → 1" in found


def test_like_reasons_share_one() -> None:
    groups = [group(f"h.{i}.x:0", mixing=f"h.{i}.heads is used as a number") for i in range(5)]
    found = shown(PLAN.replace(groups=tuple(groups), constraints=()))
    assert "h.0–4.heads is used as a number (5 groups)" in found


@pytest.mark.parametrize("width", range(29, 60))
def test_a_figure_is_not_torn_apart(width: int) -> None:
    text = "parameters 25.6 M → 6.9 M (−73 %); MACs 4.09 G → 483 M (−9 %), 102 MB → 7 B (−93 %)"
    lines = fold(text, width)
    assert " ".join(lines) == text
    assert all(len(line) <= width for line in lines)
    assert not any(line.startswith(("%", "M ", "G ", "→", "(")) for line in lines)
