"""Rules by operator family, behind one registry (:mod:`planc.rules.registry`)."""

from planc.rules import families  # noqa: F401  registers the rules
from planc.rules.labels import (
    Labelled,
    Layer,
    concatenate,
    contract,
    insert,
    permute,
    reshape,
    stack,
    unify,
)
from planc.rules.labels.facts import Facts
from planc.rules.registry import (
    Leaf,
    find,
    is_builtin,
    leaf,
    mark_builtin,
    named_by,
    parameters,
    rule,
)

mark_builtin()

__all__ = [
    "Facts",
    "Labelled",
    "Layer",
    "Leaf",
    "concatenate",
    "contract",
    "find",
    "insert",
    "is_builtin",
    "leaf",
    "named_by",
    "parameters",
    "permute",
    "reshape",
    "rule",
    "stack",
    "unify",
]
