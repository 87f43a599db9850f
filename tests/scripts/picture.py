"""The picture in README.md: the report of a pruned resnet18, drawn as an SVG image.

``python -m tests.scripts.picture`` writes ``examples/report.svg`` anew; tests/test_documents.py
compares it with a fresh drawing. Figures, units and colours are those of ``planc report``.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import torch
from planc.cli.report.strips import strip
from torchvision.models import resnet18

import planc
from planc.cli.report.html import short
from planc.cli.report.text import COSTS

FILE = Path(__file__).parents[2] / "examples" / "report.svg"
WIDTH = 860
_STYLE = """
text { font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c2126 }
.title { font-size: 22px; font-weight: 600 }
.soft { fill: #5b6770; font-size: 13px }
.figure { font-size: 18px }
.code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace }
.page { fill: #ffffff; stroke: #dfe3e6 }
.panel { fill: #f6f7f8 }
.stays { fill: #c9d8e8 }
.kept { fill: #3573b1 }
.gone { fill: #d8641c }
"""


def plan() -> planc.Plan:
    """The plan of the README's first command."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18().eval()
    return planc.compile(model, torch.zeros(1, 3, 224, 224), ratio=0.5)


def drawing(plan: planc.Plan, title: str) -> str:
    """The costs and the groups of a plan as an SVG image."""
    height = 250 + 26 * len(plan.groups)
    touched = sum(bool(group.removed) for group in plan.groups)
    lead = f"A pruning plan: {touched} of {len(plan.groups)} groups lose units."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The report of {escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(24, 42, title, "title"),
        _text(24, 68, lead),
    ]
    for i, (field, name) in enumerate(COSTS):
        before, after = getattr(plan.cost_before, field), getattr(plan.cost_after, field)
        parts += _card(24 + 276 * i, name, before, after)
    y = 226
    for x, heading in ((24, "group"), (250, "kind"), (340, "units: removed, kept")):
        parts.append(_text(x, y, heading, "soft"))
    parts += [_text(738, y, "of", "soft", "end"), _text(836, y, "kept", "soft", "end")]
    for group in plan.groups:
        y += 26
        drawn = strip(group, (("gone", group.removed),))
        scale = f"translate(340 {y - 13}) scale({350 / drawn.columns:.4f} {16 / drawn.height:.4f})"
        bars = [f'<rect class="stays" width="{drawn.columns}" height="{drawn.height}"/>']
        bars += [f'<path class="{name}" d="{path}"/>' for name, path in drawn.paths]
        parts += [
            _text(24, y, group.name, "code"),
            _text(250, y, group.kind),
            f'<g transform="{scale}">{"".join(bars)}</g>',
            _text(738, y, str(group.size), "", "end"),
            _text(836, y, str(group.kept), "", "end"),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _card(x: int, name: str, before: int, after: int) -> list[str]:
    """One cost before and after, with a bar for the share that is left."""
    share = after / before
    return [
        f'<rect class="panel" x="{x}" y="90" width="260" height="106" rx="8"/>',
        _text(x + 16, 114, name, "soft"),
        _text(x + 16, 140, f"{short(before)} → {short(after)}", "figure"),
        f'<rect class="stays" x="{x + 16}" y="152" width="228" height="12" rx="3"/>',
        f'<rect class="kept" x="{x + 16}" y="152" width="{228 * share:.1f}" height="12" rx="3"/>',
        _text(x + 16, 184, f"{100 * share:.1f} % left", "soft"),
    ]


def _text(x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    FILE.write_text(drawing(plan(), "resnet18.planc"))
