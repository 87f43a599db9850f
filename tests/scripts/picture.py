"""The picture in README.md: the page of a pruned resnet18, drawn as an SVG image.

``python -m tests.scripts.picture`` writes ``examples/report.svg`` anew; tests/test_documents.py
compares it with a fresh drawing. Figures, charts and colours are those of ``planc report``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import torch
from torchvision.models import resnet18

import planc
from planc.cli.report.charts import Segment, overview, stacked, widths
from planc.cli.report.sides import Sides
from planc.plan.head import change, counted, lead
from planc.plan.review.figures import figure

FILE = Path(__file__).parents[2] / "examples" / "report.svg"
WIDTH, HEIGHT = 860, 500
LEFT, RIGHT = 28, 832
_STYLE = """
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1a1f26 }
.title { font-size: 22px; font-weight: 650 }
.heading { font-size: 15px; font-weight: 650 }
.soft { fill: #5a6572 }
.small { fill: #5a6572; font-size: 11px }
.figure { font-size: 18px; font-weight: 600 }
.label { font-size: 11px }
.within { fill: #ffffff; font-size: 11px }
.page { fill: #ffffff; stroke: #e2e6ea }
.track { fill: #e2e6ea }
.grid { stroke: #e2e6ea }
.before { fill: #c8d0d8; stroke: #ffffff }
.kept { fill: #2f6fb7 }
.after { fill: #2f6fb7; stroke: #ffffff }
.gone { fill: #dd6f28; fill-opacity: .42 }
"""


def plan() -> planc.Plan:
    """The plan of the README's first command."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18().eval()
    return planc.compile(model, torch.zeros(1, 3, 224, 224), ratio=0.5)


def drawing(plan: planc.Plan, title: str) -> str:
    """The savings, the parameters and the widths of a plan as an SVG image."""
    sides = Sides((plan,))
    channels = [sum(g.size for g in plan.groups), sum(g.kept for g in plan.groups)]
    before, after = plan.cost_before, plan.cost_after
    params, macs = (before.params, after.params), (before.macs, after.macs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>The report of {escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        _text(LEFT, 44, title, "title"),
        _text(LEFT, 68, f"{lead(plan)}.", "soft"),
        *_figure(LEFT, "Channels", channels[0], channels[1], counted(channels[1])),
        *_figure(LEFT + 276, "Parameters", *params, figure(*params[::-1])),
        *_figure(LEFT + 552, "MACs", *macs, figure(*macs[::-1])),
        _text(LEFT, 184, "Where the parameters are", "heading"),
    ]
    modules = overview(sides.tensors)
    bars = stacked([part.name for part in modules], [part.params for part in modules])
    for y, kind, bar in zip((196, 222), ("before", "after"), bars, strict=True):
        parts += _bar(y, kind, bar)
    parts.append(_text(LEFT, 276, "Widths along the network", "heading"))
    return "\n".join([*parts, *_widths(sides, 292, 170), "</svg>", ""])


def _figure(x: int, name: str, before: int, after: int, shown: str) -> Iterator[str]:
    """A figure after pruning, the change, and a bar for the part that is kept."""
    yield _text(x, 100, name, "small")
    yield _text(x, 122, shown, "figure")
    yield _text(x + 252, 122, change(before, after), "soft", "end")
    yield f'<rect class="track" x="{x}" y="132" width="252" height="6"/>'
    yield f'<rect class="kept" x="{x}" y="132" width="{252 * after / before:.1f}" height="6"/>'


def _bar(y: int, kind: str, segments: Sequence[Segment]) -> Iterator[str]:
    scale = (RIGHT - LEFT) / 100
    for part in segments:
        x, width = LEFT + scale * part.start, scale * part.width
        yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="20"/>'
        if part.label:
            yield _text(x + 5, y + 14, part.label, "within" if kind == "after" else "label")


def _widths(sides: Sides, top: int, height: int) -> Iterator[str]:
    found = widths(sides.rows)
    scale, left = (RIGHT - LEFT - 34) / 100, LEFT + 34
    down = height / 100
    for place, width in found.lines:
        y = top + down * place
        yield f'<line class="grid" x1="{left}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(left - 8, y + 4, str(width), "small", "end")
    for column in found.columns:
        x, wide = left + scale * (column.left + 0.16 * column.width), 0.68 * scale * column.width
        for kind, a, b in (("gone", column.top, column.bottom), ("kept", column.bottom, 100.0)):
            y, high = top + down * a, down * (b - a)
            at = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"'
            yield f'<rect class="{kind}" {at}/>'
    for start, name in found.stages:
        yield _text(left + scale * start + 4, top + height + 16, name, "small")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


if __name__ == "__main__":
    FILE.write_text(drawing(plan(), "resnet18.planc"))
