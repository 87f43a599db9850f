"""Configuration check: rebuild a pruned model from its configuration, as loading it would."""

from __future__ import annotations

import torch
from torch import nn

from planc.apply.validate import Call
from planc.compile.configuration import first_difference
from planc.errors import VerificationError
from planc.modules.construction import construction_of, tables
from planc.verify.outputs import difference, run

OTHERWISE = "its configuration does not describe the pruned model"


def check_configuration(smaller: nn.Module, call: Call, allowed: float) -> str:
    """Return the outcome in words, empty for a model without configuration.

    The rebuilt model gets the state dict of ``smaller``, and their outputs are compared.
    """
    construction = construction_of(smaller)
    if construction is None:
        return ""
    with torch.no_grad():
        anew = construction.model({})
    if anew is None:
        return f"{OTHERWISE}: the class makes no model from it"
    differs = first_difference(tables(smaller), tables(anew))
    differs = differs or construction.content_differs({}, {})
    if differs:
        return f"{OTHERWISE}: {differs}"
    try:
        anew.load_state_dict(smaller.state_dict(), assign=True)
        anew.train(smaller.training)
        error = difference(run(anew, call), run(smaller, call), allowed, "the pruned model")
    except (VerificationError, RuntimeError) as reason:
        return f"{OTHERWISE}: {reason.__cause__ or reason}"
    return f"made anew from its configuration, it gives the same outputs: {error:.1e}"
