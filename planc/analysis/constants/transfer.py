"""Propagation of known values through operators.

:func:`transferred` maps an operator and its known operands to the known result. The functions are
in :mod:`planc.analysis.constants.coordinates` and :mod:`planc.analysis.constants.weighted`;
operators without one give an unknown result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from planc.analysis.constants import weighted  # noqa: F401  registers its functions
from planc.analysis.constants.calls import TRANSFERS, Call, Operator
from planc.analysis.constants.coordinates import pointwise
from planc.analysis.constants.known import Known, constant, operands

_LINES = """
    alias clone contiguous detach dropout expand reshape to type_as unsqueeze view _to_copy
    _unsafe_view
"""


def transferred(
    name: str, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The known result of an operator, named without overload and trailing ``_``: a :class:`Known`,
    a tuple of them and of None, or None if nothing is known.
    """
    call, given = Call(operator, args, kwargs), operands((args, tuple(kwargs.values())))
    random = torch.Tag.nondeterministic_seeded in operator.tags  # type: ignore[attr-defined]
    if given and not random and all(operand.everywhere for operand in given):
        return _computed(call)
    elementwise = torch.Tag.pointwise in operator.tags and not random  # type: ignore[attr-defined]
    transfer = TRANSFERS.get(name, pointwise if elementwise else None)
    if transfer is None:
        return None
    result = transfer(call)
    lines = given and given[0].weighs and name in _LINES.split()
    if lines and isinstance(result, Known) and _as_long(result, given[0]):
        return replace(result, weighs=True)
    return result


def _computed(call: Call) -> Any:
    """The result of constants alone, a constant."""
    result = call.value()
    if isinstance(result, Tensor):
        return constant(result)
    if isinstance(result, tuple | list):
        return tuple(constant(r) if isinstance(r, Tensor) else None for r in result)
    return None


def _as_long(result: Known, operand: Known) -> bool:
    """True if the result has the operand's size along the last dimension."""
    return result.value.shape[-1:] == operand.value.shape[-1:]
