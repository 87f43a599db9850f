"""The model that a command line names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planc.cli.terminal import status

if TYPE_CHECKING:
    from torch import nn


def build(
    model: str,
    settings: tuple[tuple[str, Any], ...],
    seed: int,
    weights: Path | None,
    device: str = "cpu",
) -> nn.Module:
    """The model of the command line, with the weights of a file if one is given."""
    from planc.models import assign_weights, load_model, read_weights

    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does, for package.module:factory
    stored = None if weights is None else read_weights(weights)
    with status(f"building {model}"):
        built = load_model(model, dict(settings), seed, device)
    if stored is not None:
        assign_weights(built, stored, str(weights))
    return built
