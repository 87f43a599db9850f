"""Screens of ``planc explain``: golden texts of known plans, widths, and names of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Group as Stack

from planc.cli import run
from planc.cli.report.explanation import explanation
from tests.cli.report.printed import text
from tests.scripts.screens import SCREENS

FOLDER = Path.cwd()
COUPLED = "    blocks.0.norm.weight:0, coupled by aten.batch_norm.default in blocks.0.norm"


def entry(*reasons: str, **more: Any) -> dict[str, Any]:
    return {"title": "blocks.0.conv.weight:0", "reasons": list(reasons), **more}


def shown(*entries: dict[str, Any], width: int = 80, full: bool = False) -> str:
    return text(Stack(*explanation(entries, width, full)), width)


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize(
    ("name", "of"),
    [("resnet50", "layer3.0"), ("vit_b_16", "*encoder_layer_3.*"), ("llama", "*.0.self_attn.*")],
)
def test_explanations_are_the_golden_texts(
    name: str, of: str, width: int, regenerate: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", str(SCREENS / f"{name}.planc"), of, "--width", str(width)]) == 0
    found = capsys.readouterr().out
    path = SCREENS / f"{name}.explain.{width}.txt"
    if regenerate:
        path.write_text(found)
    assert found == path.read_text(), f"if the change is right: pytest --regenerate {__file__}"
    assert len(found.splitlines()) <= 45


def test_files_are_named_as_they_are_imported() -> None:
    places = {
        "/opt/env/lib/python3.11/site-packages/torchvision/models/resnet.py:93": (
            "torchvision/models/resnet.py:93"
        ),
        "/usr/lib/python3/dist-packages/timm/layers/norm.py:7": "timm/layers/norm.py:7",
        f"{FOLDER}{os.sep}nets.py:3": "nets.py:3",
        "/elsewhere/nets.py:3": "/elsewhere/nets.py:3",
    }
    for place, short in places.items():
        found = shown(entry(f"{COUPLED} ({place})"), width=200)
        assert f"blocks.0.norm ({short})\n" in found
        assert f"({place})" in shown(entry(f"{COUPLED} ({place})"), width=200, full=True)


def test_long_reasons_continue_under_themselves() -> None:
    found = shown(entry(f"{COUPLED} (nets.py:3)"), width=60).splitlines()
    assert found[1].startswith("      blocks.0.norm.weight:0,")
    assert found[2].startswith("        ")


def test_members_of_like_names_share_a_line_unless_all_are_asked_for() -> None:
    members = [f"layers.{i}.norm.weight:0" for i in range(12)]
    made = entry("12 members leave together:", *(f"  {m}" for m in members), "mixing: softmax")
    found = shown(made | {"members": members}).splitlines()
    assert found[1:] == [
        "  12 members leave together:",
        "    layers.0–11.norm.weight:0",
        "  mixing: softmax",
    ]
    assert len(shown(made | {"members": members}, full=True).splitlines()) == 15


def test_the_change_that_frees_a_pin_comes_last() -> None:
    found = shown(entry("3 indices are pinned:", remedy="prune the layer before it"))
    assert found.splitlines()[-1] == "  to free it: prune the layer before it"


@settings(max_examples=30)
@given(st.lists(st.text("ab. :/(1", max_size=90).map(str.lstrip), max_size=5), st.integers(60, 160))
def test_no_line_is_wider_than_the_screen(reasons: list[str], width: int) -> None:
    for full in (True, False):
        lines = explanation([entry(*reasons, remedy="x" * 100)], width, full)
        assert all(len(line) <= width for line in lines)
