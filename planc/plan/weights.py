"""The digest of a model's weights: the same for a module, a state dict and files.

It covers names, dtypes, shapes and bytes of all parameters. Buffers are left out, because state
dicts and files may lack them, and runs change them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Protocol, TypeVar

from planc.errors import PlancWarning
from planc.plan.fingerprint import canonical
from planc.plan.masks import MaskPlan
from planc.plan.plan import Plan

AnyPlan = TypeVar("AnyPlan", Plan, MaskPlan)
Row = tuple[str, tuple[int, ...], bytes]
"""A tensor's dtype as torch names it, its shape, and the SHA-256 of its values in C order."""


class Named(Protocol):
    """A tensor with all its names, such as :class:`planc.plan.plan.TensorSpec`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...


def weights_digest(tensors: Iterable[Named], found: Mapping[str, Row]) -> bytes | None:
    """The digest of the parameters among ``tensors``; None if one of them is not found.

    Args:
        tensors: the tensors of the model.
        found: a row for each parameter, under any of its names.
    """
    rows = []
    for spec in tensors:
        if spec.kind == "parameter":
            row = next((found[name] for name in spec.names if name in found), None)
            if row is None:
                return None
            rows.append((sorted(spec.names), *row))
    return sha256(canonical(sorted(rows))).digest()


def with_origin(plan: AnyPlan, origin: str) -> AnyPlan:
    """The plan with another origin of the weights in its last provenance."""
    *rest, last = plan.provenance
    return replace(plan, provenance=(*rest, replace(last, origin=origin)))


def expected_weights(plan: Plan) -> bytes | None:
    """The digest of the weights of the model that the plan is for; None if unknown."""
    return plan.provenance[0].weights if plan.provenance else None


def warn_if_different(plan: Plan, found: bytes | None, where: str, stacklevel: int = 4) -> None:
    """Warn with PlancWarning if weights are not those that the plan was computed from.

    Training after planning is legitimate, so this is no error. Nothing is known, and nothing said,
    if either digest is None.

    Args:
        plan: the plan.
        found: the digest of the weights at hand.
        where: their name in the message.
        stacklevel: as for ``warnings.warn``.
    """
    expected = expected_weights(plan)
    if found is None or expected is None or found == expected:
        return
    warnings.warn(
        f"{where}: the weights differ from those that the plan was computed from (SHA-256 "
        f"{found.hex()[:16]}..., the plan has {expected.hex()[:16]}...); if they were not trained "
        "or converted since, compile the plan again",
        PlancWarning,
        stacklevel=stacklevel,
    )
