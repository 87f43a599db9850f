"""Statistics: plain sums collected by a calibration run about the tensors of a model.

:func:`planc.calibrate` makes them, criteria read them. The sums of several runs, or of several
processes, add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import torch

from planc.errors import PolicyError, StalePlan
from planc.modules.weights import row_of
from planc.plan.fingerprint import canonical

ABSOLUTE_GRADIENT = "absolute_gradient"
"""Sum over the batches of the absolute value of the loss's gradient, of the parameter's shape."""
SQUARED_GRADIENT = "squared_gradient"
"""Sum over the batches of the gradient's square, of the parameter's shape."""
CHANGES = "changes"
"""``[2, units]``, of a group: sums over the batches of |c| and c^2, where c is the sum of weight
times gradient over everything removed with a unit: the change of the loss without the unit."""
MEMBER_CHANGES = "member_changes"
"""``[2, units x members]``, of a group: the same for each member separately, in the order of
units, then of the model's tensors."""
INPUTS = "inputs"
"""``[5, channels]``: for each input channel of a weight, the number of values x, and the sums of
x, |x|, x^2 and [x = 0]."""
KRONECKER = "kronecker"
"""``[inputs, inputs]``: sum over the batches of the Kronecker factor A of a weight's input."""
KRONECKER_OUT = "kronecker_out"
"""``[outputs, outputs]``: the same of the Kronecker factor S of its output's gradient."""
QUANTITIES = (ABSOLUTE_GRADIENT, SQUARED_GRADIENT, CHANGES, INPUTS, KRONECKER)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over ``batches`` batches.

    ``tensors`` holds them under ``QUANTITY/PARAMETER`` or ``QUANTITY/GROUP``; ``quantities`` are
    the collected ones.
    """

    batches: int
    quantities: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]

    def __str__(self) -> str:
        return f"{', '.join(self.quantities)} over {self.batches} batches"

    def find(self, quantity: str, names: tuple[str, ...]) -> torch.Tensor | None:
        """The sum for a tensor known by ``names``, None if absent."""
        keys = (f"{quantity}/{name}" for name in names)
        return next((self.tensors[key] for key in keys if key in self.tensors), None)

    def mean(self, quantity: str, names: tuple[str, ...], shape: tuple[int, ...]) -> torch.Tensor:
        """The mean over the batches of a quantity common to every parameter, or every group.

        Raises:
            StalePlan: it is missing or of another shape: it was collected from another model.
        """
        found = self.find(quantity, names)
        if found is None or tuple(found.shape) != shape:
            there = "none" if found is None else f"some of shape {tuple(found.shape)}"
            raise StalePlan(
                f"statistics: expected {quantity} of shape {shape} for {names[0]}, found "
                f"{there}; calibrate this model"
            )
        return found / self.batches

    @property
    def digest(self) -> bytes | None:
        """SHA-256 of everything; None if a sum has no values, as on the meta device."""
        rows = [(name, row_of(tensor)) for name, tensor in sorted(self.tensors.items())]
        if any(row is None for _, row in rows):
            return None
        return sha256(canonical((self.batches, self.quantities, rows))).digest()

    def broken(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The sums with a non-finite value, by their key."""
        for key, tensor in self.tensors.items():
            if not bool(tensor.isfinite().all()):
                yield key, tensor


def needs_of(criterion: object) -> tuple[str, ...]:
    """The statistics read by a criterion, by name; none without an attribute ``needs``."""
    needs: tuple[str, ...] = getattr(criterion, "needs", ())
    return needs


def needed(criterion: object, statistics: Statistics | None) -> Statistics:
    """Return the statistics, complete for ``criterion``.

    Raises:
        PolicyError: a required quantity was not collected.
    """
    needs = needs_of(criterion)
    have = statistics.quantities if statistics is not None else ()
    missing = [quantity for quantity in needs if quantity not in have]
    if missing or statistics is None:
        found = f"these have {statistics}" if statistics is not None else "there are none"
        raise PolicyError(
            f"{criterion} needs statistics of {', '.join(missing or needs)}, {found}; collect them "
            "with planc.calibrate(model, batches, criterion, loss) and pass statistics= "
            "(--statistics, of what planc.save_statistics wrote)"
        )
    return statistics
