"""The HTML page for reviewers of one plan, or of two or three side by side.

The page stands alone: styles and script are its own, a content policy by digest refuses any other,
and it fetches nothing. Equal plans give equal bytes. Plans are not trusted: their texts are escaped
in the page, and its script writes them as text only.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from operator import add
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from planc import __version__
from planc.cli.report.charts import Bar, Part, overview, parts, stacked, widths
from planc.cli.report.record import record
from planc.cli.report.scores import BINS, Distribution
from planc.cli.report.sides import Sides
from planc.errors import PlancError
from planc.errors.text import escaped
from planc.files.disk.atomic import write_file
from planc.plan.arguments import a_path, a_plan, described, optional, some_patterns, takes
from planc.plan.diff import diff
from planc.plan.head import LETTERS, STYLE, change, head_html, lead
from planc.plan.plan import Plan, Provenance
from planc.plan.review.figures import figure
from planc.plan.review.summary import origin_text, times_text
from planc.plan.specification import inputs_text

if TYPE_CHECKING:
    from planc.analysis import Analysis


def _an_analysis(name: str, value: Any) -> Any:
    """An analysis, recognised without importing :mod:`planc.analysis`."""
    if callable(getattr(value, "macs_by_module", None)) and not isinstance(value, type):
        return value
    raise PlancError(
        f"{name}: expected an analysis, got {described(value)}; give what planc.analyze returns"
    )


@takes(
    plan=a_plan,
    other=optional(a_plan),
    third=optional(a_plan),
    analysis=optional(_an_analysis),
    out=optional(a_path),
    names=optional(some_patterns),
)
def report(
    plan: Plan,
    other: Plan | None = None,
    third: Plan | None = None,
    *,
    analysis: Analysis | None = None,
    out: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """Return the page for reviewers of a plan, and write it to a file on request.

    The page is one HTML file without requests: savings, parameters by module, widths, and for each
    group its units, scores (if the plan holds them) and tensors. Equal plans give equal pages.

    Args:
        plan: the plan.
        other, third: plans to show beside it; groups are matched by name.
        analysis: the analysis of the plans' model, from :func:`planc.analyze`, to show MACs by
            module; a plan holds their total alone.
        out: the file to write, replaced if it exists.
        names: a name for each plan, such as its file's; the beginnings of the digests by default.

    Raises:
        PlancError: there is not one name for each plan; the analysis is of another model.
        OSError: the file cannot be written.

    >>> page = planc.report(plan, other, out="page.html")  # doctest: +SKIP
    """
    plans = [given for given in (plan, other, third) if given is not None]
    if names is not None and len(names) != len(plans):
        raise PlancError(f"names: expected one for each of {len(plans)} plans, got {len(names)}")
    titles = names or [plan.fingerprint[:16] for plan in plans]
    page = plans_html(plans, titles, analysis=analysis)
    if out is not None:
        write_file(out, page.encode())
    return page


def plans_html(
    plans: Sequence[Plan],
    names: Sequence[str],
    digests: Sequence[str] = (),
    analysis: Analysis | None = None,
) -> str:
    """Return the page for plans with names.

    Args:
        digests: the SHA-256 of each plan's file, if there are files.

    Raises:
        PlancError: there are more than three plans; the analysis is of another model.
    """
    if len(plans) > len(LETTERS):
        raise PlancError(f"a page shows at most {len(LETTERS)} plans, got {len(plans)}")
    sides = Sides(tuple(plans))
    macs = None if analysis is None else sides.macs(analysis)
    style = STYLE + _source("plan.css")
    script = _source("details.js") + _source("plan.js")
    return _template().render(
        names=names,
        letters=LETTERS,
        version=__version__,
        plans=plans,
        lead=lead(plans[0]),
        facts=_facts(plans, digests),
        notes=_notes(plans),
        head=Markup(head_html(*plans)),
        modules=parts(sides.tensors, macs),
        costs=_costs(overview(sides.tensors, macs)),
        widths=widths(sides.rows),
        rows=sides.rows,
        kinds=sorted({group.kind for plan in plans for group in plan.groups}),
        scores=sides.scores,
        scored=any(any(found) for found in sides.scores),
        counts=_counts(sides),
        data=Markup(record(sides)),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _costs(modules: Sequence[Part]) -> list[tuple[str, str, tuple[Bar, ...]]]:
    """Name, field and stacked bars of each known cost by module."""
    known = [("parameters", "params"), ("MACs", "macs")][: 2 if modules and modules[0].macs else 1]
    names = [part.name for part in modules]
    return [
        (name, field, stacked(names, [getattr(part, field) for part in modules]))
        for name, field in known
    ]


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
    environment.filters |= {"short": figure, "bars": _bars, "bare": _bare, "name": _name}
    environment.globals |= {"change": change}
    return environment.get_template("plan.html")


def _shown(value: Any) -> Any:
    """Escape invisible characters of a text; markup of the template stays."""
    text = isinstance(value, str) and not hasattr(value, "__html__")
    return escaped(value, "\n") if text else value


@cache
def _source(name: str) -> str:
    return (files("planc.cli.report") / "template" / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """The content policy: this style, this script, no request, no markup made from text."""
    own = {
        kind: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("style", style), ("script", script))
    }
    return (
        f"default-src 'none'; style-src {own['style']}; script-src {own['script']}; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _name(text: str) -> Markup:
    """Escape a name; it may break after each dot."""
    return Markup(escape(escaped(text)).replace(".", Markup(".<wbr>")))


def _bare(figure: float) -> str:
    """Format a coordinate with two digits at most."""
    return f"{figure:.2f}".rstrip("0").rstrip(".")


def _bars(found: Distribution, removed: bool) -> str:
    """Path data of a small histogram, 20 high: all units, or the removed ones in front of them."""
    path, last = ["M0 20"], 0
    counts = found.removed if removed else [*map(add, found.kept, found.removed)]
    tallest = found.tallest
    for i, count in enumerate(counts):
        if count != last:
            path.append(f"H{i}V{round(20 - 20 * count / tallest, 1):g}")
            last = count
    return "".join([*path, f"H{BINS}V20z"])


def _facts(plans: Sequence[Plan], digests: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Names and values for each plan, in the words of the plan."""
    facts = {
        "made by": ["; ".join(map(origin_text, plan.provenance)) for plan in plans],
        "weights": ["; ".join(filter(None, map(_weights, plan.provenance))) for plan in plans],
        "statistics": [
            "; ".join(entry.statistics.hex()[:16] for entry in plan.provenance if entry.statistics)
            for plan in plans
        ],
        "decisions": [
            "; ".join(decision for entry in plan.provenance for decision in entry.decisions)
            for plan in plans
        ],
        "latency": [times_text(plan.latency) if plan.latency else "" for plan in plans],
        "inputs": [inputs_text(plan.inputs) for plan in plans],
        "target": [plan.target for plan in plans],
        "requires": [", ".join(plan.requires) for plan in plans],
        "structure": [plan.fingerprint[:16] for plan in plans],
        "SHA-256 of the file": digests,
    }
    return [(name, values) for name, values in facts.items() if any(values)]


