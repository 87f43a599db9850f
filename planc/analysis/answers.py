"""Answers to "why": the couplings and pins behind a name, and the change that would free a pin.

A name is a tensor, one of its dimensions (``conv1.weight:0``), a group, a module, or a shell-style
pattern of any of these. Kernel dimensions are left out unless they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from planc.analysis import Analysis, Bound
from planc.analysis.grouping import PINNED
from planc.analysis.reasons import Pin
from planc.errors import AnalysisError
from planc.errors.text import near
from planc.ir.groups import Group

_KERNEL = "a kernel dimension of a convolution"
_BY_NUMBER = "write the code so that the part follows the width, not a number"
# the beginning of a reason, and the change that frees what it pins
_REMEDIES = (
    (
        "an output of the model",
        "name it in free_outputs (--free-outputs), or prune the layer before it",
    ),
    (
        "the other operand cannot shrink",
        "nothing: it meets an input or a constant of this size",
    ),
    ("not used by the traced run", "trace with inputs that reach it (--input)"),
    ("not used further by the traced run", "trace with inputs that reach its use (--input)"),
    ("a single coordinate is picked", _BY_NUMBER),
    ("one coordinate is picked by its position", _BY_NUMBER),
    ("positions are picked by index", _BY_NUMBER),
    ("the smaller last part of a split", "make the width a multiple of the parts"),
    ("chunks of unequal size", "make the width a multiple of the parts"),
    ("stored as", "store it as a dense tensor"),
)
_NO_RULE = "has no rule"


@dataclass(frozen=True, slots=True)
class Answer:
    """The reasons of one dimension of a tensor.

    Attributes:
        tensor: the tensor's name.
        dim: the dimension.
        reasons: lines of text, as of :meth:`planc.analysis.Analysis.explain`.
        remedy: the change that would free pinned indices; empty where none are pinned.
    """

    tensor: str
    dim: int
    reasons: list[str]
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Answers as plain data, with a text for each.

    Attributes:
        entries: for each answer its ``title``, maybe its ``reasons`` as lines of text and the
            ``remedy`` that would free what is pinned, and the values that these are made of.
    """

    entries: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        lines = []
        for entry in self.entries:
            lines += [entry["title"], *(f"  {reason}" for reason in entry.get("reasons", ()))]
            lines += [f"  to free it: {entry['remedy']}"] if entry.get("remedy") else []
        return "\n".join(lines)


def explanation(analysis: Analysis, name: str | None = None) -> Explanation:
    """Explain what ``name`` stands for, or all pins and all constraints on widths.

    Raises:
        AnalysisError: nothing has this name; names the nearest.
    """
    if name is not None:
        found = [{"title": f"{a.tensor}:{a.dim}", **asdict(a)} for a in answers(analysis, name)]
        return Explanation(tuple(found))
    pins = [
        {"title": str(pin), **asdict(pin), "remedy": remedy(pin.reason)}
        for pin in real_pins(analysis)
    ]
    bounds = [
        {
            "title": str(bound),
            "constraint": bound.text,
            "reason": bound.reason,
            "remedy": bound_remedy(analysis, bound),
        }
        for bound in analysis.bounds("module")
    ]
    return Explanation((*pins, *bounds))


def real_pins(analysis: Analysis) -> list[Pin]:
    """Pins without those of kernels; inputs and outputs, which are pinned in any model, last."""
    usual = ("an output of the model", "the other operand cannot shrink")
    pins = [pin for pin in analysis.pins if not pin.reason.startswith(_KERNEL)]
    return sorted(pins, key=lambda pin: pin.reason.startswith(usual))


def remedy(reason: str) -> str:
    """Return the change that would free what ``reason`` pins; empty if none is known."""
    head, found, _ = reason.partition(_NO_RULE)
    if found:
        return f'write its rule: @planc.rule("{".".join(head.split(".")[:2]).strip()}")'
    return next((change for start, change in _REMEDIES if reason.startswith(start)), "")


def bound_remedy(analysis: Analysis, bound: Bound) -> str:
    """Return the change that would free the widths bound by ``bound``; empty if none is known."""
    if str(bound) not in map(str, analysis.bounds("graph")):
        return "plan with --target graph, or write the size from the width (-1, x.shape)"
    return ""


