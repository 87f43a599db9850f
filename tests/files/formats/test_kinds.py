"""A file of any kind is read as its own reader reads it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planc.errors import CorruptFile, LimitExceeded, NotAPlancFile
from planc.files.disk.limits import Limits
from planc.files.formats import save_plan
from planc.files.formats.kinds import load_any
from planc.files.formats.latency import save_latency
from planc.files.formats.masks import save_masks
from planc.plan.masks import mask_plan
from planc.plan.plan import TensorSpec
from tests.files.formats.test_latency_files import TABLE
from tests.support.strategies import example_plan

MASKS = mask_plan((TensorSpec(("w",), (3,), "parameter"),), {"w": np.array([True, False, True])})


@pytest.mark.parametrize(
    ("save", "value", "limits"),
    [
        (save_plan, example_plan(), Limits(tensors=4)),
        (save_masks, MASKS, Limits(tensors=0)),
        (save_latency, TABLE, Limits(inputs=9)),
    ],
)
def test_digest_limits_and_name_count_for_each_kind(
    save: Any, value: Any, limits: Limits, tmp_path: Path
) -> None:
    path = tmp_path / "any"
    save(value, path)
    assert load_any(str(path)) == value
    assert load_any(path, sha256=sha256(path.read_bytes()).hexdigest()) == value
    with pytest.raises(CorruptFile, match=rf"^{path}: .* {'0' * 64} was asked for"):
        load_any(path, sha256="0" * 64)
    with pytest.raises(LimitExceeded, match=rf"^{path}: .* exceeds the limit of"):
        load_any(path, limits=limits)


def test_a_file_of_no_kind_is_read_as_a_plan(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3))
    with pytest.raises(NotAPlancFile, match=rf"^{tmp_path / 'a'}: byte 0: .* a plan begins with"):
        load_any(tmp_path / "a")
