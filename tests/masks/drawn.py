"""Random mask plans, for the laws."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import Provenance, TensorSpec
from tests.support.strategies import settings  # noqa: F401  # its profile: a busy machine breaks no law

NAMES = ("a.weight", "a.bias", "b.weight", "scale", "b.table", "ключ.weight")


@st.composite
def tables(draw: st.DrawFn) -> tuple[TensorSpec, ...]:
    """Tensors of any rank, some empty, some tied."""
    specs = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
        names = (name, f"{name}.tied") if draw(st.booleans()) else (name,)
        specs.append(TensorSpec(names, shape, draw(st.sampled_from(["parameter", "buffer"]))))
    return tuple(specs)


@st.composite
def mask_plans(draw: st.DrawFn, tensors: tuple[TensorSpec, ...] | None = None) -> MaskPlan:
    """A mask plan for drawn tensors, or for the given ones."""
    table = draw(tables()) if tensors is None else tensors
    removed = {}
    for spec in table:
        bits = draw(st.integers(0, 2 ** math.prod(spec.shape) - 1))
        if draw(st.booleans()):
            flat = [bool(bits >> i & 1) for i in range(math.prod(spec.shape))]
            removed[spec.name] = np.array(flat, dtype=bool).reshape(spec.shape)
    provenance = (Provenance("magnitude", "2:4 along 1", draw(st.integers(0, 9)), (("a", "1"),)),)
    return mask_plan(table, removed, draw(st.sampled_from([(), provenance])))


@st.composite
def several_for_one(draw: st.DrawFn, count: int) -> tuple[MaskPlan, ...]:
    """Mask plans for the same tensors."""
    table = draw(tables())
    return tuple(draw(mask_plans(table)) for _ in range(count))
