"""What planc promises of files and plans, R1 to R17: in how many cases each is shown, and by what.

    python -m tests.scripts.promises [--tier pr|ci|release] [--beyond pr] [R1 R3 ...]

runs the tests that show the promises and prints, for each part of one, how many cases there were
and how many there have to be; it exits with 1 if a test fails or cases are missing. A test says
which part it shows by ``@pytest.mark.promise("R1 plans")``, and how many cases it tried through the
fixture ``goal`` (one, if it does not say); ``goal.cases`` is how many are asked of it. ``--beyond
pr`` leaves out what has no more cases than at that tier; other options are for pytest. The default
``pytest`` runs the quick ones at tier "pr", ``pytest -m ''`` all.

R12 and R16 have programs of their own, too: ``python -m tests.bench.streaming`` measures memory and
rate on checkpoints of any size, ``python -m tests.mutation`` coverage by mutants.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

Tier = Literal["pr", "ci", "release"]
TIERS: tuple[Tier, ...] = ("pr", "ci", "release")
_PROMISE, _CASES = "promise", "cases"
_MARK = 'promise(part): the part of a promise that a test shows, as "R1 plans"'


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a promise, and in how many cases it has to be shown at each tier."""

    words: str
    pr: int
    ci: int
    release: int

    def at(self, tier: Tier) -> int:
        cases: int = getattr(self, tier)
        return cases


def always(words: str, cases: int) -> Part:
    """A part that is shown in the same cases at each tier."""
    return Part(words, cases, cases, cases)


PARTS: dict[str, Part] = {
    "R1 plans": Part(
        "mutated plans, digests right: FileError or harmless, each within 1 s; what is accepted is "
        "canonical for both msgpack libraries (R11)",
        1_000_000,
        20_000_000,
        1_000_000_000,
    ),
    "R1 headers": Part(
        "mutated headers: the same; what is accepted safetensors reads as we do (R11)",
        200_000,
        1_000_000,
        100_000_000,
    ),
    "R1 records": Part(
        "mutated records of checkpoints, shards, masks and latency tables: the same",
        100_000,
        500_000,
        10_000_000,
    ),
    "R2 plans": always("truncated golden plans, every length: refused", 80_000),
    "R2 checkpoints": always(
        "truncated files of golden checkpoints, every length; larger shards at every length of the "
        "header, every 4 KiB of the data: refused",
        22_000,
    ),
    "R3 plans": always("golden plans, every flipped bit: refused", 650_000),
    "R3 headers": always("a checkpoint, every flipped bit of its headers: refused", 60_000),
    "R3 tensors": always("a checkpoint of 64 KiB, every flipped bit of its data: refused", 524_288),
    "R4 kilobytes": Part(
        "hostile files of 1 KiB: at most 64 KiB of memory", 3_000, 100_000, 1_000_000
    ),
    "R4 sizes": always("hostile files of n bytes: at most 1 MiB + 32 n, or 48 n where nested", 50),
    "R5 faults": always(
        "write-side calls of saving and applying that are killed or fail: old or new bytes", 1_650
    ),
    "R5 power": always("states of the disk when the power fails: old or new bytes", 900),
    "R6 stale": Part(
        "structural edits of random models: refused, the field named", 300, 5_000, 50_000
    ),
    "R6 same": Part("immaterial edits: accepted", 100, 1_000, 50_000),
    "R7 models": Part(
        "random models: pruned = masked, restored bit exact, saved and loaded; module = state "
        "dict = file",
        200,
        5_000,
        20_000,
    ),
    "R8 faults": Part(
        "faults in plans and results: caught by verify, each of them", 200, 2_000, 2_000
    ),
    "R9 golden": always("golden plans, checkpoints, malformed and future files: as ever", 40),
    "R10 processes": always(
        "processes with hash seeds of their own, 1 and 2 threads: the same bytes", 20
    ),
    "R12 memory": always("files applied to within 256 MiB, whatever their size", 1),
    "R13 shards": always("sets of shards that do not belong together: refused before output", 40),
    "R14 names": always("hostile names of shards: refused, nothing outside is opened", 40),
    "R15 code": always("files of the corpus read under an audit hook: no code runs", 45),
    "R17 attributes": always("hostile names and values of attributes: refused, nothing set", 100),
}

_LONGEST = ("R1 plans", "R6 stale", "R7 models", "R8 faults")  # begin first, for an even end


