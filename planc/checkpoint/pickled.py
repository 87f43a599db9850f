"""Plans on state dicts that are pickles: a plan and a ``.pt`` or ``.bin`` file in, safetensors out.

Reading a pickle may run code. torch's ``weights_only`` keeps to a list of harmless types, and has
had holes: so this happens only where the caller has said that the file is trusted.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from planc.apply.state_dict import apply_state_dict
from planc.checkpoint.save import save_state_dict
from planc.errors import MalformedFile, PlancError
from planc.plan import Plan
from planc.tensorfiles.shards import SUFFIX


def apply_pickled(
    plan: Plan, source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> None:
    """Writes the state dict in a trusted ``.pt`` or ``.bin`` file without what the plan removes.

    It is loaded whole, with ``weights_only=True``.

    Args:
        target: a name that ends in ``.safetensors``.

    Raises:
        MalformedFile: the file is no state dict, or holds more than tensors.
        StalePlan, AlreadyApplied: the plan was not made for it.
    """
    if not Path(target).name.endswith(SUFFIX):
        raise PlancError(f"{target}: name a {SUFFIX} file")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MalformedFile(f"{source}: not a state dict of torch.save: {first}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise MalformedFile(f"{source}: holds more than names and tensors; save its state_dict()")
    save_state_dict(target, apply_state_dict(plan, state), plan)
