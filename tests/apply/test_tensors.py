"""One tensor and its cut: the cut is what NumPy takes, the mask is zero exactly where it should
be, and the inverse gives back every bit.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.apply.tensors import copy_tensor, cut_tensor, mask_tensor, removed_values, uncut_tensor
from planc.errors import PlancError, StalePlan
from planc.plan.plan import Cut, Ragged

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.complex128,
    torch.int8,
    torch.uint16,
    torch.int64,
    torch.bool,
)


def indices(draw: st.DrawFn, size: int, count: int) -> np.ndarray:
    chosen = draw(st.permutations(range(size)))[:count]
    return np.array(sorted(chosen), dtype=np.int64)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], Cut]:
    """A shape of up to four dimensions and a cut of it, dense and ragged, perhaps of nothing."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    after, kept, ragged = list(shape), [], []
    raggeds = draw(st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=2))
    if any(over in raggeds for over in raggeds.values()):  # chains have a test of their own
        raggeds = {}
    for dim, size in enumerate(shape):
        count = draw(st.integers(0, size))
        over = raggeds.get(dim)
        if over is not None and over < len(shape):
            bounds = sorted({0, shape[over], *draw(st.sets(st.integers(0, shape[over])))})
            parts = [
                Ragged(start, stop, indices(draw, size, count))
                for start, stop in itertools.pairwise(bounds)
            ]
            ragged.append((dim, over, tuple(parts)))
            kept.append(None)
            after[dim] = count
        elif draw(st.booleans()):
            kept.append(indices(draw, size, count))
            after[dim] = count
        else:
            kept.append(None)
    return shape, Cut(tuple(kept), tuple(ragged), tuple(after))


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Any bit pattern that the type has, signalling NaNs and infinities included."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if dtype is torch.bool:
        return torch.from_numpy(generator.integers(0, 2, shape).astype(bool))
    raw = generator.integers(0, 256, (size * dtype.itemsize,), dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).reshape(shape)


@st.composite
def tensors_with_cuts(draw: st.DrawFn) -> tuple[torch.Tensor, Cut]:
    """A tensor of any dtype and stride order (dense, expanded or with gaps) and a cut of it."""
    shape, cut = draw(cuts())
    order = draw(st.permutations(range(len(shape))))
    dtype = draw(st.sampled_from(DTYPES))
    tensor = random_bits(tuple(shape[dim] for dim in order), dtype, draw(st.integers(0, 1 << 20)))
    if draw(st.booleans()):
        tensor = torch.stack([tensor, tensor], -1)[..., 0]
    return tensor.permute([order.index(dim) for dim in range(len(shape))]), cut


def bits(tensor: torch.Tensor) -> bytes:
    """The values in C order, bit for bit."""
    tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
    return bytes(tensor.reshape(-1).view(torch.uint8).tolist())


def removed_mask(shape: tuple[int, ...], cut: Cut) -> np.ndarray:
    """The reference: every coordinate asks every dimension whether it stays."""
    gone = np.zeros(shape, dtype=bool)
    for place in itertools.product(*map(range, shape)):
        for dim, kept in enumerate(cut.kept):
            gone[place] |= kept is not None and place[dim] not in kept
        for dim, over, parts in cut.ragged:
            (part,) = (p for p in parts if p.start <= place[over] < p.stop)
            gone[place] |= place[dim] not in part.kept
    return gone


@settings(max_examples=400, deadline=None)
@given(tensors_with_cuts())
def test_restoring_gives_back_every_bit(case: tuple[torch.Tensor, Cut]) -> None:
    tensor, cut = case
    small, removed = cut_tensor(tensor, cut), removed_values(tensor, cut)
    assert tuple(small.shape) == cut.shape
    assert (removed.dim(), removed.dtype) == (1, tensor.dtype)
    restored = uncut_tensor(small, removed, cut, tuple(tensor.shape))
    assert restored.dtype == tensor.dtype
    assert restored.shape == tensor.shape
    assert bits(restored) == bits(tensor)