_ORIGINS = {"file": "from a file", "factory": "as built by the factory", "model": "of a module"}


def _weights(entry: Provenance) -> str:
    """The origin and the digest of the weights that were scored."""
    digest = entry.weights.hex()[:16] if entry.weights else ""
    return ", ".join(filter(None, [_ORIGINS.get(entry.origin, entry.origin), digest]))


def _notes(plans: Sequence[Plan]) -> list[str]:
    """Remarks: weights that may be random, other structures, equal plans."""
    notes = []
    built = [
        letter
        for letter, plan in zip(LETTERS, plans, strict=False)
        if any(entry.origin == "factory" for entry in plan.provenance)
    ]
    if built:
        which = f" of {' and '.join(built)}" if len(plans) > 1 else ""
        notes.append(
            f"The scores{which} are those of weights as the model's factory built them: they may "
            "be random."
        )
    for letter, other in zip(LETTERS[1:], plans[1:], strict=False):
        found = diff(plans[0], other)
        if not found:
            notes.append(f"Plans A and {letter} are equal.")
        elif found.source:
            notes.append(f"Plans A and {letter} are for different structures: {found.source}.")
    return notes


def _counts(sides: Sides) -> dict[str, int]:
    """Numbers of groups, by the filters of the table."""
    return {
        "all": len(sides.rows),
        "pruned": sum(row.pruned for row in sides.rows),
        "whole": sum(not row.pruned for row in sides.rows),
        "mixing": sum(bool(row.group.mixing) for row in sides.rows),
        "differing": sum(row.differs for row in sides.rows),
        "tensors": sum(tensor.changed for tensor in sides.tensors),
    }
