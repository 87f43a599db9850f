"""Element selection: turn a criterion and a policy into a mask plan for a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from planc.compile.select import versions
from planc.criteria import Additive, Statistics
from planc.criteria.random import checked_seed
from planc.errors import PolicyError
from planc.masks.criteria import ElementCriterion, Summands, element_criterion
from planc.masks.policies import Floats, MaskPolicy
from planc.modules.given import module
from planc.modules.hooks import values_as_used
from planc.modules.tables import tensors_of
from planc.modules.weights import digest_of
from planc.plan.arguments import described, function_of, instance, optional, some_patterns, takes
from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import Provenance, TensorSpec


@takes(
    model=module,
    policy=function_of("scores"),
    only=some_patterns,
    keep=some_patterns,
    statistics=optional(
        instance("Statistics", Statistics, advice="give what planc.calibrate returns")
    ),
)
def select(
    model: nn.Module,
    policy: MaskPolicy,
    criterion: str | ElementCriterion | Additive | None = None,
    *,
    statistics: Statistics | None = None,
    only: Sequence[str] = (),
    keep: Sequence[str] = (),
    seed: int = 0,
) -> MaskPlan:
    """Choose elements of a model's parameters to remove. The model is unchanged.

    Args:
        model: the module.
        policy: :class:`PerTensor`, :class:`GlobalElements`, :class:`NofM`, or a function of scores.
        criterion: magnitude by default ("magnitude", "l1" or "l2"), "random", with statistics
            "wanda", "taylor" or "obd", an additive criterion of :mod:`planc.criteria`, or a
            function of a name and a tensor. Elements hidden by a mask of torch.nn.utils.prune count
            as zero.
        statistics: the result of :func:`planc.calibrate`, for criteria in need of it. A parameter
            about which they say nothing stays whole, unless ``only`` names it.
        only: shell-style patterns of the parameters to prune, or of modules around them. By
            default, all floating-point or complex parameters of at least two dimensions, which
            excludes biases and the scales of norms.
        keep: patterns of parameters or modules to keep whole.
        seed: recorded in the plan, and the seed of "random".

    Returns:
        A mask plan of the chosen elements.

    Raises:
        PolicyError: a pattern matches nothing, a score is missing or not finite, or the policy does
            not fit a tensor; names it.
    """
    chosen = element_criterion(
        "magnitude" if criterion is None else criterion, model, statistics, seed
    )
    tensors = tensors_of(model)
    values = values_as_used(model)
    parameters = [
        spec
        for spec in tensors
        if spec.kind == "parameter"
        and (values[spec.name].is_floating_point() or values[spec.name].is_complex())
    ]
    picked = _picked(parameters, only, keep)
    if isinstance(chosen, Summands) and not only:
        picked = [name for name in picked if chosen.of(name, values[name].detach()) is not None]
    scores = {name: _score(chosen, name, values[name]) for name in picked}
    removed = policy(scores)
    if not isinstance(removed, Mapping):
        raise PolicyError(
            f"policy {policy}: returned {described(removed)}, not the elements that go by name"
        )
    weights = digest_of(tensors, model)
    origin = "model" if weights else ""
    provenance = Provenance(
        str(chosen), str(policy), checked_seed(seed), versions(), weights, origin
    )
    return mask_plan(tensors, removed, (provenance,))


def _picked(
    parameters: Sequence[TensorSpec], only: Sequence[str], keep: Sequence[str]
) -> list[str]:
    names = [spec.name for spec in parameters if len(spec.shape) > 1]
    if only:
        wanted = [matching(parameters, pattern) for pattern in only]
        names = [spec.name for spec in parameters if any(spec.name in found for found in wanted)]
    for pattern in keep:
        stays = matching(parameters, pattern)
        names = [name for name in names if name not in stays]
    return names


def matching(tensors: Sequence[TensorSpec], pattern: str) -> set[str]:
    """Return the first names of the tensors matched by a shell-style pattern.

    A pattern matches any name of a tensor, or a module around it.

    Raises:
        PolicyError: it matches none; names the near misses.
    """
    found = set()
    for spec in tensors:
        names = list(spec.names)
        for name in spec.names:
            parts = name.split(".")
            names += [".".join(parts[:end]) for end in range(1, len(parts))]
        if any(fnmatchcase(name, pattern) for name in names):
            found.add(spec.name)
    if not found:
        every = [name for spec in tensors for name in spec.names]
        near = difflib.get_close_matches(pattern, every, n=3, cutoff=0.4)
        hint = f"; near misses: {', '.join(near)}" if near else f"; there are {every[0]}, ..."
        raise PolicyError(f"pattern {pattern!r} matches no parameter{hint}")
    return found


def _score(criterion: ElementCriterion, name: str, tensor: torch.Tensor) -> Floats:
    if tensor.is_meta:
        raise PolicyError(
            f"{name} is on the meta device and has no values to score: load the weights first"
        )
    with torch.no_grad():
        score = criterion(name, tensor.detach())
    if not isinstance(score, torch.Tensor):
        raise PolicyError(
            f"{criterion}: {name} has scores of type {type(score).__name__}; a criterion returns a "
            "tensor"
        )
    if tuple(score.shape) != tuple(tensor.shape) or score.is_complex():
        raise PolicyError(
            f"{criterion}: {name} has shape {tuple(tensor.shape)}, its scores are "
            f"{score.dtype}{list(score.shape)}; a criterion returns a real number for each element"
        )
    wide = torch.float64 if score.dtype == torch.float64 else torch.float32
    values: Floats = score.detach().to("cpu", wide).contiguous().numpy()
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise PolicyError(
            f"{criterion}: {name} has a score that is not finite at {place}, where its value is "
            f"{tensor.detach()[place].item()}; give the weights of a model that works"
        )
    return values
