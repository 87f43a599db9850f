"""R7: every executor of a plan gives the same bits: for modules, state dicts, files, shards, pieces
of ranks in both of their forms, and pickles; with what each removed, the original comes back.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import planc
from planc.errors import AnalysisError, PolicyError, TraceError
from planc.plan import Plan
from tests.programs import write
from tests.proving import randomise, removal
from tests.strategies import arrays, plans
from tests.streaming.pieces import State, write_native, write_safetensors

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def assert_same(found: State, expected: State, what: str) -> None:
    assert found.keys() == expected.keys(), what
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), what
        one, other = (t.detach().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(one, other), f"{what}: {name}"


def write_shards(state: State, directory: Path) -> None:
    directory.mkdir()
    holder = {}
    for i, (name, tensor) in enumerate(state.items()):
        holder[name] = f"model-{i}.safetensors"
        save_file({name: tensor}, directory / holder[name])
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": holder}))


def sources(state: State, directory: Path, seed: int) -> Iterator[Path]:
    """The state dict in every form that is read."""
    save_file(dict(state), directory / "file.safetensors")
    write_shards(state, directory / "shards")
    write_safetensors(state, directory / "pieces", seed)
    write_native(state, directory / "native", seed)
    torch.save(dict(state), directory / "pickle.pt")
    yield from (directory / n for n in ("file.safetensors", "shards", "pieces", "native"))
    yield directory / "pickle.pt"


def load_all(directory: Path) -> dict[str, torch.Tensor]:
    return {n: t for path in directory.glob("*.safetensors") for n, t in load_file(path).items()}


def check_files(plan: Plan, state: State, expected: State, directory: Path, seed: int) -> None:
    for source in sources(state, directory, seed):
        out, kept, back = (directory / f"{source.name}-{kind}" for kind in ("out", "kept", "back"))
        planc.apply_files(plan, source, out, keep_removed=kept, trust_pickle=True)
        assert_same(load_all(out), expected, source.name)
        assert planc.inspect(out).plan == plan
        assert planc.restore_files(out, kept, back)
        assert_same(load_all(back), state, f"{source.name}, restored")


@pytest.fixture(autouse=True, scope="module")
def no_flush() -> Iterator[None]:
    """What is on the disk after a loss of power is the claim of others (tests/crash)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


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
    expected = dict(smaller.state_dict())
    assert_same(planc.apply(plan, state), expected, "state dict")
    assert_same(planc.restore(plan, smaller, removed).state_dict(), state, "module, restored")
    unique = {name: tensor.contiguous() for name, tensor in state.items()}
    check_files(plan, unique, expected, tmp_path_factory.mktemp("models"), seed)


@given(plans().filter(lambda plan: plan.cuts), st.integers(0, 10**6))
@settings(max_examples=25)
def test_executors_agree_on_random_plans(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, seed: int
) -> None:
    """Ragged and permuted members, which few models have."""
    dtype = random.Random(seed).choice((torch.int32, torch.float64, torch.int8))
    state = {name: torch.from_numpy(array).to(dtype) for name, array in arrays(plan).items()}
    check_files(plan, state, planc.apply(plan, state), tmp_path_factory.mktemp("plans"), seed)


@pytest.mark.parametrize("seed", range(3))
def test_torch_reads_the_pieces_that_are_written_here(tmp_path: Path, seed: int) -> None:
    import torch.distributed.checkpoint as dcp

    state = {"a": torch.randn(7, 5), "b": torch.randn(6).bfloat16(), "c": torch.tensor(3)}
    write_native(state, tmp_path / "native", seed)
    write_safetensors(state, tmp_path / "pieces", seed)
    for reader in (
        dcp.FileSystemReader(tmp_path / "native"),
        dcp.HuggingFaceStorageReader(str(tmp_path / "pieces")),
    ):
        into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        dcp.load(into, storage_reader=reader, no_dist=True)
        assert_same(into, state, type(reader).__name__)
