"""Proven removals: normalisations."""

from __future__ import annotations

import pytest
from torch import nn

from tests.support.proving import (
    IMAGES,
    TOKENS,
    conv,
    prove,
    prunable,
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("norm", "mixing"),
    [
        (nn.GroupNorm(2, 8), True),
        (nn.GroupNorm(8, 8), False),
        (nn.GroupNorm(1, 8), True),
        (nn.GroupNorm(4, 8, affine=False), True),
        (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), False),
        (nn.InstanceNorm2d(8, affine=True), False),
        (nn.BatchNorm2d(8), False),
        (nn.BatchNorm2d(8, affine=False), False),
        (nn.LocalResponseNorm(3), True),
    ],
    ids=lambda v: str(v).replace(" ", ""),
)
def test_norms_of_images_mix_by_their_groups(norm: nn.Module, mixing: bool) -> None:
    found = prove(nn.Sequential(conv(3, 8), norm, nn.ReLU(), conv(8, 2)), IMAGES)
    if isinstance(norm, nn.LocalResponseNorm):
        assert not found.groups
    else:
        assert prunable(found, "module") == {group.name for group in found.groups} != set()
        assert mixing == any(group.mixing for group in found.groups)


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8), nn.Identity()],
    ids=lambda v: str(v).replace(" ", ""),
)
def test_norms_of_tokens_mix(norm: nn.Module) -> None:
    found = prove(nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 2)), TOKENS)
    assert prunable(found, "module") == {"0.weight:0"}
    assert bool(found.groups[0].mixing) == (not isinstance(norm, nn.Identity))
