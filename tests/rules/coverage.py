"""Which operators of a family a table of models exercises."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import planc
from planc.analysis import Analysis
from planc.rules import registry
from tests.support.proving import Net

Case = tuple[Net, tuple[Any, ...]]


def analysed(case: Case) -> Analysis:
    """The analysis of one model of a table."""
    return planc.analyze(planc.trace(case[0].eval(), case[1]))


def unseen(family: ModuleType, cases: Iterable[Case]) -> set[str]:
    """The operators registered in a family that none of the models calls."""
    registered = {name for name, fn in registry._RULES.items() if fn.__module__ == family.__name__}
    for case in cases:
        for node in planc.trace(case[0].eval(), case[1]).nodes:
            name, overload = node.op.rsplit(".", 1)
            plain = name.removesuffix("_")
            registered -= {node.op, name, plain, f"{plain}.{overload}"}
    return registered
