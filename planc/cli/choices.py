"""Units chosen by a person: ``conv1:2,6,9`` on the command line, or an edited text of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from planc.errors import MalformedFile, PolicyError

if TYPE_CHECKING:
    from torch import nn

    from planc.plan.plan import Plan

_UNITS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def split_units(text: str, ranks: Mapping[str, int]) -> tuple[str, tuple[int, ...] | None]:
    """A name, and the units behind its last colon; None without units.

    A single number behind a tensor's name is a dimension, if the tensor has it: ``ranks`` holds the
    number of dimensions of each tensor.

    >>> split_units("conv1:2,6-8", {}), split_units("conv1.weight:0", {"conv1.weight": 4})
    (('conv1', (2, 6, 7, 8)), ('conv1.weight:0', None))
    """
    name, colon, units = text.rpartition(":")
    if not colon or not _UNITS.fullmatch(units):
        return text, None
    if units.isdecimal() and int(units) < ranks.get(name, 0):
        return text, None
    spans = (part.partition("-") for part in units.split(","))
    chosen = [i for a, _, b in spans for i in range(int(a), int(b or a) + 1)]
    return name, tuple(chosen)


def chosen_units(texts: tuple[str, ...], ranks: Mapping[str, int]) -> dict[str, list[int]]:
    """The units of each name, for ``remove=`` and ``keep_units=``.

    Raises:
        PolicyError: a text has no units.
    """
    found: dict[str, list[int]] = {}
    for text in texts:
        name, units = split_units(text, ranks)
        if units is None:
            raise PolicyError(f"{text!r} names no units: write NAME:UNITS, as conv1:2,6,9")
        found.setdefault(name, []).extend(units)
    return found


def edited_text(plain: Mapping[str, Any], model: nn.Module, args: Any) -> Plan:
    """The plan for a model that removes the units listed in an edited text of a plan.

    Raises:
        MalformedFile: groups, target or provenance are missing or ill-typed.
        PolicyError: the model has no such group or unit.
    """
    from planc.compile.edit import as_edited
    from planc.plan.plan import Provenance

    try:
        removed = {str(g["name"]): [int(u) for u in g["removed"]] for g in plain["groups"]}
        last = plain["provenance"][-1]
        texts = (str(last["criterion"]), str(last["policy"]), int(last["seed"]))
        versions = tuple((str(name), str(version)) for name, version in last["versions"])
        decisions = tuple(map(str, last.get("decisions", ())))
        target = plain["target"]
        if target not in ("module", "graph"):
            raise ValueError(f"target {target!r}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise MalformedFile(
            f"not the text of a plan: {type(error).__name__}: {error}; edit the units in removed "
            "of what planc show --json printed"
        ) from error
    made_by = Provenance(*texts, versions, decisions=decisions)
    return as_edited(model, args, removed, target, made_by)
