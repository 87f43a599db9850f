"""The law of plans on files: cutting gives what memory gives, restoring gives the source again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

import planc
from planc.files.disk import stream
from planc.plan.plan import Plan
from tests.files.cut.test_files import one_by_one, state_of
from tests.support.strategies import plans


def changes_shapes(plan: Plan) -> bool:
    return any(
        plan.cuts[spec.name].shape != spec.shape for spec in plan.tensors if spec.name in plan.cuts
    )


@pytest.mark.parametrize("buffer", [48, 1 << 20])
@given(plan=plans().filter(changes_shapes))
@settings(max_examples=40)
def test_cutting_and_restoring_files_are_inverse(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, buffer: int
) -> None:
    directory = tmp_path_factory.mktemp("files")
    whole = state_of(plan)
    save_file(whole, directory / "a.safetensors", {"format": "np"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "BLOCK", buffer)
        source, target, kept = (
            directory / "a.safetensors",
            directory / "b.safetensors",
            directory / "kept",
        )
        planc.apply_files(plan, source, target, keep_removed=kept)
        found = load_file(target)
        assert {n: a.tolist() for n, a in found.items()} == {
            n: a.tolist() for n, a in one_by_one(plan, whole).items()
        }
        assert planc.restore_files(target, kept, directory / "c.safetensors")
    assert (directory / "c.safetensors").read_bytes() == source.read_bytes()
    assert planc.inspect(target).plan == plan
