"""Rules by operator family, behind one registry (:mod:`planc.rules.registry`)."""

from planc.rules import (  # noqa: F401  importing a family registers its rules
    attention,
    contraction,
    convolution,
    creation,
    elementwise,
    fourier,
    indexing,
    layout,
    normalization,
    padding,
    pieces,
    pooling,
    recurrent,
    reduction,
)
from planc.rules.registry import Leaf, find, leaf, named_by, parameters, rule

__all__ = ["Leaf", "find", "leaf", "named_by", "parameters", "rule"]
