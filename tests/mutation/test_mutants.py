"""The faults that are tried: which there are, that each is a program, and that it takes effect."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutation.covering import ROOT, TESTS, files_for, modules
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import Mutant, mutants, mutated
from tests.mutation.patching import MutatedImport, exchange, functions_of
from tests.mutation.trial import forked


def changes(source: str) -> set[str]:
    return {mutant.what for mutant in mutants("m.py", source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"a < b -> a >= b", "a < b -> a <= b"}),
        ("x = a == b", {"a == b -> a != b"}),
        ("x = 0 <= a", {"0 <= a -> 0 > a", "0 <= a -> 0 < a", "0 -> 1", "0 -> -1"}),
        ("x = a and b", {"a and b -> a or b", "a and b -> a", "a and b -> b"}),
        ("x = not a", {"not a -> a"}),
        ("x = -a + b", {"-a -> a", "-a + b -> -a - b"}),
        ("x = True", {"True -> False"}),
        ("x = 'ab', b'c'", {"'ab' -> 'ab?'", "b'c' -> b'c?'"}),
        ("x = 'what people read'", set()),
        ("x = f'what {a + b} is'", {"a + b -> a - b"}),
        ("x = f(a, b, k=c)", {"f(a, b, k=c) -> f(b, a, k=c)", "f(a, b, k=c) -> f(a, b)"}),
        ("f(a)", {"f(a) -> pass"}),
        ("x = min(a, b)", {"min(a, b) -> max(a, b)"}),
        ("x = zip(a, a, strict=True)", set()),
        ("x = a if b else c", {"a if b else c -> a if not b else c"}),
        (
            "def f(a: int = 1) -> int:\n    'doc'\n    return a",
            {"1 -> 2", "1 -> 0", "return a -> return None"},
        ),
        ("def f():\n    raise E('x')", {"raise E('x') -> pass", "'x' -> 'x?'"}),
        ("for a in b:\n    break", {"break -> continue", "break -> pass"}),
        ("a.b = c", {"a.b = c -> pass"}),
        ("a += b", {"a += b -> pass"}),
        ("x = [a for a in b if c]", {"for a in b if c -> for a in b"}),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    x = a", set()),
        ("__all__ = ['a']", set()),
        ("import a", set()),
    ],
)  # fmt: skip
def test_a_construct_has_these_mutants(source: str, expected: set[str]) -> None:
    assert changes(source) == expected


def test_exceptions_that_are_caught_and_loops_that_go_on_are_changed() -> None:
    source = "try:\n    a()\nexcept (A, B):\n    c()\nwhile d:\n    continue\n"
    found = changes(source)
    assert len([what for what in found if what.startswith("except")]) == 2
    assert "while d: -> while not d:" in found
    assert {"continue -> break", "continue -> pass"} <= found


def test_equal_changes_are_told_apart_and_lines_do_not_matter() -> None:
    source = "def f():\n    g(1)\n    g(1)\n"
    named = [mutant.name for mutant in mutants("m.py", source)]
    assert len(set(named)) == len(named)
    assert [mutant.name for mutant in mutants("m.py", "\n\n" + source)] == named
    assert "m.py:f: 1 -> 2" in named
    assert "m.py:f: 1 -> 2 #1" in named


def test_every_mutant_is_another_program_of_the_same_lines() -> None:
    chance = random.Random(0)
    for path in chance.sample(modules(), 6):
        source = (ROOT / path).read_text()
        found = mutants(path, source)
        for mutant in chance.sample(found, min(8, len(found))):
            tree = mutated(source, mutant)
            compile(tree, path, "exec")
            assert ast.dump(tree) != ast.dump(ast.parse(source))
            assert 1 <= mutant.line <= len(source.splitlines())


SOURCE = """
from contextlib import contextmanager

LIMIT = 3

class Gate:
    @property
    def most(self):
        return LIMIT + 1

    @contextmanager
    def held(self):
        yield 5

def outer():
    def inner():
        return 7
    return inner()
"""


def made(folder: Path) -> tuple[ModuleType, Path]:
    path = folder / "example_of_mutants.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, path


@pytest.mark.parametrize(
    ("what", "look", "before", "after"),
    [
        ("LIMIT + 1 -> LIMIT - 1", lambda m: m.Gate().most, 4, 2),
        ("5 -> 6", lambda m: m.Gate().held().__enter__(), 5, 6),
        ("7 -> 6", lambda m: m.outer(), 7, 6),
    ],
)
def test_a_function_that_is_known_elsewhere_gets_the_fault(
    what: str, look: Callable[[ModuleType], int], before: int, after: int, tmp_path: Path
) -> None:
    module, path = made(tmp_path)
    (mutant,) = [m for m in mutants(path.name, SOURCE) if m.what == what]
    assert look(module) == before
    exchange(mutant, SOURCE, path, functions_of(path))
    assert look(module) == after


def test_what_importing_runs_gets_the_fault_by_a_new_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = made(tmp_path)
    (mutant,) = [m for m in mutants(path.name, SOURCE) if m.what == "3 -> 4"]
    assert mutant.function == ""
    finder = MutatedImport(path.stem, path, mutated(SOURCE, mutant))
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    assert importlib.import_module(path.stem).Gate().most == 5
    monkeypatch.delitem(sys.modules, path.stem)


def test_a_forked_run_says_what_it_did_until_its_time_is_up() -> None:
    def forever(tell: Callable[[str], None]) -> None:
        tell("begun\n")
        while True:
            pass

    def fails(tell: Callable[[str], None]) -> None:
        tell("a")
        print("what is printed stays there")
        raise ValueError

    assert forked(lambda tell: tell("a\nb"), 30) == "a\nb"
    assert forked(forever, 0.5) == "begun\n"
    assert forked(fails, 30) == "a"


def test_every_module_has_tests_and_every_equivalent_is_a_mutant_with_its_reason() -> None:
    paths = modules()
    rooms = {path.removeprefix("planc/").rpartition("/")[0] for path in paths}
    assert rooms >= {
        f"files/{room}" for room in ("disk", "formats", "tensors", "checkpoint", "cut")
    }
    assert rooms >= {"files/pickles", "verify", "apply", "plan"}
    for path in paths:
        assert files_for([path]), path
    for place in TESTS:
        assert (ROOT / place).exists(), place
    known = {m.name for path in paths for m in mutants(path, (ROOT / path).read_text())}
    assert set(EQUIVALENT) <= known
    assert all(" " in reason for reason in EQUIVALENT.values())


def test_a_mutant_is_plain_data() -> None:
    mutant = Mutant("m.py", "f", 3, "1 -> 2", 0, 7, 0, 2)
    assert mutant.name == "m.py:f: 1 -> 2"
