"""Models by name, ``torchvision:resnet50`` or ``package.module:factory``, and their weights.

Weights are read from safetensors files and checked against the model before any is assigned.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from planc.errors import PlancError, StaleError
from planc.files.checkpoint import StoredWeights


def load_model(
    name: str, kwargs: Mapping[str, Any] | None = None, seed: int = 0, device: str = "cpu"
) -> nn.Module:
    """Build the model ``name`` in eval mode, with weights initialised from ``seed``.

    Args:
        name: ``torchvision:NAME`` or ``package.module:factory``.
        kwargs: keyword arguments of the factory.
        seed: seed of torch's global generator, whose state is restored afterwards.
        device: device of the tensors; on "meta" they take no memory.

    Raises:
        PlancError: there is no such model, module or factory, or the factory failed.
    """
    source, _, factory_name = name.partition(":")
    if not factory_name:
        raise PlancError(
            f"{name!r} is no model: write torchvision:{name} or package.module:factory"
        )
    if source == "torchvision":
        factory = _torchvision_factory(factory_name)
    else:
        factory = _imported_factory(source, factory_name)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.device(device):
        warnings.simplefilter("ignore", FutureWarning)  # of googlenet and inception, about init
        torch.manual_seed(seed)
        try:
            model = factory(**(kwargs or {}))
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in (kwargs or {}).items())
            raise PlancError(
                f"{name}({given}) failed: {type(error).__name__}: {error}; check the keyword "
                "arguments"
            ) from error
    if not isinstance(model, nn.Module):
        raise PlancError(f"{name} returned {type(model).__name__}, not an nn.Module")
    return model.eval()


def _torchvision_factory(name: str) -> Any:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise PlancError(f"torchvision has no model {name!r}{near(name, known)}")
    return models.get_model_builder(name)


def _imported_factory(source: str, name: str) -> Any:
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise PlancError(f"importing {source} failed: {error}") from error
        raise PlancError(
            f"there is no module {source!r} (no {error.name!r} in this directory or among the "
            "installed packages)"
        ) from None
    except Exception as error:
        raise PlancError(f"importing {source} failed: {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        public = [n for n, value in vars(module).items() if callable(value) and n[:1] != "_"]
        kind = "has no factory" if factory is None else "cannot call"
        raise PlancError(f"module {source!r} {kind} {name!r}{near(name, public)}")
    return factory


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: names similar to ``name``."""
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file, or of shards with an index.

    Raises:
        FileError: the file is malformed.
        OSError: the file cannot be read.
    """
    return dict(StoredWeights(path))


def assign_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load ``weights`` into ``model`` by name; ``origin`` names them in messages.

    Raises:
        StaleError: a name is missing or unknown, or a shape differs; ``model`` is unchanged.
    """
    state = model.state_dict()
    stored = {tensor.data_ptr() for name, tensor in state.items() if name in weights}
    for name, tensor in state.items():
        if name not in weights:
            if tensor.data_ptr() in stored:  # tied to a stored one
                continue
            raise StaleError(
                f"{origin} has no {name}{near(name, weights)}: other model or version?"
            )
        if weights[name].shape != tensor.shape:
            raise StaleError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model's has "
                f"{tuple(tensor.shape)}: other model, other keyword arguments, or pruned weights?"
            )
    for name in weights:
        if name not in state:
            raise StaleError(f"{origin} has {name}, which the model has not{near(name, state)}")
    model.load_state_dict(dict(weights), strict=False)
