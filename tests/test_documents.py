"""The documents hold: every shown command and line of Python runs, and prints the shown output."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planc
from planc.cli import run
from tests.scripts import picture
from tests.scripts.promises import PARTS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples" / "README.md"
FILES = ROOT / "planc" / "files" / "README.md"
PLANC = ROOT / "planc" / "README.md"
DOCUMENTS = [README, EXAMPLES, FILES, PLANC, ROOT / "tests" / "bench" / "README.md"]
DIFFER = 1  # the exit code of planc diff

NETS = """
from tests.test_documents import Net as small
"""


def blocks(document: Path) -> Iterator[tuple[str, str, str]]:
    """Mark, language and text of each fenced block."""
    pattern = r"(?:^<!-- (\w+) -->\n)?^```(\w*)\n(.*?)^```$"
    for found in re.finditer(pattern, document.read_text(), re.MULTILINE | re.DOTALL):
        yield found[1] or "", found[2], found[3]


class Net(nn.Module):
    """The reader's model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)
        self.conv2, self.fc = nn.Conv2d(64, 64, 3), nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.conv2(self.bn1(self.conv1(x)).relu()).mean((2, 3)))
        return y


def fine_tune(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()


@pytest.fixture
def names() -> dict[str, Any]:
    """The names that the Python of the documents takes for granted."""
    torch.manual_seed(0)
    loader = [(torch.randn(4, 3, 32, 32), torch.randint(5, (4,))) for _ in range(2)]
    return {
        "planc": planc,
        "Net": Net,
        "model": Net().eval(),
        "images": torch.randn(2, 3, 32, 32),
        "loader": loader,
        "fine_tune": fine_tune,
        "task_loss": torch.zeros(()),
    }


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the reader's factory and weights."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.setenv("COLUMNS", "100")  # of the terminal that the documents show
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    torch.manual_seed(0)
    (tmp_path / "checkpoint").mkdir()
    for name in ("weights.safetensors", "checkpoint/model.safetensors"):
        save_file(Net().state_dict(), tmp_path / name)
    return tmp_path


def execute(document: Path, names: dict[str, Any]) -> None:
    """Runs the Python of a document; every block begins with the reader's own model."""
    model = names["model"]
    for _, language, text in blocks(document):
        if language == "python":
            names["model"] = model
            exec(compile(text, str(document), "exec"), names)


def call(line: str) -> None:
    """Runs a command of a document, with HEX for the digest of the plan that it names."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["planc"]:
        if "HEX" in words:
            content = next(Path(word) for word in words if word.endswith(".planc")).read_bytes()
            words[words.index("HEX")] = hashlib.sha256(content).hexdigest()
        allowed = (0, DIFFER) if words[1] == "diff" else (0,)
        assert run(words[1:]) in allowed, line
    else:
        assert not words or words[0] == "sha256sum", f"{line}: no test runs this"


def shown(text: str) -> list[str]:
    """Lines without what may differ between machines: versions, paths, and errors of rounding."""
    text = re.sub(r"(planc|torch) (unknown|[\d.]+\w*)", r"\1 X", text)
    text = re.sub(r"\(/\S+/(\w+\.py:\d+)\)", r"(\1)", text)
    text = re.sub(r"\d\.\de-\d\d relative", "E relative", text)
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


def agree(expected: list[str], found: list[str]) -> bool:
    """True if the lines are equal, where ``...`` stands for any number of them."""
    if not expected:
        return not found
    if expected[0].strip() == "...":
        return any(agree(expected[1:], found[i:]) for i in range(len(found) + 1))
    return bool(found) and expected[0] == found[0] and agree(expected[1:], found[1:])


def test_the_landing_page_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_the_commands_of_the_landing_page_print_their_output(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = {mark: text for mark, _, text in blocks(README) if mark}
    for command in marked["tour"].strip().split(" && ")[2:]:
        call(command.removeprefix(".venv/bin/"))
    for mark, _, text in blocks(README):
        if mark == "output":
            command, _, output = text.partition("\n")
            capsys.readouterr()
            call(command.removeprefix("$ "))
            found = capsys.readouterr().out
            assert agree(shown(output), shown(found)), f"{command}\n{found}"


@pytest.mark.long  # trains
def test_the_lines_of_the_landing_page_run(directory: Path, names: dict[str, Any]) -> None:
    execute(README, names)
    deployed, accuracy = names["deployed"], names["accuracy"]
    assert type(deployed) is names["Net"]
    assert deployed.conv1.out_channels < 32
    assert accuracy(deployed) == accuracy(names["smaller"]) > 0.95


@pytest.mark.long  # trains
def test_the_second_minute_ends_with_the_accuracy_of_the_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, output = (text for mark, _, text in blocks(README) if mark == "digits")
    module = importlib.import_module(command.split()[-1].removesuffix(".py").replace("/", "."))
    module.main()
    found = [re.sub(r"\d+\.\d%", "N%", text) for text in (output, capsys.readouterr().out)]
    assert found[0] == found[1]


def test_the_picture_is_drawn_from_the_plan() -> None:
    assert picture.FILE.read_text() == picture.drawing(picture.plan(), "resnet18.planc")


def test_the_lines_of_the_stories_run(directory: Path, names: dict[str, Any]) -> None:
    execute(EXAMPLES, names)


def test_the_lines_about_files_run(
    directory: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    of_torchrun = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in of_torchrun.items():
        monkeypatch.setenv(name, value)
    names["plan"] = planc.compile(names["model"], names["images"], ratio=0.5)
    names["smaller"] = planc.apply(names["plan"], names["model"])
    names["optimizer"] = torch.optim.Adam(names["smaller"].parameters())
    save_file(names["model"].state_dict(), directory / "checkpoint" / "model.safetensors")
    execute(FILES, names)
    assert (directory / "smaller").is_dir()


@pytest.mark.parametrize("document", [EXAMPLES, FILES], ids=["stories", "files"])
def test_the_commands_on_the_readers_model_run(document: Path, directory: Path) -> None:
    for mark, language, text in blocks(document):
        if language == "sh" and not mark:
            for line in text.splitlines():
                call(line)


def test_the_landing_page_applies_a_reviewed_plan(directory: Path) -> None:
    line = "planc plan nets:small --input 1x3x32x32 --ratio 0.5 -o model.planc"
    call(line)
    for mark, language, text in blocks(README):
        if language == "sh" and not mark:
            call(text.strip())
    assert Path("smaller").is_dir()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_scripts_are_there(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (document.parent / link).exists(), link
    for script in re.findall(r"python -m\s(tests[\w.]+)", text):
        assert importlib.util.find_spec(script) is not None, script
    for path in re.findall(r"`((?:tests|examples)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path


def test_every_example_is_a_story() -> None:
    told = set(re.findall(r"\| \[(\w+\.py)\]", EXAMPLES.read_text()))
    assert told == {path.name for path in (ROOT / "examples").glob("*.py")}


def test_every_promise_is_listed() -> None:
    listed = re.findall(r"^\| (R\d+) \|", FILES.read_text(), re.MULTILINE)
    assert {name.split()[0] for name in PARTS} <= set(listed)


def test_the_architecture_names_the_rooms() -> None:
    text = PLANC.read_text()
    rooms = {f"{path.parent.name}/" for path in (ROOT / "planc").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+/)` \|", text, re.MULTILINE)) == rooms
    for path in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+(?:\.py)?)?)`", text):
        name = path.rstrip("/")
        found = [*(ROOT / "planc").rglob(name), *(ROOT / "planc").rglob(f"{name}.py")]
        assert found or (ROOT / name).exists(), path
