"""Imports run one way, torch stays at the edge, and nothing is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "planc"

# Each room imports from the lines above its own alone, and from its own package.
LAYERS = (
    ("errors",),
    ("ir",),
    ("plan",),
    ("rules",),
    ("modules", "analysis"),
    ("trace",),
    ("apply", "criteria"),
    ("policy",),
    ("compile", "files"),
    ("masks", "verify"),
    ("cli",),
    ("__main__",),
    ("penalties", "labels", "facts"),  # other names of criteria.penalties and rules.labels
)
# without torch, as far as they go; the rest of these rooms touches tensors
PLAIN = {
    "errors",
    "ir",
    "plan",
    "rules",
    "analysis",
    "cli",
    "files/disk",
    "files/formats",
    "files/tensors",
    "files/cut",
    "policy",
}
TOUCH_TENSORS = {"analysis/constants", "policy/latency", "files/cut/job.py", "cli/named.py"}
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def home(path: Path) -> str:
    """The module or sub-package directly under planc that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each import that can run: those for type checkers never do."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by full name"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in whole)
        waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_from_above(path: Path) -> None:
    own = home(path)
    assert own in RANK, f"{own} has no place in LAYERS"
    public_only = own == "cli"  # it calls the library as its users do: planc.plan, planc.apply
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] != "planc" or (public_only and len(parts) == 1):
            continue
        assert len(parts) > 1, f"{path}:{line}: imports planc itself"
        if parts[1] == "__version__" or parts[1] == own:
            continue
        assert RANK[parts[1]] < RANK[own], f"{path}:{line}: {own} imports {parts[1]} from above"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_what_touches_tensors_imports_torch(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    if not _under(place, PLAIN) or _under(place, TOUCH_TENSORS):
        return
    torch_lines = [
        line for line, name in imported(path) if name.split(".")[0] in ("torch", "torchvision")
    ]
    assert not torch_lines, f"{path}:{torch_lines[0]} imports torch"


def _under(place: str, places: set[str]) -> bool:
    return any(place == other or place.startswith(f"{other}/") for other in places)


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after one statement."""
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_type_checkers_see_every_public_name() -> None:
    import planc

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert [name.asname for node in imports for name in node.names] == [
        name.name for node in imports for name in node.names
    ]
    assert sorted(name.name for node in imports for name in node.names) == planc.__all__


def test_help_names_every_public_function_by_its_task() -> None:
    import planc

    functions = [name for name in planc.__all__ if name.islower()]
    pairs = [name for name in functions if name.partition("_")[2] in ("latency", "statistics")]
    assert [n for n in functions if n not in pairs and n not in str(planc.__doc__)] == []


def test_importing_planc_imports_nothing_heavy() -> None:
    assert not {"torch", "numpy", "scipy", "rich"} & modules_after("import planc")


def test_help_imports_neither_torch_nor_numpy() -> None:
    loaded = modules_after("from planc.cli import run\nassert run(['--help']) == 0")
    assert "click" in loaded
    assert not {"torch", "numpy", "scipy", "safetensors"} & loaded


@pytest.mark.parametrize(
    "module", ["planc.analysis", "planc.plan.plan", "planc.files.formats", "planc.plan.diff"]
)
def test_plans_and_analysis_work_without_torch(module: str) -> None:
    assert "torch" not in modules_after(f"import {module}")


def test_public_names_win_over_modules_of_the_same_name() -> None:
    script = (
        "import planc, planc.trace.record, planc.verify, planc.plan.diff, planc.compile\n"
        "assert callable(planc.trace) and callable(planc.verify) and callable(planc.compile)"
    )
    modules_after(script)


def test_every_public_name_is_there() -> None:
    modules_after("import planc\nassert all(hasattr(planc, name) for name in planc.__all__)")
