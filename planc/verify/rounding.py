"""Rounding differences, distinguished from errors by a second comparison in double precision.

Rounding differences shrink with precision; errors remain.
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
_LIKE_ITSELF = 10.0  # times the reference's own difference between precisions

Values = list[torch.Tensor]
Replays = Callable[[], tuple[Replay, Replay]]


@dataclass(frozen=True, eq=False)
class Pair:
    """A pruned model and its reference, both run on ``call`` under the decisions of ``replays``."""

    smaller: nn.Module
    reference: nn.Module
    call: Call
    replays: Replays | None = None

    def values(self, dtype: torch.dtype | None) -> tuple[Values, Values]:
        """Return the outputs and deciding values of both, in the precision of ``dtype``."""
        ours, theirs = self.replays() if self.replays else (None, None)
        outputs = run(self.smaller, self.call, replay=ours, dtype=dtype)
        expected = run(self.reference, self.call, replay=theirs, dtype=dtype)
        for values, replay in ((outputs, ours), (expected, theirs)):
            values.extend(replay.operands if replay else ())
        return outputs, expected


def settled(failure: VerificationError, pair: Pair, allowed: float) -> tuple[float, str]:
    """Return the difference of a pair explained by rounding, and a remark for the report.

    An output passes if the difference vanishes in double precision. It also passes if the reference
    differs from itself as much between precisions, as at near ties of a top-k. A tolerance below
    the digits of double precision is applied strictly.

    Raises:
        VerificationError: ``failure``, if rounding does not explain the difference.
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
    """Return the difference of one output from the expected one in double precision.

    It is negative if the reference, deterministic if ``steady``, does not settle the question, and
    None if the difference is an error.
    """
    if coarse_expected.shape != expected.shape:  # e.g. another number of detected boxes
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
    # an exact tie falls to the same side in both precisions as often as to different sides
    if not loose.any() or int((wrong & ~loose).sum()) > int(loose.sum()):
        return None
    return -1.0 if not floating or worst <= _LIKE_ITSELF * float(own.max()) else None
