"""Scoring: one finite score for each unit, by a criterion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from planc.analysis import Analysis
from planc.criteria.names import named
from planc.criteria.scores import (
    Criterion,
    Scores,
    Unread,
    Weights,
    broken,
    check_weights,
    is_relative,
    named_in,
    opinions,
)
from planc.criteria.statistics import Statistics, needs_of
from planc.errors import PolicyError
from planc.ir.groups import Group
from planc.modules.hooks import values_as_used
from planc.modules.weights import HashedReads, digest_of
from planc.modules.wrappers import bare
from planc.plan.arguments import described, instance, optional, takes


@takes(
    analysis=instance("an analysis", Analysis, advice="give what planc.analyze returns"),
    statistics=optional(
        instance(
            "Statistics",
            Statistics,
            advice="give what planc.calibrate returns",
            error=PolicyError,
        )
    ),
)
def score(
    analysis: Analysis,
    weights: nn.Module | Weights,
    criterion: str | Criterion,
    statistics: Statistics | None = None,
) -> Scores:
    """Score every unit of every group.

    Args:
        analysis: the model's analysis (:func:`planc.analyze`).
        weights: the model, or its parameters and buffers by name, as in an exported program's
            ``state_dict``. Values hidden by a mask of torch.nn.utils.prune in a model count as
            zero.
        criterion: a name ("l2", "l1", "random", "taylor", ...) or a function.
        statistics: the result of :func:`planc.calibrate`, for criteria in need of it.

    Raises:
        StalePlan: a tensor is missing or differs in shape from the traced one.
        PolicyError: statistics are missing; a score is not finite; names the group.
    """
    criterion = named(criterion)
    given = bare(weights)
    if not isinstance(given, nn.Module) and isinstance(given, Unread):  # graphs have a meta, too
        given = HashedReads(given)
    weights = values_as_used(given) if isinstance(given, nn.Module) else given
    if not isinstance(weights, Mapping):
        raise PolicyError(
            f"weights: expected the model or its tensors by name, got {described(weights)}; "
            "pass the model, or its state_dict()"
        )
    check_weights(analysis, weights)
    units = opinions(criterion, analysis, weights, statistics)
    if len(units) != len(analysis.groups):
        raise PolicyError(
            f"{criterion}: scores for {len(units)} groups, the model has {len(analysis.groups)}; "
            "a criterion returns an array for each group"
        )
    for group, values in zip(analysis.groups, units, strict=True):
        if values is not None and np.shape(values) != (group.size,):
            raise PolicyError(
                f"{criterion}: group {group} has {group.size} units, its scores have shape "
                f"{np.shape(values)}; a criterion returns a score for each unit"
            )
    pairs = [(g, own) for g, own in zip(analysis.groups, units, strict=True) if own is not None]
    if pairs and not np.isfinite(np.concatenate([own for _, own in pairs])).all():
        group = next(group for group, own in pairs if not np.isfinite(own).all())
        raise PolicyError(
            f"{criterion}: group {group} has scores that are not finite: "
            f"{_culprit(group, weights, analysis, statistics)}"
        )
    digest, origin = _digest(criterion, analysis, given)
    used = statistics.digest if statistics is not None and needs_of(criterion) else None
    unspoken = zip(analysis.groups, units, strict=True)
    scored = tuple(np.full(g.size, np.nan) if own is None else own for g, own in unspoken)
    return Scores(scored, str(criterion), is_relative(criterion), digest, origin, used)


def _digest(
    criterion: Criterion, analysis: Analysis, given: nn.Module | Weights | HashedReads
) -> tuple[bytes | None, str]:
    """The digest of the weights behind the scores, and their origin; none if no weight counts."""
    if getattr(criterion, "weightless", False):
        return None, ""
    tensors = analysis.graph.tensors
    if isinstance(given, HashedReads):
        return given.digest(tensors), "file"
    digest = digest_of(tensors, given)
    return digest, "model" if digest else ""


def _culprit(
    group: Group, weights: Weights, analysis: Analysis, statistics: Statistics | None
) -> str:
    """The first tensor among the group's members with a non-finite value, in words."""
    members = dict.fromkeys(member.tensor for member in group.members)
    # parameters first: criteria measure them
    for name in sorted(members, key=lambda name: analysis.graph.tensor(name).kind, reverse=True):
        tensor = named_in(weights, analysis.graph.tensor(name))
        if tensor is not None and not bool(tensor.isfinite().all()):
            return f"{broken(name, tensor)}; give the weights of a model that works"
    for name, tensor in statistics.broken() if statistics is not None else ():
        return f"the statistics {broken(name, tensor)}; calibrate again"
    return "all its tensors are finite, so the criterion overflows; scale the weights down"
