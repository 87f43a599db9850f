"""A character that cannot be seen is refused in a name, and escaped wherever free text is shown."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import planc
from planc.cli import run
from planc.cli.report.html import plans_html
from planc.errors import MalformedFile, PlancError, PlancWarning, UnsafePath
from planc.errors.text import escaped, hidden
from planc.files.disk.limits import DEFAULT
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.envelope import seal
from planc.files.formats.latency import to_body as latency_body
from planc.files.formats.masks import to_body as masks_body
from planc.files.formats.specification import check_specification
from planc.files.tensors.header import Entry, parse_text, write_header
from planc.files.tensors.shards import check_names
from planc.plan.plan import WidthConstraint
from tests.files.formats.test_latency_files import TABLE
from tests.masks.test_files import MASKS
from tests.support.strategies import example_plan

ROOT = Path(__file__).parents[2]
HIDDEN = [
    "\x1b[2J", "\x1b]0;owned\x07", "\r", "\n", "\t", "\x00", "\x7f", "\x9b31m", "\x85", "\u202e",
    "\u2066", "\u200b", "\u200f", "\ufeff", "\u2028", "\u2029", "\U000e0041", "\u061c", "\u2060",
    "\ufe0f", "\u3164", "\u00ad",
]  # fmt: skip
SEEN = ["block.0.weight", "größe", "層", "שלום", "a b", "[red]x[/red]", "<b>", "\\x1b", "😀"]


@pytest.mark.parametrize("text", HIDDEN)
def test_what_cannot_be_seen_is_escaped_as_in_python(text: str) -> None:
    shown = escaped(f"a{text}b")
    assert shown.startswith("a\\")
    assert not hidden(shown)
    assert hidden(f"a{text}b") in shown
    if text.isascii():
        assert shown == repr(f"a{text}b")[1:-1]


@pytest.mark.parametrize("text", SEEN)
def test_what_can_be_seen_stays(text: str) -> None:
    assert escaped(text) == text
    assert hidden(text) == ""


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1))
def test_no_control_or_format_character_stays(text: str) -> None:
    shown = escaped(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert escaped(text, "\n\t").replace("\n", "").replace("\t", "").isprintable()


def test_every_format_character_that_python_knows_is_hidden() -> None:
    categories = ("Cc", "Cf", "Cs", "Zl", "Zp")
    missed = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in categories]
    assert not [hex(ord(c)) for c in missed if not hidden(c)]


def edits() -> dict[str, Any]:
    """Places of names in a plan's body, each with what sets it."""

    def at(*path: Any) -> Any:
        def put(body: Any, text: str) -> None:
            *parents, last = path
            for key in parents:
                body = body[key]
            body[last] = text

        return put

    return {
        "tensor": at("tensors", 0, "names", 0),
        "group": at("groups", 0, "name"),
        "kind": at("groups", 0, "kind"),
        "module": at("modules", 0, "path"),
        "attribute": at("structural", 1, 0, 0),
        "criterion": at("provenance", 0, "criterion"),
        "policy": at("provenance", 0, "policy"),
        "version": at("provenance", 0, "versions", 0, 1),
        "library": at("provenance", 0, "versions", 0, 0),
        "target": at("target"),
    }


@pytest.mark.parametrize("place", edits())
@pytest.mark.parametrize("text", HIDDEN[:1] + HIDDEN[9:12])
def test_names_of_a_plan_that_cannot_be_seen_are_refused(place: str, text: str) -> None:
    from planc.files.formats.conversion import to_body

    body = msgpack.unpackb(to_body(example_plan()))
    edits()[place](body, f"a{text}")
    with pytest.raises(PlancError) as caught:
        decode_plan(seal(b"planc/plan", msgpack.packb(body)))
    assert not hidden(str(caught.value))
    if place != "target":
        assert f"has the character {hidden(text)}" in str(caught.value)


@pytest.mark.parametrize("field", ["machine", "operator", "unmeasured"])
def test_names_of_a_latency_table_are_refused(field: str, tmp_path: Path) -> None:
    body = msgpack.unpackb(latency_body(TABLE))
    if field == "operator":
        body["grids"][0]["operator"] = "a\x1b"
    else:
        body[field] = "a\x1b" if field == "machine" else ["a\x1b"]
    (tmp_path / "t").write_bytes(seal(b"planc/time", msgpack.packb(body)))
    with pytest.raises(MalformedFile, match=rf"{field}: .* has the character \\x1b"):
        planc.load_latency(tmp_path / "t")


def test_names_of_a_mask_plan_are_refused(tmp_path: Path) -> None:
    body = msgpack.unpackb(masks_body(MASKS))
    body["tensors"][0]["names"][0] += "\u202e"
    (tmp_path / "m").write_bytes(seal(b"planc/mask", msgpack.packb(body)))
    with pytest.raises(MalformedFile, match=r"has the character \\u202e"):
        planc.load_masks(tmp_path / "m")


