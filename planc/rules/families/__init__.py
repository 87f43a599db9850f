"""Rules by operator family; importing this package registers them all."""

from planc.rules.families import (
    attention,
    contraction,
    convolution,
    creation,
    diagonals,
    elementwise,
    fourier,
    indexing,
    layout,
    normalization,
    padding,
    pieces,
    pooling,
    quantization,
    recurrent,
    reduction,
)

__all__ = [
    "attention",
    "contraction",
    "convolution",
    "creation",
    "diagonals",
    "elementwise",
    "fourier",
    "indexing",
    "layout",
    "normalization",
    "padding",
    "pieces",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
]
