"""Blocks of live modules: take removed ones out of their containers, and put them back.

Both work in place, on a copy made by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from planc.errors import PlancError, StalePlan
from planc.plan.depth import Depth, below


def take_out(model: nn.Module, depth: Depth) -> dict[str, nn.Module]:
    """Remove the blocks of a plan from ``model``, and return them by their paths in the source.

    Raises:
        PlancError: a container has other children than the plan.
    """
    taken: dict[str, nn.Module] = {}
    for path in sorted(depth.names, key=_depth_of_path, reverse=True):  # inner lists first
        parts = _parts(model, path)
        if list(parts) != list(depth.names[path]):
            raise PlancError(
                f"{path or 'the model'}: its children are {list(parts)}, the plan has "
                f"{list(depth.names[path])}; blocks that are shared cannot be removed one by one"
            )
        kept: dict[str, Any] = {}
        for name, part in parts.items():
            new = depth.child(path, name)
            if new is None:
                taken[below(path, name)] = part
            else:
                kept[new] = part
        parts.clear()
        parts.update(kept)
    return taken


def put_back(model: nn.Module, depth: Depth, blocks: Mapping[str, nn.Module]) -> None:
    """Undo :func:`take_out` with copies of the blocks.

    Raises:
        StalePlan: a block is missing.
    """
    for path in sorted(depth.names, key=_depth_of_path):  # outer lists first
        parts = _parts(model, path)
        whole: dict[str, Any] = {}
        for name in depth.names[path]:
            new = depth.child(path, name)
            if new is None and below(path, name) not in blocks:
                raise StalePlan(
                    f"{below(path, name)}: the removed block is missing; give what "
                    "apply(..., keep_removed=True) returned for the model, or restore its "
                    "state_dict() and load that into the original's class"
                )
            whole[name] = blocks[below(path, name)] if new is None else parts[new]
        parts.clear()
        parts.update(whole)


def _parts(model: nn.Module, path: str) -> dict[str, Any]:
    found: dict[str, Any] = model.get_submodule(path)._modules
    return found


def _depth_of_path(path: str) -> int:
    return path.count(".") + bool(path)
