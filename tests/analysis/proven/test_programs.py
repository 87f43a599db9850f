"""Proven removals: random programs."""

from __future__ import annotations

import pytest

from tests.programs import write
from tests.support.proving import (
    prove,
)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(24))
def test_random_programs_are_proven(seed: int) -> None:
    program = write(seed, length=5)
    found = prove(program.model(), program.inputs(), seeds=(seed,))
    assert found.groups or found.pins, program.text