def answers(analysis: Analysis, name: str) -> list[Answer]:
    """Explain the dimensions that ``name`` stands for; pinned ones first.

    Raises:
        AnalysisError: nothing has this name; names the nearest.
    """
    tensor, colon, dim = name.rpartition(":")
    if colon and analysis.graph.has(tensor):
        if dim.lstrip("-").isdecimal():
            rank = len(analysis.graph.tensor(tensor).shape)
            found = int(dim) if int(dim) >= 0 else int(dim) + rank
            return [_answer(analysis, tensor, found)]
        if not any(group.name == name for group in analysis.groups):
            raise AnalysisError(f"{name!r}: write NAME:DIMENSION, as conv1.weight:0")
    places = _places(analysis, name)
    if not places:
        known = [*_tensors(analysis), *_modules(analysis), *(g.name for g in analysis.groups)]
        raise AnalysisError(
            f"the model has no parameter or buffer, module or group {name!r}{near(name, known)}"
        )
    made = [_answer(analysis, *place) for place in _of_each_group(analysis, places)]
    return sorted(made, key=lambda answer: not answer.remedy)


def _of_each_group(
    analysis: Analysis, places: Iterable[tuple[str, int]]
) -> Iterator[tuple[str, int]]:
    """The first place of each group, and all that are pinned."""
    seen: set[int] = set()
    for name, dim in places:
        value = analysis.graph.tensor(name).value
        atoms = (layer.atoms for layer in analysis.walked.labels[value].targeting(dim))
        groups = {int(g) for each in atoms for g in np.unique(analysis.grouping.group[each])}
        if not groups or not groups <= seen:
            yield name, dim
        seen |= groups - {PINNED}


def _places(analysis: Analysis, name: str) -> list[tuple[str, int]]:
    """The dimensions that a name stands for, without those of kernels."""
    kernels = {(p.tensor, p.dim) for p in analysis.pins if p.reason.startswith(_KERNEL)}
    exact = [group for group in analysis.groups if group.name == name]
    if exact:
        return [(exact[0].members[0].tensor, exact[0].members[0].dim)]
    if analysis.graph.has(name):  # also by another name of a tied tensor
        return [
            (name, dim)
            for dim in range(len(analysis.graph.tensor(name).shape))
            if (name, dim) not in kernels
        ]
    places = [
        (tensor.names[0], dim)
        for tensor in analysis.graph.tensors
        for dim in range(len(tensor.shape))
        if any(_named(other, dim, name) for other in tensor.names)
    ]
    places += [
        (group.members[0].tensor, group.members[0].dim)
        for group in analysis.groups
        if fnmatchcase(group.name, name)
    ]
    return [place for place in dict.fromkeys(places) if place not in kernels]


def _named(tensor: str, dim: int, pattern: str) -> bool:
    around = (tensor[:i] for i, letter in enumerate(tensor) if letter == ".")
    return any(fnmatchcase(part, pattern) for part in (tensor, f"{tensor}:{dim}", *around))


def _answer(analysis: Analysis, tensor: str, dim: int) -> Answer:
    reasons = analysis.explain(tensor, dim)
    first = analysis.graph.tensor(tensor).names[0]
    pins = [pin for pin in analysis.pins if (pin.tensor, pin.dim) == (first, dim)]
    changes = dict.fromkeys(filter(None, (remedy(pin.reason) for pin in pins)))
    return Answer(tensor, dim, reasons, "; ".join(changes))


def _tensors(analysis: Analysis) -> list[str]:
    return [name for tensor in analysis.graph.tensors for name in tensor.names]


def _modules(analysis: Analysis) -> Iterable[str]:
    names = _tensors(analysis)
    return dict.fromkeys(name[:i] for name in names for i in range(len(name)) if name[i] == ".")


def groups_named(groups: Sequence[Group], name: str) -> list[int]:
    """The groups that a tensor, a dimension, a module, a group or a pattern of these names."""
    return [
        g
        for g, group in enumerate(groups)
        if fnmatchcase(group.name, name)
        or any(_named(member.tensor, member.dim, name) for member in group.members)
    ]
