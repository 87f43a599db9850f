"""The HTML page for reviewers of a plan, and of its differences from another.

The page stands alone: it has no scripts and fetches nothing; equal plans give equal bytes. Plans
are not trusted: every text is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import prod
from typing import Any

import jinja2

from planc import __version__
from planc.cli.report.strips import Strip, strip
from planc.cli.report.text import COSTS, attribute_name, provenance_text, share_text, units_text
from planc.errors.text import escaped
from planc.files.formats import encode_plan
from planc.plan.diff import GroupDiff, diff
from planc.plan.plan import Plan, PlanGroup
from planc.plan.specification import inputs_text

_PARTS = 24  # most modules in the chart of parameters


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure before and after. ``scale`` is ``before`` relative to the largest of the chart."""

    name: str
    before: int
    after: int
    scale: float = 1.0

    @property
    def share(self) -> float:
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, its picture, and its members."""

    group: PlanGroup
    strip: Strip
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A group pruned differently by two plans, drawn if its units agree."""

    entry: GroupDiff
    only_a: str
    only_b: str
    strip: Strip | None


def plan_html(plan: Plan, other: Plan | None = None, title: str = "") -> str:
    """Return the page for ``plan``; its differences from ``other`` come first.

    Args:
        title: heading of the page, such as the name of the plan's file.

    Raises:
        FileError: a plan is not valid.
    """
    return _template().render(
        title=title or plan.fingerprint[:16],
        version=__version__,
        digest=_digest(plan),
        plan=plan,
        facts=_facts(plan),
        costs=[
            Bar(name, getattr(plan.cost_before, field), getattr(plan.cost_after, field))
            for field, name in COSTS
        ],
        parts=_parts(plan),
        groups=[_row(group) for group in plan.groups],
        tensors=_tensors(plan),
        attributes=[(attribute_name(c), repr(c.before), repr(c.after)) for c in plan.attributes],
        other=other,
        comparison=None if other is None else _comparison(plan, other),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("planc.cli.report", "template"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "percent": percent}
    return environment.get_template("plan.html")


def _shown(value: Any) -> Any:
    """Escape invisible characters of a text; markup of the template stays."""
    text = isinstance(value, str) and not hasattr(value, "__html__")
    return escaped(value, "\n") if text else value


def short(figure: int) -> str:
    """Format a figure with three digits and a prefix, such as 4.09 G."""
    prefixes = ("", "k", "M", "G", "T", "P")
    power = next((i for i in range(5) if abs(figure) < 999.5 * 1000**i), 5)
    return f"{figure / 1000**power:.3g} {prefixes[power]}".rstrip()


def percent(share: float) -> str:
    """Format a share between 0 and 1 as a width in CSS."""
    return f"{100 * share:.3f}%"


def _digest(plan: Plan) -> str:
    return sha256(encode_plan(plan)).hexdigest()


def _facts(plan: Plan) -> list[tuple[str, str]]:
    facts = [
        ("made for", f"the structure {plan.fingerprint[:16]}, target {plan.target}"),
        *(("made by", provenance_text(entry)) for entry in plan.provenance),
        ("inputs", inputs_text(plan.inputs)),
    ]
    if plan.requires:
        facts.append(("requires", ", ".join(plan.requires)))
    return facts


def _sizes(plan: Plan) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    """Name, kind, shape before and shape after of each tensor."""
    rows = []
    for tensor in plan.tensors:
        cut = plan.cuts.get(tensor.name)
        rows.append((tensor.name, tensor.kind, tensor.shape, cut.shape if cut else tensor.shape))
    return rows


def _tensors(plan: Plan) -> list[tuple[str, str, str, str]]:
    """Rows of the table of changed tensors."""
    return [
        (name, _shape(before), _shape(after), share_text(prod(after), prod(before)))
        for name, _, before, after in _sizes(plan)
        if before != after
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _parts(plan: Plan) -> list[Bar]:
    """Parameters by module, at the greatest depth that fits the chart."""
    sizes = [
        (name.split(".")[:-1], prod(before), prod(after))
        for name, kind, before, after in _sizes(plan)
        if kind == "parameter"
    ]
    found: dict[str, list[int]] = {}
    for depth in range(1, 1 + max((len(path) for path, _, _ in sizes), default=0)):
        deeper: dict[str, list[int]] = {}
        for path, before, after in sizes:
            total = deeper.setdefault(".".join(path[:depth]) or "the model itself", [0, 0])
            total[0] += before
            total[1] += after
        if len(deeper) > _PARTS and found:
            break
        found = deeper
    largest = max((before for before, _ in found.values()), default=0) or 1
    return [Bar(name, before, after, before / largest) for name, (before, after) in found.items()]


def _row(group: PlanGroup) -> GroupRow:
    members = tuple(str(member) for member in group.members)
    return GroupRow(group, strip(group, (("gone", group.removed),)), members)


def _comparison(plan: Plan, other: Plan) -> dict[str, Any]:
    """Differences of ``plan`` (a) from ``other`` (b), for the template."""
    found = diff(plan, other)
    of = {group.name: group for group in plan.groups}
    return {
        "equal": not found,
        "source": found.source,
        "digest": _digest(other),
        "made_by": [provenance_text(entry) for entry in other.provenance],
        "costs": [
            (name, getattr(plan.cost_after, field), getattr(other.cost_after, field))
            for field, name in COSTS
        ],
        "groups": [_difference(of[entry.name], entry) for entry in found.groups],
        "only": [("a", found.groups_only_a), ("b", found.groups_only_b)],
        "attributes": [
            (attribute_name(entry), *(_change(side) for side in (entry.a, entry.b)))
            for entry in found.attributes
        ],
    }


def _difference(group: PlanGroup, entry: GroupDiff) -> Difference:
    sets = (("both", entry.both), ("gone", entry.only_a), ("other", entry.only_b))
    drawn = None if {"size", "rows"} & set(entry.described) else strip(group, sets)
    return Difference(entry, units_text(entry.only_a), units_text(entry.only_b), drawn)


def _change(side: tuple[Any, Any] | None) -> str:
    return "left as it is" if side is None else f"{side[0]!r} → {side[1]!r}"
