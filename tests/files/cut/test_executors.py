"""R7: every executor of a plan gives the same bits: for modules, state dicts, files, shards, pieces
of ranks in both of their forms, and pickles; with what each removed, the original comes back.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import planc
from planc.errors import AnalysisError, PolicyError, TraceError
from planc.plan.plan import Plan
from tests.files.cut.pieces import write_native, write_safetensors
from tests.programs import write
from tests.support.executors import FORMS, assert_equal, same_in_files
from tests.support.proving import randomise, removal
from tests.support.strategies import arrays, plans

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True, scope="module")
def no_flush() -> Iterator[None]:
    """What is on the disk after a loss of power is the claim of others (tests/crash)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.mark.long
@given(st.integers(0, 10**6), st.sampled_from(DTYPES))
@settings(max_examples=40)
def test_executors_agree_on_random_models(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: torch.dtype
) -> None:
    program = write(seed, length=2 + seed % 4)
    model = program.model()
    randomise(model, seed)
    try:
        analysis = planc.analyze(planc.trace(model, program.inputs()))
    except (TraceError, AnalysisError, PolicyError):
        assume(False)
    chance = np.random.default_rng(seed)
    wanted = tuple(int(chance.integers(1, group.cells + 1)) for group in analysis.groups)
    plan = removal(analysis, wanted, "module", seed)
    assume(plan.cuts)
    model.to(dtype)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller, removed = planc.apply(plan, model, keep_removed=True, validate=False)
    expected = smaller.state_dict()
    assert_equal(planc.apply(plan, state), expected, "state dict")
    assert_equal(planc.restore(plan, smaller, removed).state_dict(), state, "module, restored")
    directory = tmp_path_factory.mktemp("models")
    for form in FORMS:
        same_in_files(plan, state, expected, directory, form, seed)


@pytest.mark.long
@given(plans().filter(lambda plan: plan.cuts), st.integers(0, 10**6))
@settings(max_examples=25)
def test_executors_agree_on_random_plans(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, seed: int
) -> None:
    """Ragged and permuted members, which few models have."""
    dtype = random.Random(seed).choice((torch.int32, torch.float64, torch.int8))
    state = {name: torch.from_numpy(array).to(dtype) for name, array in arrays(plan).items()}
    directory = tmp_path_factory.mktemp("plans")
    for form in FORMS:
        same_in_files(plan, state, planc.apply(plan, state), directory, form, seed)


@pytest.mark.parametrize("seed", range(3))
def test_torch_reads_the_pieces_that_are_written_here(tmp_path: Path, seed: int) -> None:
    import torch.distributed.checkpoint as dcp

    state = {"a": torch.randn(7, 5), "b": torch.randn(6).bfloat16(), "c": torch.tensor(3)}
    write_native(state, tmp_path, seed)
    write_safetensors(state, tmp_path, seed)
    for reader in (dcp.FileSystemReader(tmp_path), dcp.HuggingFaceStorageReader(str(tmp_path))):
        into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        dcp.load(into, storage_reader=reader, no_dist=True)
        assert_equal(into, state, type(reader).__name__)
