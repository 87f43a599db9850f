"""torchvision's models and inputs, made fit for comparison (:mod:`tests.zoo.randomise`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.zoo.randomise import randomise

OTHER_TASKS = ("segmentation", "detection", "video", "optical_flow")
_CLIPS = {"mvit": (16, 224), "s3d": (16, 224)}  # frames and their size, where they are fixed


def names() -> list[str]:
    """The names of torchvision's 109 models of floating-point numbers."""
    return [*classification_models(), *other_models()]


def classification_models() -> list[str]:
    """The names of torchvision's 80 classification models."""
    from torchvision import models

    return models.list_models(module=models)


def other_models() -> list[str]:
    """The names of the 29 others: segmentation, detection, video, optical flow."""
    return [name for task in OTHER_TASKS for name in of_task(task)]


def of_task(task: str) -> list[str]:
    """The names of the models of one of :data:`OTHER_TASKS`."""
    from torchvision import models

    return models.list_models(module=getattr(models, task))


def task_of(name: str) -> str:
    """What a model is for: one of :data:`OTHER_TASKS`, or classification."""
    return next((task for task in OTHER_TASKS if name in of_task(task)), "classification")


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A torchvision model in eval mode, randomised; detectors that let one choose take images as
    small as those of :func:`example_inputs`.
    """
    model = unweighted(name)
    randomise(model, seed, *example_inputs(name, batch=2, seed=seed))
    return model.eval().to(dtype)


def unweighted(name: str) -> nn.Module:
    """A torchvision model as its class makes it, without weights to load."""
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    task = task_of(name)
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if task in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if task == "detection" and not name.startswith("ssd"):
        options |= {"min_size": 160, "max_size": 320}
    model: nn.Module = models.get_model(name, **options)
    return model


def example_inputs(name: str, batch: int = 1, seed: int = 0) -> tuple[Any, ...]:
    """The arguments of a torchvision model: standard normal, small where the model lets them be."""
    task = task_of(name)
    if task == "classification":
        return (example_input(name, batch, seed),)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    if task == "detection":
        return ([normal(3, 160, 160) for _ in range(batch)],)
    if task == "optical_flow":
        return normal(batch, 3, 128, 128), normal(batch, 3, 128, 128)
    if task == "segmentation":
        return (normal(batch, 3, 64, 64),)
    frames, size = _CLIPS.get(name.partition("_")[0], (8, 64))
    return (normal(batch, 3, frames, size, size),)


def example_input(name: str, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Images of the size that a torchvision model is made for, standard normal."""
    size = 299 if name == "inception_v3" else 224
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, size, size, generator=generator)