@settings(max_examples=300, deadline=None)
@given(tensors_with_cuts())
def test_the_mask_is_zero_where_removed_and_untouched_elsewhere(
    case: tuple[torch.Tensor, Cut],
) -> None:
    tensor, cut = case
    gone = torch.from_numpy(removed_mask(tuple(tensor.shape), cut)).unsqueeze(-1)
    size = tensor.dtype.itemsize
    raw = torch.tensor(list(bits(tensor)), dtype=torch.uint8).reshape(*tensor.shape, size)
    masked = mask_tensor(tensor, cut)
    assert bits(masked) == bits(raw.masked_fill(gone, 0))
    assert bits(removed_values(tensor, cut)) == bits(raw[gone.expand_as(raw)])


@settings(max_examples=300, deadline=None)
@given(cuts())
def test_the_cut_is_what_numpy_takes(case: tuple[tuple[int, ...], Cut]) -> None:
    shape, cut = case
    whole = np.arange(int(np.prod(shape))).reshape(shape)
    expected = whole
    for dim, over, parts in cut.ragged:
        chosen = np.concatenate(
            [np.broadcast_to(part.kept, (part.stop - part.start, len(part.kept))) for part in parts]
        )
        places = chosen.reshape(*chosen.shape, *(1,) * (len(shape) - 2))
        places = np.moveaxis(places, (0, 1), (over, dim))
        expected = np.take_along_axis(expected, places, axis=dim)
    axes = [
        np.arange(size) if kept is None else kept
        for size, kept in zip(expected.shape, cut.kept, strict=True)
    ]
    expected = expected[np.ix_(*axes)]
    assert np.array_equal(cut_tensor(torch.from_numpy(whole), cut).numpy(), expected)


@settings(max_examples=200, deadline=None)
@given(tensors_with_cuts())
def test_nothing_shares_memory_with_the_argument(case: tuple[torch.Tensor, Cut]) -> None:
    tensor, cut = case
    before = bits(tensor)
    small, removed = cut_tensor(tensor, cut), removed_values(tensor, cut)
    made = (small, removed, mask_tensor(tensor, cut), copy_tensor(tensor))
    made += (uncut_tensor(small, removed, cut, tuple(tensor.shape)),)
    for result in made:
        assert not result._is_view()
        result.zero_()
    assert bits(tensor) == before


@settings(max_examples=200, deadline=None)
@given(cuts(), st.permutations(range(4)))
def test_the_meta_device_gives_the_same_shapes_and_strides(
    case: tuple[tuple[int, ...], Cut], order: list[int]
) -> None:
    shape, cut = case
    order = [dim for dim in order if dim < len(shape)]
    real = torch.zeros([shape[dim] for dim in order]).permute(
        [order.index(dim) for dim in range(len(shape))]
    )
    meta = real.to("meta")
    small, removed = cut_tensor(real, cut), removed_values(real, cut)
    small_meta, removed_meta = cut_tensor(meta, cut), removed_values(meta, cut)
    pairs = [
        (small_meta, small),
        (mask_tensor(meta, cut), mask_tensor(real, cut)),
        (
            uncut_tensor(small_meta, removed_meta, cut, shape),
            uncut_tensor(small, removed, cut, shape),
        ),
    ]
    assert (removed_meta.is_meta, removed_meta.shape) == (True, removed.shape)
    for found, expected in pairs:
        assert found.is_meta
        assert (found.shape, found.stride()) == (expected.shape, expected.stride())


def dense(shape: tuple[int, ...], **kept: list[int]) -> Cut:
    """``dense((4, 3), d0=[1, 2])`` keeps indices 1 and 2 of dimension 0."""
    chosen = [
        np.array(kept[f"d{dim}"], dtype=np.int64) if f"d{dim}" in kept else None
        for dim in range(len(shape))
    ]
    after = tuple(n if k is None else len(k) for n, k in zip(shape, chosen, strict=True))
    return Cut(tuple(chosen), (), after)


