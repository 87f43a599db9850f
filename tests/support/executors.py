"""Every executor of a plan beside the others: a plan and a model or a state dict in, AssertionError
where two of them differ in a bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import planc
from planc.apply.renewal import Removed
from planc.files.formats import decode_plan, encode_plan
from planc.plan.plan import Plan
from tests.files.cut.pieces import write_native, write_safetensors
from tests.support.small import contents

State = Mapping[str, torch.Tensor]


def same_everywhere(
    plan: Plan, model: nn.Module, smaller: nn.Module, removed: Removed, fresh: nn.Module
) -> None:
    """A plan does the same to a module, to its state dict, and to its files in one form or another,
    and is undone; what it makes is saved and loaded as it is. ``smaller`` and ``removed`` are what
    :func:`planc.apply` made of ``model``, ``fresh`` is as ``model`` was built.

    Raises:
        AssertionError: something differs.
    """
    content = encode_plan(plan)
    assert decode_plan(content) == plan
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut, taken = planc.apply(plan, state, keep_removed=True)
    expected = smaller.state_dict()
    assert_equal(cut, expected, "state dict")
    assert_equal(planc.restore(plan, cut, taken), state, "state dict, restored")
    if plan.target == "module":
        restored = planc.restore(plan, smaller, removed)
        assert contents(restored) == contents(model)
    with tempfile.TemporaryDirectory() as name:
        saved = Path(name) / "saved.safetensors"
        planc.save(saved, smaller, plan)
        if plan.target == "module":
            loaded = planc.load(saved, fresh)
            form = [*FORMS][len(content) % len(FORMS)]
            same_in_files(plan, state, expected, Path(name), form, len(content))
        else:  # what only the model's code can make of a file
            loaded = planc.load(saved, planc.apply(plan, fresh, validate=False), "verify")
        assert_equal(loaded.state_dict(), expected, "loaded")


def same_in_files(
    plan: Plan, state: State, expected: State, directory: Path, form: str, seed: int
) -> None:
    """Applies a plan to a state dict in files of one of :data:`FORMS`, and undoes it."""
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    source, out, kept, back = (directory / f"{form}-{n}" for n in ("in", "out", "kept", "back"))
    source.mkdir()
    FORMS[form](state, source, seed)
    trusted = form in ("native", "pickle")
    planc.apply_files(plan, source, out, keep_removed=kept, trust_pickle=trusted)
    assert_equal(load_all(out), expected, form)
    assert planc.inspect(out).plan == plan
    assert planc.restore_files(out, kept, back)
    assert_equal(load_all(back), state, f"{form}, restored")
    if form in ("file", "shards"):
        for path in source.iterdir():
            assert (back / path.name).read_bytes() == path.read_bytes(), f"{form}, restored"


def load_all(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of all files, read with the safetensors package."""
    return {n: t for path in directory.glob("*.safetensors") for n, t in load_file(path).items()}


def assert_equal(found: State, expected: State, what: str) -> None:
    """The same names, and for each the same bits."""
    assert found.keys() == expected.keys(), what
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), what
        one, other = (
            t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor)
        )
        assert torch.equal(one, other), f"{what}: {name}"


def _file(state: State, directory: Path, seed: int) -> None:
    save_file(dict(state), directory / "model.safetensors")


def _shards(state: State, directory: Path, seed: int, pickled: bool = False) -> None:
    """A tensor in each file, listed by an index."""
    suffix, stem = (".bin", "pytorch_model") if pickled else (".safetensors", "model")
    holder = {name: f"{stem}-{i}{suffix}" for i, name in enumerate(state)}
    for name, file in holder.items():
        part = {name: state[name]}
        torch.save(part, directory / file) if pickled else save_file(part, directory / file)
    (directory / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": holder}))


FORMS: dict[str, Callable[[State, Path, int], None]] = {
    "file": _file,
    "shards": _shards,
    "pieces": write_safetensors,
    "native": write_native,
    "pickle": partial(_shards, pickled=True),
}
