"""Tries mutants and prints, for each module, how many the tests killed, and all that survived."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.mutation.covering import ROOT, files_for, left_out, modules
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.trial import PLUGINS, BareServer, Results, Trial

GOAL = 95.0  # per cent


def all_mutants(paths: list[str]) -> list[Mutant]:
    return [mutant for path in paths for mutant in mutants(path, (ROOT / path).read_text())]


def paths_of(chosen: list[Mutant]) -> list[str]:
    return sorted({mutant.path for mutant in chosen})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--sample", type=int, help="of each module at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose path begins so")
    parser.add_argument("--match", default="", help="mutants in whose name this stands")
    parser.add_argument("--tests", nargs="*", help="these alone, and not all of the modules")
    parser.add_argument("--again", type=Path, help="survivors in what an earlier run printed")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    paths = modules(options.only)
    known = all_mutants(paths)
    chosen = _chosen(known, options)
    stale = [
        name
        for name in EQUIVALENT
        if name.startswith(tuple(f"{path}:" for path in paths))
        and name not in {m.name for m in known}
    ]
    tests = {path: options.tests or files_for([path]) for path in paths_of(chosen)}
    results = _tried(chosen, tests, options.minutes) if chosen else Results()
    report(results, known, [m for m in known if m.name in EQUIVALENT])
    for name in stale:
        print(f"listed as equivalent, but no mutant: {name}")
    return 1 if stale or _score(len(results.killed), results.tried) < GOAL else 0


def _chosen(known: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    """In random order, so that the time that there is goes to all modules alike."""
    chance = random.Random(options.seed)
    order = [m for m in known if m.name not in EQUIVALENT and options.match in m.name]
    if options.again:
        printed = {line.rpartition("  ")[2] for line in options.again.read_text().splitlines()}
        order = [m for m in order if m.name in printed]
    chance.shuffle(order)
    if options.sample is None:
        return order
    counts = Counter[str]()
    kept = []
    for mutant in order:
        counts[mutant.path] += 1
        if counts[mutant.path] <= options.sample:
            kept.append(mutant)
    return kept


def _tried(chosen: list[Mutant], tests: dict[str, list[str]], minutes: float) -> Results:
    """Tries mutants with the test files of their modules."""
    until = time.time() + 60 * minutes
    options = ["-q", "-m", "", "-n", "0", "-s", *PLUGINS, *left_out()]
    with tempfile.TemporaryDirectory() as folder:
        with_torch = any("import torch" in (ROOT / path).read_text() for path in tests)
        bare = BareServer(Path(folder) / "fresh", with_torch)
        settings.register_profile(  # what is found need not be made small, nor found again
            "mutation",
            phases=(Phase.explicit, Phase.generate),
            database=None,
            max_examples=20,
            derandomize=True,
            deadline=None,
        )
        settings.load_profile("mutation")
        trial = Trial(chosen, tests, until, bare, lambda text: print(text, flush=True))
        status = pytest.main(
            [*options, f"--basetemp={folder}/tests", *dict.fromkeys(chain(*tests.values()))],
            plugins=[trial],
        )
        bare.close()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(int(status))
    return trial.results


def report(results: Results, known: list[Mutant], equivalent: list[Mutant]) -> None:
    """The table."""
    rows = {
        path: (
            sum(m.path == path for m in known),
            sum(m.path == path for m in equivalent),
            sum(m.path == path for m in results.killed),
            sum(m.path == path for m in results.survived),
        )
        for path in dict.fromkeys(m.path for m in known)
    }
    print(f"{'':40}{'mutants':>8}{'equivalent':>12}{'tried':>7}{'killed':>8}{'score':>9}")
    for path, (all_of, same, killed, survived) in rows.items():
        tried = killed + survived
        print(f"{path:40}{all_of:8}{same:12}{tried:7}{killed:8}{_score(killed, tried):8.1f}%")
    killed, tried = len(results.killed), results.tried
    total = f"{len(known):8}{len(equivalent):12}{tried:7}{killed:8}{_score(killed, tried):8.1f}%"
    print(f"{'all':40}{total}")


def _score(killed: int, tried: int) -> float:
    return 100 * killed / tried if tried else 100.0


if __name__ == "__main__":
    sys.exit(main())
