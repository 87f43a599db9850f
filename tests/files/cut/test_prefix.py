"""Files with the names of a wrapper are refused with the prefix and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import planc
from planc.errors import StalePlan
from tests.support.small import build


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_in_files_is_named(prefix: str, tmp_path: Path) -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(StalePlan, match=f"every name begins with {prefix!r}, which a wrapper"):
        planc.apply_files(plan, tmp_path / "w.safetensors", tmp_path / "out.safetensors")


def test_other_names_are_no_prefix(tmp_path: Path) -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    save_file({"net.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(StalePlan) as refusal:
        planc.apply_files(plan, tmp_path / "w.safetensors", tmp_path / "out.safetensors")
    assert "every name" not in str(refusal.value)
