"""One run of the tests in which mutants are tried: a plugin for pytest that takes the place of its
loop over tests.

Every test is first run in a process of its own that notes the lines it runs. Then each mutant has a
forked process, in which the tests that run its line are run, those that found the last faults and
the fastest first, until one fails. Faults in what importing runs need a fresh import: for these a
process is forked that has imported torch, but nothing of planc.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

import coverage
import pytest

from tests.mutation.covering import ROOT
from tests.mutation.mutants import Mutant
from tests.mutation.patching import Place, exchange, functions_of, import_mutated

MEMORY = ROOT / ".mutation.json"  # the lines that each test runs
# what tests/conftest.py has, without torch, which tests of codec do not need
PLUGINS = ("--noconftest", "-p", "tests.support.systems", "-p", "tests.scripts.promises")
_PATIENCE = 5.0  # seconds beyond which, and times the usual, a run is taken to go on for ever
_MOST = 60.0  # seconds of tests for one mutant
_MEMORY = 3 << 30  # bytes that a run may take beyond what it begins with


@dataclass(frozen=True, slots=True)
class Seen:
    """A test's time in seconds, and the lines of each watched file that it runs."""

    seconds: float
    lines: dict[str, Sequence[int]]


@dataclass
class Results:
    killed: dict[Mutant, str] = field(default_factory=dict)  # by which test
    survived: list[Mutant] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return len(self.killed) + len(self.survived)


class Trial:
    """The plugin. ``results`` is filled while pytest runs."""

    def __init__(
        self,
        chosen: list[Mutant],
        files: Mapping[str, Sequence[str]],
        until: float,
        bare: BareServer,
        tell: Callable[[str], None],
    ) -> None:
        self.chosen, self.until, self.bare, self.tell = chosen, until, bare, tell
        self.files = files  # those with the tests of each module
        self.results = Results()
        paths = sorted({mutant.path for mutant in chosen})
        self.sources = {path: (ROOT / path).read_text() for path in paths}
        self.killers: dict[str, list[str]] = defaultdict(list)
        self.functions: dict[str, dict[Place, FunctionType]] = {}
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed or not session.items:
            raise pytest.UsageError("the tests could not be collected")
        items = {item.nodeid: item for item in session.items}
        folder = Path(str(session.config.option.basetemp))
        self.functions = {path: functions_of(ROOT / path) for path in self.sources}
        gc.collect()
        gc.freeze()  # a child that collects would copy all that it looks at
        began = time.time()
        seen = self._remembered(items)
        for name, item in items.items():
            if name not in seen:
                seen[name] = self._watched(item)
                _empty(folder)
        self._remember(seen)
        self.tell(f"{len(items)} tests watched in {time.time() - began:.0f} s")
        told = time.time()
        for mutant in self.chosen:
            if time.time() > self.until:
                break
            if time.time() - told > 60:
                told = time.time()
                self.tell(f"{self.results.tried} of {len(self.chosen)} tried")
            known_as, tests = mutant, self._tests(mutant, seen)
            if not tests:  # only importing runs it, if anything does
                known_as = replace(mutant, function="")
                tests = self._tests(known_as, seen)
            killer = self._killer(known_as, tests, seen, items)
            if killer is None:
                self.results.survived.append(mutant)
                self.tell(f"survived, line {mutant.line}  {mutant.name}")
            else:
                self.results.killed[mutant] = killer
                if killer in tests:
                    known = self.killers[f"{mutant.path}:{mutant.function}"]
                    known[:] = [killer, *(name for name in known if name != killer)][:3]
            _empty(folder)
        return True

    def _remembered(self, items: dict[str, pytest.Item]) -> dict[str, Seen]:
        """What an earlier run has seen of tests that are still the same, of code that is."""
        if not MEMORY.exists():
            return {}
        kept = json.loads(MEMORY.read_text())
        return {
            name: Seen(*kept[key])
            for name in items
            if (key := self._key(name)) in kept and set(kept[key][1]) >= set(self.sources)
        }

    def _remember(self, seen: dict[str, Seen]) -> None:
        kept = json.loads(MEMORY.read_text()) if MEMORY.exists() else {}
        kept |= {self._key(name): [each.seconds, each.lines] for name, each in seen.items()}
        MEMORY.write_text(json.dumps(kept))

    def _key(self, test: str) -> str:
        """A test's name with a digest of its file and of all code that is watched."""
        content = (ROOT / test.partition("::")[0]).read_bytes()
        content += "".join(self.sources.values()).encode()
        return f"{test} {sha256(content).hexdigest()}"

    def _watched(self, item: pytest.Item) -> Seen:
        def watch(tell: Callable[[str], None]) -> None:
            coverage_of = coverage.Coverage(data_file=None, include=[str(ROOT / "planc" / "*")])
            began = time.time()
            coverage_of.start()
            self._run(item)
            coverage_of.stop()
            found = coverage_of.get_data()
            lines = {path: found.lines(str(ROOT / path)) or [] for path in self.sources}
            tell(json.dumps([time.time() - began, lines, self.failed]))

        seconds, lines, failed = json.loads(forked(watch, 600) or "[0, {}, true]")
        if failed:  # it would kill every mutant
            self.tell(f"left out, it fails with no fault in the code: {item.nodeid}")
            return Seen(seconds, dict.fromkeys(self.sources, ()))
        return Seen(seconds, lines)

    def _tests(self, mutant: Mutant, seen: dict[str, Seen]) -> list[str]:
        """The tests to run, in order."""
        running = [name for name in seen if name.startswith(tuple(self.files[mutant.path]))]
        if mutant.function:  # else any test may see what importing does
            running = [name for name in running if mutant.line in seen[name].lines[mutant.path]]
        running.sort(key=lambda name: seen[name].seconds)
        known = [n for n in self.killers[f"{mutant.path}:{mutant.function}"] if n in running]
        order = [*known, *(name for name in running if name not in known)]
        spent, kept = 0.0, []
        for name in order:
            spent += seen[name].seconds
            if kept and spent > (_MOST if mutant.function else 3 * _MOST):
                break
            kept.append(name)
        return kept

    def _killer(
        self, mutant: Mutant, tests: list[str], seen: dict[str, Seen], items: dict[str, pytest.Item]
    ) -> str | None:
        """The test that fails with the fault in the code, None if all pass."""
        source, file = self.sources[mutant.path], ROOT / mutant.path
        limit = _PATIENCE * (1 + sum(seen[name].seconds for name in tests))
        if not mutant.function:
            longest = max((seen[name].seconds for name in tests), default=0)
            return self.bare.ask(mutant, tests, limit + 30, _PATIENCE * (1 + longest))

        def attempt(tell: Callable[[str], None]) -> None:
            exchange(mutant, source, file, self.functions[mutant.path])
            for name, following in zip(tests, [*tests[1:], None], strict=True):
                tell(f"{name}\n")
                # ends this process, so that what loops for ever takes no longer than its test may
                signal.setitimer(signal.ITIMER_REAL, _PATIENCE * (1 + seen[name].seconds))
                self._run(items[name], following and items[following])
                if self.failed:
                    return
            tell("none\n")

        said = forked(attempt, limit).splitlines()
        last = said[-1] if said else "no test could be run"
        return None if last == "none" else last

    def _run(self, item: pytest.Item, following: Any = None) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


