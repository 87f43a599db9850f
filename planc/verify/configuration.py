"""Configuration check: rebuild a pruned model from its configuration, as loading it would."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from planc.analysis import Analysis, Gone
from planc.apply.validate import Call
from planc.compile.configuration import Pruned, constructions, obstacle
from planc.compile.description import first_difference
from planc.errors import VerificationError
from planc.modules.construction import Construction, constructions_of, tables
from planc.plan import fingerprint
from planc.plan.plan import Plan
from planc.verify.outputs import difference, run

OTHERWISE = "its configuration does not describe the pruned model"


def check_configurations(
    plan: Plan, analysis: Analysis, gone: Gone, smaller: nn.Module, call: Call, allowed: float
) -> Iterator[str]:
    """Yield the outcome in words for each configuration; nothing for a model without any.

    A model rebuilt from the configuration gets the state dict of ``smaller``, and their outputs are
    compared. For a configuration that describes another model, the reason is what stood in the way
    of a better one.
    """
    found = {construction.path: construction for construction in constructions_of(smaller)}
    known = [c.path for c in constructions(analysis.graph) if c.path in found]
    for path in known or list(found)[:1]:
        told = check_configuration(found[path], smaller, call, allowed)
        if told.startswith(OTHERWISE) and (reason := _obstacle(plan, analysis, gone)):
            told = f"{_otherwise(path)}: {reason}"
        yield told


def check_configuration(
    construction: Construction, smaller: nn.Module, call: Call, allowed: float
) -> str:
    """Return the outcome in words for one configuration."""
    differs = _difference(construction, smaller)
    if differs:
        return f"{_otherwise(construction.path)}: {differs}"
    return _same_outputs(construction, smaller, call, allowed)


def _otherwise(path: str) -> str:
    return f"{OTHERWISE} at {path}" if path else OTHERWISE


def _difference(construction: Construction, smaller: nn.Module) -> str:
    """The first difference of a model from the one that its configuration makes."""
    made = construction.built({})
    if made is None:
        return f"the class makes no model from it: {construction.failure({})}"
    own = tables(smaller.get_submodule(construction.path), construction.path)
    return first_difference(own, made) or construction.content_differs({}, {})


def _obstacle(plan: Plan, analysis: Analysis, gone: Gone) -> str:
    """The obstacle to a configuration, by the search repeated."""
    after = fingerprint.tensors_after(plan.tensors, plan.cuts)
    pruned = Pruned(plan.attributes, after, plan.cuts, analysis.shapes(gone))
    return obstacle(analysis.graph, pruned)


def _same_outputs(
    construction: Construction, smaller: nn.Module, call: Call, allowed: float
) -> str:
    """Compare the outputs of the model with the rebuilt one in its place."""
    with torch.no_grad():
        anew = construction.model({})
    assert anew is not None  # built before
    inner = smaller.get_submodule(construction.path)
    try:
        anew.load_state_dict(inner.state_dict(), assign=True)
        anew.train(inner.training)
        whole = copy.deepcopy(smaller, {id(inner): anew}) if construction.path else anew
        error = difference(run(whole, call), run(smaller, call), allowed, "the pruned model")
    except (VerificationError, RuntimeError) as reason:
        return f"{_otherwise(construction.path)}: {reason.__cause__ or reason}"
    where = f" at {construction.path}" if construction.path else ""
    return f"made anew from its configuration{where}, it gives the same outputs: {error:.1e}"
