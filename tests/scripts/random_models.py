"""Random models, pruned at random and proven, or refused: not one may be wrong.

    python -m tests.scripts.random_models [--count 5000] [--first 0] [--jobs 2] [--show SEED]

The model of a seed is the text that :mod:`tests.programs` writes for it; those of odd seeds keep
state, share it, and return their results in containers (:mod:`tests.programs.borders`). From each,
units are removed at random, unevenly: from all groups, and from those that do not mix (so that
equality with the masked original is proven); both for the module, and of every other two models one
for the rewritten graph. A plan of most models is verified by ``planc.verify``, the others by the
same comparisons of outputs against the masked original and the rewritten graph, in double precision
to 1e-9; and exchanging units of a group must leave the outputs of the original as they are. The
first plan for each target is undone, saved and loaded, applied to a state dict and to a file, too,
bit for bit (:mod:`tests.support.executors`). Its result is compared with the masked model on other
inputs, at other sizes, and where an early exit is taken (:mod:`tests.support.masked`). The bytes of
a plan must not depend on what ran before (of every fourth model).
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.errors import AnalysisError, PolicyError, SizeMismatch, TraceError, VerificationError
from planc.modules.nesting import map_leaves
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan
from planc.verify.outputs import difference, masked_original, rewritten_graph, run
from tests.programs import Program, write
from tests.support.executors import same_everywhere
from tests.support.masked import beside_masked, plan_of_any_history
from tests.support.proving import TARGETS, TOLERANCE, exchange, randomise, removal

_REFUSALS = (TraceError, AnalysisError, PolicyError)
_BOUND = "proven for the traced sizes alone"
Call = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]
_CHUNK = 20  # models between two answers of a process


@dataclass
class Outcome:
    """What happened to some models."""

    counts: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    operators: set[str] = field(default_factory=set)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    cpu: float = 0.0
    wrong: list[tuple[int, str, str]] = field(default_factory=list)

    def join(self, other: Outcome) -> None:
        self.counts += other.counts
        self.steps += other.steps
        self.operators |= other.operators
        self.refusals += other.refusals
        self.wrong += other.wrong
        self.cpu += other.cpu


def main() -> int:
    """Runs the sweep and returns the exit code."""
    options = _options()
    if options.show is not None:
        program = _written(options.show, options.length)
        print(program.text)
        prove_program(program, Outcome())
        return 0
    begin, total = time.perf_counter(), Outcome()
    for outcome in _outcomes(options.first, options.count, options.length, options.jobs):
        for seed, text, error in outcome.wrong:
            print(f"\nseed {seed} is wrong: {error}\n{text}", flush=True)
        total.join(outcome)
    print(_summary(total, time.perf_counter() - begin))
    return int(bool(total.wrong or total.refusals))


def check(seeds: range, length: int) -> Outcome:
    """What happens to the models of some seeds."""
    torch.set_num_threads(1)
    outcome, begin = Outcome(), time.process_time()
    for seed in seeds:
        program = _written(seed, length)
        outcome.steps.update(program.steps)
        try:
            outcome.counts[prove_program(program, outcome)] += 1
        except _REFUSALS as error:
            outcome.counts["refused"] += 1
            text = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            outcome.refusals.append((seed, text))
        except Exception as error:
            outcome.counts["wrong"] += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
            text = f"{type(error).__name__}: {error} ({place})"
            outcome.wrong.append((seed, program.text, text))
    outcome.cpu = time.process_time() - begin
    return outcome


def prove_program(program: Program, outcome: Outcome) -> str:
    """Prunes one model at random in several ways and proves each; says what came of it.

    Raises:
        PlancError: the model is refused, or its result is wrong (:class:`VerificationError`).
        AssertionError: exchanging units of a group changes what the model computes, or the model
            and its masked original differ, or a plan depends on what ran before.
    """
    model, call = _built(program), _call(program)
    analysis = planc.analyze(planc.trace(model, *call))
    outcome.operators |= {node.op for node in analysis.graph.nodes}
    if not analysis.groups:
        return "nothing to prune"
    exchange(analysis, model, *call)
    pruned, bound, targets = 0, False, set()
    for number, plan in enumerate(_plans(analysis, program.seed)):
        pruned += 1
        smaller, removed = planc.apply(
            plan, model, keep_removed=True, args=call[0], kwargs=call[1], validate=number == 0
        )
        if number == program.seed % 4:
            bound |= _bound(plan, model, smaller, call)
        else:
            _compare(plan, analysis, model, smaller, call)
        if plan.target not in targets:
            targets.add(plan.target)
            same_everywhere(plan, model, smaller, removed, program.model().double())
            by_values = analysis.graph.data_dependent
            beside_masked(plan, program, model, smaller, call, by_values)
    if pruned and program.bordered and program.seed % 4 == 1:
        plan_of_any_history(program, model, call)
    if bound:
        return _BOUND
    return "proven" if pruned else "nothing to prune"


def _built(program: Program) -> nn.Module:
    model = program.model()
    randomise(model, program.seed)
    return model.double()


def _call(program: Program) -> Call:
    args = tuple(a.double() if a.is_floating_point() else a for a in program.inputs())
    return args, {name: value.double() for name, value in program.named().items()}


def _written(seed: int, length: int) -> Program:
    return write(seed, _length(seed, length), with_borders=seed % 2 == 1)


def _bound(plan: Plan, model: nn.Module, smaller: nn.Module, call: Call) -> bool:
    """Whether a result is right for the traced sizes, and at others refused: a program may call a
    number what is the size of its batch.
    """
    try:
        planc.verify(plan, model, smaller, *call, tolerance=TOLERANCE)
    except VerificationError as error:
        if "with inputs of" not in str(error):
            raise
        planc.verify(plan, model, smaller, *call, tolerance=TOLERANCE, other_sizes=False)
        return True
    return False


def _plans(analysis: Analysis, seed: int) -> Iterator[Plan]:
    """Some units of each group, and as many as can go of those that are exact: both for the module,
    and of every other two models one for the graph.
    """
    groups = analysis.groups
    whole = tuple(group.cells for group in groups)
    for target in TARGETS:
        if target == "graph" and (analysis.graph.data_dependent or seed // 2 % 2):
            continue
        rng = np.random.default_rng(seed)
        some = tuple(int(rng.integers(1, n + 1)) for n in whole)
        exact = [not analysis.mixing(g, target) for g in range(len(groups))]
        few = (int(rng.integers(1, max(n // 2, 2))) for n in whole)
        pure = tuple(n if ok else n_all for n, n_all, ok in zip(few, whole, exact, strict=True))
        seen = set()
        both = (some, pure) if target == "module" else ((some, pure)[seed % 2],)
        for wanted in both:
            plan = removal(analysis, wanted, target, seed)
            removed = tuple(group.removed for group in plan.groups)
            if any(removed) and removed not in seen:
                seen.add(removed)
                yield plan


def _compare(
    plan: Plan, analysis: Analysis, model: nn.Module, smaller: nn.Module, call: Call
) -> None:
    """Compares outputs with those of the rewritten graph and, where it is exact, of the masked
    original; the graph is that of the analysis at hand.
    """
    parameters = sum(p.numel() for p in smaller.parameters())
    if plan.cost_after.params != parameters:
        raise VerificationError(f"{parameters} parameters, predicted {plan.cost_after.params}")
    gone = analysis.gone([group.removed for group in plan.groups])
    outputs = run(smaller, call)
    if plan.target == "module":
        graph = rewritten_graph(plan, analysis, gone, model)
        difference(outputs, run(graph, call), TOLERANCE, "the rewritten graph")
    if not any(group.mixing and group.removed for group in plan.groups):
        masked = masked_original(analysis, gone, model)
        difference(outputs, run(masked, call), TOLERANCE, "the masked original")
        if plan.target == "graph":
            _at_another_batch(plan, model, smaller, masked, call)


def _at_another_batch(
    plan: Plan, model: nn.Module, smaller: nn.Module, masked: nn.Module, call: Call
) -> None:
    """Compares a graph with the masked original on one row more, if that runs and has the plan's
    groups there, and the graph does not refuse it.
    """
    args, kwargs = map_leaves(_one_row_more, call)
    other: Call = (args, kwargs)
    try:
        expected = run(masked, other)
    except Exception:  # a literal of its text is the size of the batch
        return
    try:
        difference(run(smaller, other), expected, TOLERANCE, "the masked original, one row more")
    except SizeMismatch:
        return
    except Exception:
        groups = planc.analyze(planc.trace(model, *other)).groups
        if structure_digest(groups) == plan.source.structure:
            raise


def _one_row_more(leaf: Any) -> Any:
    return torch.cat([leaf, leaf[:1].flip(-1)]) if isinstance(leaf, torch.Tensor) else leaf


def _length(seed: int, most: int) -> int:
    """Short programs, too: what goes wrong in them is easy to see."""
    return 2 + seed % (most - 1)


def _outcomes(first: int, count: int, length: int, jobs: int) -> Iterator[Outcome]:
    starts = range(first, first + count, _CHUNK)
    with ProcessPoolExecutor(jobs, get_context("forkserver")) as pool:
        running = [
            pool.submit(check, range(start, min(start + _CHUNK, first + count)), length)
            for start in starts
        ]
        for future in as_completed(running):
            yield future.result()


def _summary(total: Outcome, seconds: float) -> str:
    number = sum(total.counts.values())
    kinds = ("proven", _BOUND, "nothing to prune", "refused", "wrong")
    taken = f"{seconds / 60:.1f} minutes, {total.cpu / 60:.1f} of CPU time"
    lines = [
        "",
        f"{number} random models, {len(total.operators)} operators, {taken}",
        ", ".join(f"{kind}: {total.counts[kind]}" for kind in kinds),
        "steps: " + ", ".join(f"{name} {n}" for name, n in sorted(total.steps.items())),
        *(f"seed {seed} is refused: {reason}" for seed, reason in sorted(total.refusals)),
    ]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.random_models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=5000, help="models")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--length", type=int, default=6, help="steps of the longest")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--show", type=int, metavar="SEED", help="print and prove one program")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