@dataclass(frozen=True)
class Alarm:
    """A plugin that ends the process where a test takes longer than ``seconds``."""

    seconds: float

    def pytest_runtest_logstart(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.seconds)


class BareServer:
    """A process that has imported what planc needs and nothing of planc, to fork from."""

    def __init__(self, folder: Path, with_torch: bool) -> None:
        ask_from, ask_to = os.pipe()
        say_from, say_to = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(ask_to)
            _import(with_torch)
            _serve(os.fdopen(ask_from), os.fdopen(say_to, "w", buffering=1), folder)
            os._exit(0)
        os.close(ask_from)
        os.close(say_to)
        self._ask, self._say = os.fdopen(ask_to, "w", buffering=1), os.fdopen(say_from)

    def ask(self, mutant: Mutant, tests: list[str], limit: float, each: float) -> str | None:
        """What fails, all tests taking ``limit`` seconds at most and one of them ``each``."""
        fields = [getattr(mutant, name) for name in Mutant.__slots__]
        self._ask.write(json.dumps([fields, tests, limit, each]) + "\n")
        killer: str | None = json.loads(self._say.readline())
        return killer

    def close(self) -> None:
        self._ask.close()
        os.waitpid(self.pid, 0)


def _import(with_torch: bool) -> None:
    """What takes long."""
    names = ["hypothesis", "msgspec", "msgpack", "numpy", "scipy.sparse.csgraph"]
    for name in [*names, *(("torch", "safetensors.torch", "scipy.optimize") if with_torch else ())]:
        importlib.import_module(name)


def _serve(requests: Any, answers: Any, folder: Path) -> None:
    for line in requests:
        fields, tests, limit, each = json.loads(line)
        mutant = Mutant(*fields)

        def attempt(
            tell: Callable[[str], None],
            mutant: Mutant = mutant,
            tests: list[str] = tests,
            each: float = each,
        ) -> None:
            file = ROOT / mutant.path
            import_mutated(mutant, file.read_text(), file)
            options = ["-x", "-q", "-n", "0", *PLUGINS, f"--basetemp={folder}"]
            status = pytest.main([*options, *tests], plugins=[Alarm(each)])
            tell("none" if status == 0 else "a fresh run")

        said = forked(attempt, limit)
        answers.write(json.dumps(None if said == "none" else said or "the import") + "\n")


def forked(do: Callable[[Callable[[str], None]], None], limit: float) -> str:
    """What a function says in a process of its own, silent otherwise, until it ends or its time
    does.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(silence, standard)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
        have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + _MEMORY, have + _MEMORY))
        try:
            do(lambda text: _write_all(write, text))
        finally:
            os._exit(0)
    os.close(write)
    said, until = b"", time.time() + limit
    while select.select([read], [], [], max(until - time.time(), 0))[0]:
        part = os.read(read, 1 << 16)
        if not part:
            break
        said += part
    os.close(read)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return said.decode()


def _write_all(descriptor: int, text: str) -> None:
    rest = text.encode()
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _empty(folder: Path) -> None:
    """Removes what the tests of one run have left."""
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