@pytest.mark.parametrize(
    "shape", [(16, 8, 3, 3), (16, 8, 1, 1), (16, 1, 3, 3), (1, 8, 3, 3), (16, 8, 5, 1)]
)
def test_channels_last_stays_channels_last(shape: tuple[int, ...]) -> None:
    kept = {f"d{dim}": list(range(0, shape[dim], 2)) for dim in (0, 1)}
    cut = dense(shape, **kept)
    plain = torch.randn(shape)
    whole = plain.to(memory_format=torch.channels_last)
    small = cut_tensor(whole, cut)
    assert small.stride() == torch.empty(cut.shape, memory_format=torch.channels_last).stride()
    assert mask_tensor(whole, cut).stride() == whole.stride()
    restored = uncut_tensor(small, removed_values(whole, cut), cut, shape)
    assert restored.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(restored, whole)
    contiguous = cut_tensor(plain, cut)
    assert contiguous.stride() == torch.empty(cut.shape).stride()
    assert torch.equal(contiguous, small)


def test_channels_last_3d_and_transposed_weights_keep_their_order() -> None:
    video = torch.randn(6, 4, 2, 3, 3).to(memory_format=torch.channels_last_3d)
    small = cut_tensor(video, dense((6, 4, 2, 3, 3), d1=[0, 3]))
    assert small.is_contiguous(memory_format=torch.channels_last_3d)
    transposed = torch.randn(5, 7).t()
    assert cut_tensor(transposed, dense((7, 5), d0=[1, 2, 6])).stride() == (1, 3)


def test_zeros_are_written_over_not_a_number_and_infinity() -> None:
    whole = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), -1.0])
    masked = mask_tensor(whole, dense((5,), d0=[0, 4]))
    assert masked.tolist() == [1.0, 0.0, 0.0, 0.0, -1.0]
    assert not torch.signbit(masked[1:4]).any()


def test_conjugate_views_are_cut_by_value() -> None:
    whole = torch.randn(4, 3, dtype=torch.complex64).conj()
    cut = dense((4, 3), d0=[0, 2])
    assert torch.equal(cut_tensor(whole, cut), whole[[0, 2]])
    assert torch.equal(mask_tensor(whole, cut)[[0, 2]], whole[[0, 2]])
    restored = uncut_tensor(cut_tensor(whole, cut), removed_values(whole, cut), cut, (4, 3))
    assert torch.equal(restored, whole)


def test_a_chain_of_ragged_dimensions_is_cut_from_its_end() -> None:
    def part(start: int, stop: int, *kept: int) -> Ragged:
        return Ragged(start, stop, np.array(kept, dtype=np.int64))

    first = (1, 0, (part(0, 1, 0, 2), part(1, 3, 1, 2)))
    second = (2, 1, (part(0, 2, 0, 3), part(2, 3, 1, 2)))
    whole = torch.arange(36).reshape(3, 3, 4)
    expected = [[[0, 3], [9, 10]], [[16, 19], [21, 22]], [[28, 31], [33, 34]]]
    for ragged in ((first, second), (second, first)):
        cut = Cut((None, None, None), ragged, (3, 2, 2))
        small, removed = cut_tensor(whole, cut), removed_values(whole, cut)
        assert small.tolist() == expected
        assert torch.equal(uncut_tensor(small, removed, cut, (3, 3, 4)), whole)


def test_dimensions_ragged_over_each_other_are_refused() -> None:
    everything = (Ragged(0, 2, np.array([0])),)
    crossed = Cut((None, None), ((0, 1, everything), (1, 0, everything)), (1, 1))
    doubled = Cut((None,) * 3, ((0, 1, everything), (0, 2, everything)), (1, 2, 2))
    with pytest.raises(PlancError, match="ragged over each other"):
        cut_tensor(torch.zeros(2, 2), crossed)
    with pytest.raises(PlancError, match="ragged over two dimensions"):
        mask_tensor(torch.zeros(2, 2, 2), doubled)


def test_restoring_refuses_what_does_not_fit() -> None:
    cut = dense((4,), d0=[0, 2])
    small, removed = torch.zeros(2), torch.zeros(2)
    for bad in (
        (torch.zeros(3), removed, cut, (4,)),
        (small, torch.zeros(1), cut, (4,)),
        (small, removed.double(), cut, (4,)),
    ):
        with pytest.raises(StalePlan, match="keep_removed"):
            uncut_tensor(*bad)


def test_a_scalar_is_copied() -> None:
    scalar = torch.tensor(3.0)
    copied = cut_tensor(scalar, Cut((), (), ()))
    assert copied.item() == 3.0
    assert copied.data_ptr() != scalar.data_ptr()
