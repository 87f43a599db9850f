"""What models take beside plain text: two texts, images, sound, and several of these at once. Each
function here makes a function that makes the arguments for a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.zoo.transformers.entry import LENGTH, VOCABULARY, text

Arguments = dict[str, torch.Tensor]
Inputs = Callable[[int, torch.Generator], Arguments]
IMAGE_TOKEN = VOCABULARY - 1


def tokens(length: int = LENGTH) -> Inputs:
    """Token numbers without a mask."""

    def inputs(batch: int, generator: torch.Generator) -> Arguments:
        return {"input_ids": text(batch, generator, length)["input_ids"]}

    return inputs


def translation(batch: int, generator: torch.Generator) -> Arguments:
    """A text, and what has been said of its translation."""
    said = text(batch, generator, LENGTH - 4)["input_ids"]
    return {**text(batch, generator), "decoder_input_ids": said}


def normal(name: str, *shape: int) -> Inputs:
    """One argument of that name and shape behind the batch, standard normal."""

    def inputs(batch: int, generator: torch.Generator) -> Arguments:
        return {name: torch.randn(batch, *shape, generator=generator)}

    return inputs


def images(size: int = 32) -> Inputs:
    """Square images in three colours."""
    return normal("pixel_values", 3, size, size)


def together(*parts: Inputs) -> Inputs:
    """The arguments of all parts."""

    def inputs(batch: int, generator: torch.Generator) -> Arguments:
        return {name: value for part in parts for name, value in part(batch, generator).items()}

    return inputs


def transcription(name: str, *shape: int) -> Inputs:
    """Sound, and what has been said of its transcription."""

    def said(batch: int, generator: torch.Generator) -> Arguments:
        return {"decoder_input_ids": text(batch, generator, 6)["input_ids"]}

    return together(normal(name, *shape), said)


def captioned(size: int, *, places: int) -> Inputs:
    """Images and texts, in which ``places`` tokens stand for what is seen in the image."""

    def inputs(batch: int, generator: torch.Generator) -> Arguments:
        arguments = text(batch, generator, places + 8)
        numbers = arguments["input_ids"].clamp(max=IMAGE_TOKEN - 1)
        numbers[:, 2 : 2 + places] = IMAGE_TOKEN
        return {**arguments, "input_ids": numbers, **images(size)(batch, generator)}

    return inputs


def boxes(batch: int, generator: torch.Generator) -> Arguments:
    """Where on a page each token of a text stands: left, top, right, bottom."""
    corners = torch.randint(0, 30, (batch, LENGTH, 4), generator=generator)
    return {"bbox": corners.sort(-1).values}


def queries(batch: int, generator: torch.Generator) -> Arguments:
    """Two texts for each image of 32 x 32, to be found in it."""
    return {**text(2 * batch, generator, 6), **images()(batch, generator)}
