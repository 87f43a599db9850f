"""The label algebra: atoms on coordinates, and the operations that rules are composed of.

A value is :class:`Labelled`: its shape and layers of atoms. Operations take and return labelled
values and record their consequences (ties, pins, requests) in
:class:`~planc.rules.labels.facts.Facts`. No operator is named here.
"""

from __future__ import annotations

from planc.rules.labels.coordinates import bind, even, fold, merge, reduce, take, window
from planc.rules.labels.labelled import Labelled, Layer, Shape
from planc.rules.labels.operands import Mode, concatenate, contract, match, stack, unify
from planc.rules.labels.shape import (
    blocks,
    collapse,
    dense,
    insert,
    lift,
    permute,
    reshape,
    squeeze,
    volume,
)

__all__ = [
    "Labelled",
    "Layer",
    "Mode",
    "Shape",
    "bind",
    "blocks",
    "collapse",
    "concatenate",
    "contract",
    "dense",
    "even",
    "fold",
    "insert",
    "lift",
    "match",
    "merge",
    "permute",
    "reduce",
    "reshape",
    "squeeze",
    "stack",
    "take",
    "unify",
    "volume",
    "window",
]
