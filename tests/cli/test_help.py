"""Claims of help: a command has an example, an option a heading, and exit codes stand once."""

from __future__ import annotations

import shlex

import click
import pytest

from planc.cli import cli, run
from planc.cli.help import dressed


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def test_commands_stand_under_headings_and_exit_codes_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = helped(capsys)
    for heading in ("Make:", "Review:", "Apply:", "Exit codes:"):
        assert f"{heading}\n" in text
    assert "Other commands" not in text
    for name in cli.commands:
        assert f"\n  {name} " in text
        assert "Exit codes:" not in helped(capsys, name)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_a_command_has_an_example_that_it_understands(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helped(capsys, name)
    assert "\nExample" in text
    assert "--debug" in text
    command = cli.commands[name]
    shown = text.partition("\nExample")[2].splitlines()
    examples = [line for line in shown if line.startswith("  planc ")]
    assert examples
    for example in examples:
        _, first, *words = shlex.split(example)
        assert first == name
        command.make_context(name, words)  # raises UsageError for what it does not know
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert param.opts[0] in text


def test_an_example_may_stand_in_the_text_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    own = click.Command("own", help="Do it.\n\nMore of it.\n\nExample: planc own --fast")
    shown = dressed(own).get_help(click.Context(own, info_name="own"))
    assert shown.endswith("Example:\n  planc own --fast")
    assert shown.count("Example") == 1
    assert "More of it." in shown


def test_commands_with_a_model_list_its_forms(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("plan", "apply", "verify", "explain", "measure", "mask", "calibrate"):
        text = helped(capsys, name)
        for form in ("torchvision:NAME", "timm:NAME", "file.py:factory", "DIRECTORY"):
            assert form in text
    assert "timm:NAME" not in helped(capsys, "show")
