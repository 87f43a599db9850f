"""Every example runs as its first lines say, from the root of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ranks import HANGS

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
OPTIONAL = ("transformers",)  # what only some of them need


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_and_print(name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    for library in OPTIONAL:
        if f"from {library} import" in text:
            pytest.importorskip(library)
    assert f"python examples/{name}" in text
    command = [sys.executable, "-c", _RUN, f"examples/{name}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert run.returncode == 0, run.stderr
    assert run.stdout


_RUN = """
import runpy, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, ".")
runpy.run_path(sys.argv[1], run_name="__main__")
"""
