"""R1 and R11: mutants of plans whose digests are right: only ``FileError`` is raised, and what is
accepted is canonical and harmless.

``python -m tests.fuzz.test_plans --cases 20000000`` runs more of them and prints the rate.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import msgpack
import numpy as np
import pytest

from planc.errors import FileError
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.envelope import seal, unseal
from planc.ir.groups import Member, compress
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.fuzz.mutants import Mutants
from tests.scripts.promises import Goal
from tests.support.strategies import complete, full_plan

KIND = b"planc/plan"
PARTS = 20
ROOT = Path(__file__).parents[1] / "golden"
_EVERY = 16  # of the accepted ones, as many are encoded again and cut
_SLOW = 1.0  # seconds that no file of this size may take


def small_plan() -> Plan:
    """The least that has a group, a tie and a change: most mutants are of it, for they are fast."""
    units = compress(np.arange(4), np.arange(4))
    group = PlanGroup("a:0", "channels", 4, 1, (Member("a", 0, units),), "", (1,))
    tensors = (TensorSpec(("a", "b"), (4, 2), "parameter"),)
    modules = (ModuleSpec("", (("n", 4),)),)
    return complete(tensors, modules, (group,), (AttributeChange("", "n", 4, 3),))


def of_version_1() -> bytes:
    """The least golden file of version 1."""
    return (ROOT / "v1" / "plans" / "small.planc").read_bytes()


def resealed(start: bytes, body: bytes) -> bytes:
    """A file of a body, with its digest: seal() for the kind and version that ``start`` says."""
    length = len(body).to_bytes(2, "big") if len(body) > 255 else bytes([len(body)])
    mark = b"\xc4\x20" + sha256(start + body).digest() + bytes([0xC4 + len(length) - 1])
    return b"".join((start, mark, length, body))


def fuzz(file: bytes, seed: int, cases: int) -> Counter[str]:
    """Outcomes by name; raises what must not happen."""
    mutants = Mutants(unseal(KIND, file), random.Random(seed))
    start, outcomes = file[:13], Counter[str]()
    for body in mutants.some(cases):
        sealed = resealed(start, body)
        began = time.perf_counter()
        try:
            accepted = decode_plan(sealed)
        except FileError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["accepted"] += 1
            assert msgpack.packb(msgpack.unpackb(body)) == body
            if outcomes["accepted"] % _EVERY == 0:
                again = encode_plan(accepted)
                assert again == sealed if file[12] == 2 else decode_plan(again) == accepted
                assert all(min(cut.shape, default=1) > 0 for cut in accepted.cuts.values())
        if time.perf_counter() - began > _SLOW:
            outcomes["slow"] += 1
    return outcomes


@pytest.mark.long
@pytest.mark.promise("R1 plans")
@pytest.mark.parametrize("part", range(PARTS))
def test_mutants_with_a_right_digest_are_refused_or_harmless(part: int, goal: Goal) -> None:
    file = encode_plan(full_plan() if part % 5 == 0 else small_plan())
    cases = goal.share(PARTS)
    outcomes = fuzz(of_version_1() if part % 5 == 1 else file, part, cases)
    assert not outcomes["slow"]
    assert sum(outcomes.values()) == cases
    assert outcomes["MalformedFile"] > cases // 2
    assert outcomes["accepted"] > cases // 500
    assert outcomes["LimitExceeded"] > 0
    goal.count(cases)


@pytest.mark.parametrize("plan", [small_plan(), full_plan()], ids=["small", "full"])
def test_every_mutant_is_made_of_a_body_that_is_accepted(plan: Plan) -> None:
    body = unseal(KIND, encode_plan(plan))
    mutants = Mutants(body, random.Random(0))
    assert decode_plan(seal(KIND, mutants.body)) == plan
    made = list(mutants.some(100_000))
    assert len(made) == 100_000
    assert len(set(made)) > 98_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for file in (encode_plan(small_plan()), encode_plan(full_plan()), of_version_1()):
        began = time.process_time()
        outcomes = fuzz(file, options.seed, options.cases // 3)
        rate = sum(outcomes.values()) / (time.process_time() - began)
        print(f"{len(file)} bytes: {rate:,.0f} mutants a second,", dict(outcomes))


if __name__ == "__main__":
    main()
