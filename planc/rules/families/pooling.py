"""Pooling, resampling and patches: channels pass through, spatial positions are pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.labels import Labelled, even, insert, merge, permute, reshape, volume
from planc.rules.labels.facts import Facts
from planc.rules.registry import looking_along, per_dim, pin_dims, rule

_POOLS = [f"aten.{name}{d}d" for d in (1, 2, 3) for name in ("max_pool", "avg_pool")]
_ADAPTIVE_POOLS = [f"aten.adaptive_avg_pool{d}d" for d in (1, 2, 3)]
_ADAPTIVE_POOLS += ["aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d"]
_POOLS_WITH_INDICES = [f"aten.adaptive_max_pool{d}d" for d in (1, 2, 3)]
_POOLS_WITH_INDICES += [f"aten.max_pool{d}d_with_indices" for d in (2, 3)]
_POOLS_WITH_INDICES += ["aten.max_pool1d_with_indices"]
_UPSAMPLES = [
    f"aten.{name}"
    for name in (
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
    )
]


def spatial(cx: Facts, x: Labelled, dims: Sequence[int], shape: Sequence[int]) -> Labelled:
    """Something that happens within the ``dims``, channel by channel."""
    x = even(cx, pin_dims(cx, x, dims, "a spatial dimension"), dims)
    return Labelled(tuple(shape), x.layers)


@rule(*_POOLS)
def pool(
    cx: Facts,
    x: Labelled,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    *_: Any,
    **__: Any,
) -> Labelled:
    first = _first_spatial(cx, x, kernel_size)
    kernel = per_dim(kernel_size, x.rank - first)
    return spatial(cx, x, looking_along(first, kernel, stride, padding), cx.shape)


@rule(*_ADAPTIVE_POOLS)
def adaptive_pool(cx: Facts, x: Labelled, output_size: Any) -> Labelled:
    return spatial(cx, x, range(_first_spatial(cx, x, output_size), x.rank), cx.shape)


def _first_spatial(cx: Facts, x: Labelled, window: Any) -> int:
    """The dimension from which on a window slides, by its rank or, if it has none, what changed."""
    differ = [d for d in range(x.rank) if x.shape[d] != cx.shape[d]]
    rank = max(1, x.rank - 2) if isinstance(window, int) else len(window)
    return min([x.rank - rank, *differ])


@rule(*_POOLS_WITH_INDICES)
def pool_with_indices(
    cx: Facts, x: Labelled, kernel_size: Any, *_: Any, **__: Any
) -> tuple[Labelled, Labelled]:
    y = adaptive_pool(cx, x, kernel_size)  # an index counts all positions
    return y, y.nonzero()


@rule(*_UPSAMPLES)
def upsample(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return spatial(cx, x, range(2, x.rank), cx.shape)


@rule("aten.pixel_shuffle")
def pixel_shuffle(cx: Facts, x: Labelled, upscale_factor: int) -> Labelled:
    """[..., c r r, h, w] to [..., c, h r, w r]."""
    *lead, c, h, w = x.shape
    r, n = upscale_factor, len(lead)
    x = spatial(cx, x, (n + 1, n + 2), x.shape)
    x = reshape(cx, x, (*lead, c // (r * r), r, r, h, w))
    x = spatial(cx, x, (n + 1, n + 2), x.shape)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshape(cx, permute(x, order), cx.shape)


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(cx: Facts, x: Labelled, groups: int) -> Labelled:
    """[n, g c, ...] to [n, c g, ...]."""
    n, c, *rest = x.shape
    x = reshape(cx, x, (n, groups, c // groups, *rest))
    cx.demand("groups", None, x, 1)
    return reshape(cx, permute(x, [0, 2, 1, *range(3, x.rank)]), cx.shape)


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(cx: Facts, x: Labelled, downscale_factor: int) -> Labelled:
    """[..., c, h r, w r] to [..., c r r, h, w]."""
    *lead, c, h, w = x.shape
    r, n = downscale_factor, len(lead)
    x = spatial(cx, x, (n + 1, n + 2), x.shape)
    x = reshape(cx, x, (*lead, c, h // r, r, w // r, r))
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reshape(cx, permute(x, order), cx.shape)


@rule("aten.im2col")
def im2col(cx: Facts, x: Labelled, kernel_size: Sequence[int], *_: Any) -> Labelled:
    """[n, c, h, w] to [n, c * kernel, patches]: each channel becomes a run of rows."""
    x = spatial(cx, x, (2, 3), x.shape)
    k = volume(kernel_size)
    flat = insert(Labelled((*x.shape[:2], 1, 1), x.layers), 2)
    wide = Labelled((*x.shape[:2], k, 1, 1), flat.layers)
    y = reshape(cx, wide, (x.shape[0], x.shape[1] * k, 1))
    return Labelled(cx.shape, y.layers)


@rule("aten.col2im")
def col2im(
    cx: Facts, x: Labelled, output_size: Sequence[int], kernel_size: Sequence[int], *_: Any
) -> Labelled:
    """[n, c * kernel, patches] to [n, c, h, w]: the rows of a channel go together."""
    x = spatial(cx, x, (2,), x.shape)
    k = volume(kernel_size)
    flat = Labelled((*x.shape[:2], 1), x.layers)
    y = reshape(cx, flat, (x.shape[0], x.shape[1] // k, k, 1))
    return Labelled(cx.shape, merge(cx, y, 2).layers)


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample(cx: Facts, x: Labelled, grid: Labelled, *_: Any) -> Labelled:
    pin_dims(cx, grid, range(grid.rank), "sampling positions")
    return spatial(cx, x, (0, *range(2, x.rank)), cx.shape)


@rule("torchvision.roi_align", "torchvision.roi_pool")
def roi_align(cx: Facts, x: Labelled, rois: Labelled, *_: Any) -> Any:
    pin_dims(cx, rois, range(rois.rank), "regions of interest")
    y = spatial(cx, x, (0, 2, 3), cx.shape)
    return y if len(cx.shapes) == 1 else (y, y.nonzero())
