"""Pooling, resampling and patches: channels pass through, spatial positions are pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.common import looking_along, per_dim, pin_dims
from planc.rules.labels import Labelled, even, insert, merge, permute, reshape, volume
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

_POOLS = [f"aten.{name}{d}d" for d in (1, 2, 3) for name in ("max_pool", "avg_pool")]
_ADAPTIVE_POOLS = [f"aten.adaptive_avg_pool{d}d" for d in (1, 2, 3)]
_ADAPTIVE_POOLS += ["aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d"]
_POOLS_WITH_INDICES = [f"aten.adaptive_max_pool{d}d" for d in (1, 2, 3)]
_POOLS_WITH_INDICES += [f"aten.max_pool{d}d_with_indices" for d in (2, 3)]
_POOLS_WITH_INDICES += ["aten.max_pool1d_with_indices"]
_UPSAMPLES = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""


def spatial(facts: Facts, x: Labelled, dims: Sequence[int], shape: Sequence[int]) -> Labelled:
    """An operation within ``dims``, applied to each channel separately."""
    x = even(facts, pin_dims(facts, x, dims, "a spatial dimension"), dims)
    return Labelled(tuple(shape), x.layers)


@rule(*_POOLS)
def pool(
    facts: Facts,
    x: Labelled,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    *_: Any,
    **__: Any,
) -> Labelled:
    first = _first_spatial(facts, x, kernel_size)
    kernel = per_dim(kernel_size, x.rank - first)
    return spatial(facts, x, looking_along(first, kernel, stride, padding), facts.shape)


@rule(*_ADAPTIVE_POOLS)
def adaptive_pool(facts: Facts, x: Labelled, output_size: Any) -> Labelled:
    return spatial(facts, x, range(_first_spatial(facts, x, output_size), x.rank), facts.shape)


def _first_spatial(facts: Facts, x: Labelled, window: Any) -> int:
    """The first dimension of the window, by its rank or else by the first changed size."""
    differ = [d for d in range(x.rank) if x.shape[d] != facts.shape[d]]
    rank = max(1, x.rank - 2) if isinstance(window, int) else len(window)
    return min([x.rank - rank, *differ])


@rule(*_POOLS_WITH_INDICES)
def pool_with_indices(
    facts: Facts, x: Labelled, kernel_size: Any, *_: Any, **__: Any
) -> tuple[Labelled, Labelled]:
    y = adaptive_pool(facts, x, kernel_size)  # an index counts all positions
    return y, y.nonzero()


@rule(*(f"aten.{name}" for name in _UPSAMPLES.split()))
def upsample(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return spatial(facts, x, range(2, x.rank), facts.shape)


@rule("aten.pixel_shuffle")
def pixel_shuffle(facts: Facts, x: Labelled, upscale_factor: int) -> Labelled:
    """[..., c r r, h, w] to [..., c, h r, w r]."""
    *lead, c, h, w = x.shape
    r, n = upscale_factor, len(lead)
    x = spatial(facts, x, (n + 1, n + 2), x.shape)
    x = reshape(facts, x, (*lead, c // (r * r), r, r, h, w))
    x = spatial(facts, x, (n + 1, n + 2), x.shape)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshape(facts, permute(x, order), facts.shape)


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(facts: Facts, x: Labelled, groups: int) -> Labelled:
    """[n, g c, ...] to [n, c g, ...]."""
    n, c, *rest = x.shape
    x = reshape(facts, x, (n, groups, c // groups, *rest))
    facts.demand("groups", None, x, 1)
    return reshape(facts, permute(x, [0, 2, 1, *range(3, x.rank)]), facts.shape)


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(facts: Facts, x: Labelled, downscale_factor: int) -> Labelled:
    """[..., c, h r, w r] to [..., c r r, h, w]."""
    *lead, c, h, w = x.shape
    r, n = downscale_factor, len(lead)
    x = spatial(facts, x, (n + 1, n + 2), x.shape)
    x = reshape(facts, x, (*lead, c, h // r, r, w // r, r))
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reshape(facts, permute(x, order), facts.shape)


@rule("aten.im2col")
def im2col(facts: Facts, x: Labelled, kernel_size: Sequence[int], *_: Any) -> Labelled:
    """[n, c, h, w] to [n, c * kernel, patches]: each channel becomes a run of rows."""
    x = spatial(facts, x, (2, 3), x.shape)
    k = volume(kernel_size)
    flat = insert(Labelled((*x.shape[:2], 1, 1), x.layers), 2)
    wide = Labelled((*x.shape[:2], k, 1, 1), flat.layers)
    y = reshape(facts, wide, (x.shape[0], x.shape[1] * k, 1))
    return Labelled(facts.shape, y.layers)


@rule("aten.col2im")
def col2im(
    facts: Facts, x: Labelled, output_size: Sequence[int], kernel_size: Sequence[int], *_: Any
) -> Labelled:
    """[n, c * kernel, patches] to [n, c, h, w]: the rows of a channel are removed together."""
    x = spatial(facts, x, (2,), x.shape)
    k = volume(kernel_size)
    flat = Labelled((*x.shape[:2], 1), x.layers)
    y = reshape(facts, flat, (x.shape[0], x.shape[1] // k, k, 1))
    return Labelled(facts.shape, merge(facts, y, 2).layers)


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample(facts: Facts, x: Labelled, grid: Labelled, *_: Any) -> Labelled:
    pin_dims(facts, grid, range(grid.rank), "sampling positions")
    return spatial(facts, x, (0, *range(2, x.rank)), facts.shape)


@rule("aten.affine_grid_generator")
def affine_grid(facts: Facts, theta: Labelled, size: Sequence[int], *_: Any) -> Labelled:
    """Sampling positions for images [n, c, ...] of a size; the channels do not matter."""
    pin_dims(facts, theta, range(theta.rank), "sampling positions")
    facts.ignore("size", 1)
    return Labelled(facts.shape)


@rule("torchvision.roi_align", "torchvision.roi_pool")
def roi_align(facts: Facts, x: Labelled, rois: Labelled, *_: Any) -> Any:
    pin_dims(facts, rois, range(rois.rank), "regions of interest")
    y = spatial(facts, x, (0, 2, 3), facts.shape)
    return y if len(facts.shapes) == 1 else (y, y.nonzero())
