"""Statistics: what a calibration run found out about the tensors of a model, as plain sums.

:func:`planc.calibrate` makes them, criteria read them. Sums of several runs, or of several
processes, add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from planc.errors import PolicyError, StalePlan

ABSOLUTE_GRADIENT = "absolute_gradient"
"""Sum over the batches of the absolute value of the loss's gradient, of the parameter's shape."""
SQUARED_GRADIENT = "squared_gradient"
"""Sum over the batches of the gradient's square, of the parameter's shape."""
CHANGES = "changes"
"""``[2, units]``, of a group: sums over the batches of |c| and c^2, where c is the sum of weight
times gradient over all that leaves with a unit: what the loss changes by without it."""
MEMBER_CHANGES = "member_changes"
"""``[2, units x members]``, of a group: the same for what leaves each member by itself, in the
order of units, then of the model's tensors."""
INPUTS = "inputs"
"""``[5, channels]``: for each channel that a weight reads the number of values x, and the sums of
x, |x|, x^2 and [x = 0]."""
KRONECKER = "kronecker"
"""``[inputs, inputs]``: sum over the batches of the Kronecker factor A of a weight's input."""
KRONECKER_OUT = "kronecker_out"
"""``[outputs, outputs]``: that of the Kronecker factor S of the gradient of its output."""
QUANTITIES = (ABSOLUTE_GRADIENT, SQUARED_GRADIENT, CHANGES, INPUTS, KRONECKER)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over ``batches`` batches. ``tensors`` has them under ``QUANTITY/PARAMETER`` or
    ``QUANTITY/GROUP``; ``quantities`` are those that were collected.
    """

    batches: int
    quantities: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]

    def __str__(self) -> str:
        return f"{', '.join(self.quantities)} over {self.batches} batches"

    def find(self, quantity: str, names: tuple[str, ...]) -> torch.Tensor | None:
        """The sum of what is known by ``names``, None if it has none."""
        keys = (f"{quantity}/{name}" for name in names)
        return next((self.tensors[key] for key in keys if key in self.tensors), None)

    def mean(self, quantity: str, names: tuple[str, ...], shape: tuple[int, ...]) -> torch.Tensor:
        """The mean over the batches of a quantity that every parameter has, or every group.

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

    def broken(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The sums that hold a value which is not finite, by their key."""
        for key, tensor in self.tensors.items():
            if not bool(tensor.isfinite().all()):
                yield key, tensor


def needed(criterion: object, statistics: Statistics | None) -> Statistics:
    """The statistics, if they have all that ``criterion`` needs.

    Raises:
        PolicyError: they have not.
    """
    needs: tuple[str, ...] = getattr(criterion, "needs", ())
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