def test_names_of_tensors_and_shards_are_refused() -> None:
    from planc.files.disk.limits import DEFAULT

    with pytest.raises(MalformedFile, match=r"a tensor's name: .* has the character \\x1b"):
        parse_text(write_header([Entry("a\x1b[0m", "U8", (1,), 0, 1)], {}), DEFAULT)
    for text in HIDDEN:
        with pytest.raises(UnsafePath) as caught:
            check_names([f"a{text}.safetensors"], "the index")
        assert not hidden(str(caught.value))


def free() -> planc.Plan:
    """A plan with such characters in all of its free text."""
    text = "[red]a\x1b[31m[/red]\u202e"
    plan = example_plan()
    groups = (replace(plan.groups[0], mixing=text), *plan.groups[1:])
    inputs = ("tuple", ("tuple",), ("dict", (text, ("value", text))))
    constraints = (WidthConstraint(text, text),)
    return plan.replace(groups=groups, inputs=inputs, constraints=constraints)


@pytest.mark.parametrize("command", ["show", "show --json", "diff", "diff --json"])
def test_free_text_is_escaped_on_a_terminal(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.planc"
    planc.save_plan(free(), path)
    assert planc.load_plan(path) == free()
    other = [] if "show" in command else [str(tmp_path / "b.planc")]
    planc.save_plan(example_plan(), tmp_path / "b.planc")
    run([*command.split(), str(path), *other])
    out = capsys.readouterr().out
    assert not hidden(out.replace("\n", ""))
    if command == "show":
        assert "[red]a\\x1b[31m" in out
    if command == "show --json":
        assert json.loads(out)["groups"][0]["mixing"] == free().groups[0].mixing


def test_colours_of_a_terminal_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planc.save_plan(free(), tmp_path / "a.planc")
    done = subprocess.run(
        [sys.executable, "-m", "planc", "show", str(tmp_path / "a.planc")],
        env={
            "FORCE_COLOR": "1",
            "TERM": "xterm",
            "PYTHONPATH": str(Path(planc.__file__).parents[1]),
        },
        capture_output=True,
        check=False,
    )
    assert b"\x1b[1m" in done.stdout
    assert b"a\x1b[31m" not in done.stdout
    assert b"\\x1b[31m" in done.stdout


def test_free_text_is_escaped_on_a_page() -> None:
    page = plans_html([free(), example_plan()], ["a\x1b[2J.planc", "b"])
    assert not hidden(page.replace("\n", ""))
    assert "a\\x1b[2J.planc" in page
    assert "\\u202e" in page


def test_errors_and_warnings_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(PlancError("a\x1b[2J\nb\u202e")) == "a\\x1b[2J\nb\\u202e"
    assert str(PlancWarning("\x9b")) == "\\x9b"
    (tmp_path / "a\x1b[2J[red]").write_text("x")
    for arguments in (
        ["show", str(tmp_path / "a\x1b[2J[red]")],
        ["show", str(tmp_path / "none\x1b[2J")],
        ["show", "--a\x1b[2J"],
        ["verify", str(tmp_path / "a\x1b[2J[red]"), "b\x1b[2J:c"],
    ):
        assert run(arguments) != 0
        said = capsys.readouterr()
        assert "\\x1b[2J" in said.err
        assert not hidden(said.err.replace("\n", ""))


def test_modules_with_such_names_are_refused_before_a_file_is_written(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("a\x1b[2J", nn.Linear(4, 8))
    model.add_module("b", nn.Linear(8, 2))
    with pytest.raises(PlancError, match=r"a\\x1b\[2J"):
        planc.save_plan(planc.compile(model, torch.zeros(1, 4), ratio=0.5), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", SEEN)
def test_other_names_are_written_and_read(text: str) -> None:
    plan = example_plan()
    groups = (replace(plan.groups[0], kind=text, mixing=text), *plan.groups[1:])
    assert decode_plan(encode_plan(plan.replace(groups=groups))).groups[0].kind == text


def test_json_for_people_escapes_delete(capsys: pytest.CaptureFixture[str]) -> None:
    from planc.cli.terminal import print_json

    print_json({"a": "\x7f\x1b\u202e"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": "\x7f\x1b\u202e"}
    assert not hidden(out.replace("\n", ""))
    assert click.unstyle(out) == out


def test_a_type_of_an_input_has_characters_that_can_be_seen() -> None:
    with pytest.raises(MalformedFile, match=r"float\\x1b.* has the character"):
        check_specification(("tensor", (1,), "float\x1b32"), DEFAULT)
