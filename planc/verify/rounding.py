"""Differences of rounding: told from errors by a second comparison in double precision.

What two models compute alike, they compute more alike the more digits they have. An error stays.
In: two models whose outputs differ. Out: the difference in double precision, or the failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from planc.apply.validate import Call
from planc.errors import VerificationError
from planc.trace.decisions import Replay
from planc.verify.contents import texts_differ
from planc.verify.outputs import TOLERANCE, differ, gaps, largest, run

_ALIKE = TOLERANCE[torch.float64]
_VANISHES = 1e-6  # of a difference from float32 to float64: rounding loses nine digits
_FINEST = 1e-12
_LIKE_ITSELF = 10.0  # times how far the reference is from itself in another precision

Values = list[torch.Tensor]
Replays = Callable[[], tuple[Replay, Replay]]


@dataclass(frozen=True, eq=False)
class Pair:
    """A pruned model and its reference, which both run ``call``, deciding as ``replays`` say."""

    smaller: nn.Module
    reference: nn.Module
    call: Call
    replays: Replays | None = None

    def values(self, dtype: torch.dtype | None) -> tuple[Values, Values]:
        """Outputs of both, and what they decided by, in the precision of ``dtype``."""
        ours, theirs = self.replays() if self.replays else (None, None)
        outputs = run(self.smaller, self.call, replay=ours, dtype=dtype)
        expected = run(self.reference, self.call, replay=theirs, dtype=dtype)
        for values, replay in ((outputs, ours), (expected, theirs)):
            values.extend(replay.operands if replay else ())
        return outputs, expected


def settled(failure: VerificationError, pair: Pair, allowed: float) -> tuple[float, str]:
    """The difference of a pair that rounding alone sets apart, and a remark for the report.

    An output passes where double precision makes the difference vanish. It passes as well where
    the reference is as far from itself in another precision: near ties of a top-k, say. A tolerance
    below the digits of double precision is taken by its word.

    Raises:
        VerificationError: ``failure``, where the difference is none of rounding.
    """
    if allowed < _FINEST:
        raise failure
    try:
        double = {p.dtype for p in pair.smaller.parameters() if p.is_floating_point()}
        coarse = pair.values(torch.float32 if double == {torch.float64} else None)
        fine = pair.values(torch.float64)
        steady = not differ(run(pair.reference, pair.call), run(pair.reference, pair.call, seed=1))
    except VerificationError:
        raise failure from None
    if len({len(values) for values in (*coarse, *fine)}) > 1 or texts_differ(*fine):
        raise failure
    found = [_rounded(*values, allowed, steady) for values in zip(*coarse, *fine, strict=True)]
    errors = [error for error in found if error is not None]
    if len(errors) < len(found):
        raise failure
    remark = f"; compared in float64, because in the model's own precision {failure}"
    unsettled = [str(i) for i, error in enumerate(errors) if error < 0]
    if unsettled:
        remark += (
            f"; where rounding alone changes output {', '.join(unsettled)} of the original as "
            "much (near ties, say), it is not compared"
        )
    return max((0.0, *errors)), remark


def _rounded(
    coarse: torch.Tensor,
    coarse_expected: torch.Tensor,
    fine: torch.Tensor,
    expected: torch.Tensor,
    allowed: float,
    steady: bool,
) -> float | None:
    """How far one output is from the expected one in double precision; negative where the
    reference, which is ``steady`` if nothing in it is random, does not settle it; None where the
    difference is an error.
    """
    if coarse_expected.shape != expected.shape:  # the reference finds another number of boxes, say
        return -1.0 if steady else None
    if fine.shape != expected.shape:
        return None
    apart, scale = gaps(fine, expected), largest(expected)
    worst = float(apart.max()) if apart.numel() else 0.0
    if worst <= _ALIKE * scale:
        return worst / scale if scale else 0.0
    if coarse.shape == fine.shape and worst <= _VANISHES * float(
        gaps(coarse, coarse_expected).max()
    ):
        return worst
    if not steady:
        return None
    own = gaps(coarse_expected, expected)
    floating = expected.is_floating_point() or expected.is_complex()
    loose, wrong = own > allowed * scale, apart > _ALIKE * scale
    if not floating:
        loose = own > 0
    # a tie that is exact falls as often to the same side in both precisions as to different ones
    if not loose.any() or int((wrong & ~loose).sum()) > int(loose.sum()):
        return None
    return -1.0 if not floating or worst <= _LIKE_ITSELF * float(own.max()) else None