@dataclass(frozen=True, slots=True)
class Goal:
    """What a test is asked for: ``cases`` of its part at ``tier``."""

    tier: Tier
    cases: int
    item: pytest.Item

    def share(self, of: int) -> int:
        """How many cases fall to one of ``of`` tests that show the part together."""
        return -(-self.cases // of)

    def count(self, cases: int) -> None:
        """Says how many cases the test tried."""
        self.item.user_properties.append((_CASES, cases))


# the plugin of pytest: tests/conftest.py hands its hooks on


def pytest_addoption(parser: pytest.Parser) -> None:
    """The tier of a run, and which promises it is for."""
    parser.addoption("--tier", choices=TIERS, default="pr", help="how many cases promises have")
    parser.addoption("--promises", metavar="R1,R3", help="run the tests of these promises alone")
    parser.addoption("--beyond", choices=TIERS, help="leave out what has no more cases than there")


def pytest_configure(config: pytest.Config) -> None:
    """The mark, and the tally where the reports of all workers come together."""
    config.addinivalue_line("markers", _MARK)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Tally(config), "promises")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is not asked for, and notes on each test which part it shows."""
    for item in items:
        if mark := item.get_closest_marker(_PROMISE):
            item.user_properties.append((_PROMISE, mark.args[0]))
    if config.getoption("promises"):
        asked = _asked(config)
        part_of = {item: dict(item.user_properties).get(_PROMISE) for item in items}
        chosen = [item for item in items if part_of[item] in asked]
        items[:] = sorted(chosen, key=lambda item: part_of[item] not in _LONGEST)


@pytest.fixture
def goal(request: pytest.FixtureRequest) -> Goal:
    """What is asked of a test that shows a promise."""
    tier: Tier = request.config.getoption("tier")
    part = dict(request.node.user_properties)[_PROMISE]
    return Goal(tier, PARTS[part].at(tier), request.node)


def _asked(config: pytest.Config) -> list[str]:
    """The parts that a run is for."""
    tier, beyond = config.getoption("tier"), config.getoption("beyond")
    names = config.getoption("promises") or ",".join(part.split()[0] for part in PARTS)
    return [
        name
        for name, part in PARTS.items()
        if name.split()[0] in names.split(",") and (not beyond or part.at(tier) > part.at(beyond))
    ]


class Tally:
    """Counts cases as the reports of tests come in; prints the table of promises at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tier: Tier = config.getoption("tier")
        self.cases, self.failed = Counter[str](), Counter[str]()
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @property
    def whole(self) -> bool:
        """Whether all tests of some promises ran: where not, none can be missing."""
        option = self.config.option
        if option.promises:
            return True
        here = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        return here and not (option.keyword or option.markexpr or option.lf or option.maxfail)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        noted = dict(report.user_properties)
        if _PROMISE not in noted:
            return
        part = str(noted[_PROMISE])
        self.seconds[part] += report.duration
        if report.failed:
            self.failed[part] += 1
        elif report.when == "call" and report.passed:
            self.cases[part] += int(str(noted.get(_CASES, 1)))

    def missing(self) -> list[str]:
        """Parts of which a test failed, or that have too few cases."""
        return [
            name
            for name in _asked(self.config)
            if self.failed[name] or self.cases[name] < PARTS[name].at(self.tier)
        ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        listing = self.config.option.collectonly
        if self.whole and not listing and session.exitstatus == 0 and self.missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.whole or self.config.option.collectonly:
            return
        missing = self.missing()
        terminalreporter.section(f"promises at tier {self.tier}")
        terminalreporter.line(f"{'part':15} {'cases':>13} {'asked for':>13} {'s':>7}  what")
        for name in _asked(self.config):
            part = PARTS[name]
            failed = f"{self.failed[name]} tests FAILED  " if self.failed[name] else ""
            few = "CASES MISSING  " if name in missing and not failed else ""
            terminalreporter.line(
                f"{name:15} {self.cases[name]:13,} {part.at(self.tier):13,} "
                f"{self.seconds[name]:7.0f}  {failed}{few}{part.words}"
            )


def main() -> int:
    """Runs the tests of promises; returns the exit code."""
    names = list(dict.fromkeys(part.split()[0] for part in PARTS))
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.promises",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("promises", nargs="*", metavar="R1", help="of these; by default of all")
    parser.add_argument("--tier", choices=TIERS, default="pr")
    parser.add_argument("--beyond", choices=TIERS)
    parser.add_argument("--jobs", default="auto", help="processes at a time")
    options, others = parser.parse_known_args()
    if unknown := set(options.promises) - set(names):
        parser.error(f"no promise {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    asked = ",".join(options.promises or names)
    arguments = ["-q", "-m", "", "-n", options.jobs, "--tier", options.tier, "--promises", asked]
    arguments += ["--beyond", options.beyond] if options.beyond else []
    return int(pytest.main([*arguments, *others, str(Path(__file__).parents[1])]))


if __name__ == "__main__":
    sys.exit(main())
