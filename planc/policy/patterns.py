"""Patterns: the groups selected by a user's text, by one rule for every option.

A shell-style pattern names

* parts of the model, by tensors and the modules around them: ``layer4.*``, ``*mlp*``, ``conv1``. A
  group belongs to the parts that produce its units, not to those that read them.
* with a colon, groups or dimensions by name: ``layer4.*.conv1.weight:0``, ``fc.weight:1``,
  ``*/heads``.
* with ``:in`` behind the name of a part, the groups that it reads: ``fc:in``. The default is
  ``:out``.

A part names a group *wholly* if everything that produces the group is named, else *in part*, such
as one layer of a residual stream. :func:`kept` takes both. :func:`chosen` takes what a pattern
names wholly, and what it names in part only where it names nothing wholly.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from planc.analysis import Analysis
from planc.analysis.grouping import PINNED
from planc.errors import PolicyError
from planc.ir.groups import Group, Member
from planc.policy.parts import Parts, parts

_NEAR = 3


def kept(analysis: Analysis, patterns: Sequence[str]) -> frozenset[int]:
    """The groups named by any of the patterns, wholly or in part.

    Raises:
        PolicyError: a pattern matches nothing in the model; names the near misses.
    """
    return frozenset[int]().union(*(_Named(analysis, p).part for p in patterns))


def chosen(analysis: Analysis, patterns: Sequence[str]) -> frozenset[int]:
    """The groups named wholly by all patterns together, and those named in part by patterns that
    name none of these.

    Raises:
        PolicyError: a pattern names no group; names the groups it reads, or the near misses.
    """
    named = [_Named(analysis, pattern) for pattern in patterns]
    found = {g for g in range(len(analysis.groups)) if _wholly(analysis, named, g)}
    for own in named:
        if found.isdisjoint(own.part):
            found |= own.part
        if not own.part:
            raise PolicyError(own.answer())
    return frozenset(found)


def matching(analysis: Analysis, pattern: str) -> frozenset[int]:
    """The groups that a pattern names, as the options ``only`` and ``ratios`` read it.

    Raises:
        PolicyError: it names none; names the groups it reads, or the near misses.
    """
    return chosen(analysis, (pattern,))


def members_named(analysis: Analysis, pattern: str) -> list[tuple[int, Member]]:
    """The members that a pattern names, each with its group; those that produce units first.

    Raises:
        PolicyError: it names none; names the groups it reads, or the near misses.
    """
    named, known = _Named(analysis, pattern), parts(analysis)
    found = [
        (g, member)
        for g, group in enumerate(analysis.groups)
        for member in group.members
        if named.means(member, known)
    ]
    if not found:
        raise PolicyError(named.answer())
    return sorted(found, key=lambda pair: (pair[1].tensor, pair[1].dim) not in known.made)


def _wholly(analysis: Analysis, named: Sequence[_Named], g: int) -> bool:
    group = analysis.groups[g]
    if any(fnmatchcase(group.name, own.pattern) for own in named if own.of_groups):
        return True
    if any(own.inputs and g in own.part for own in named):
        return True
    makers = parts(analysis).makers(group)
    names = [own for own in named if not (own.of_groups or own.inputs)]
    return all(any(own.names(maker.tensor) for own in names) for maker in makers)


@dataclass(frozen=True)
class _Named:
    """A pattern in a model."""

    analysis: Analysis
    text: str

    def __post_init__(self) -> None:
        if not any(fnmatchcase(name, self.pattern) for name in self._known()):
            raise PolicyError(self._unknown())

    @property
    def inputs(self) -> bool:
        return self.text.endswith(":in")

    @property
    def pattern(self) -> str:
        return self.text.removesuffix(":in").removesuffix(":out")

    @property
    def of_groups(self) -> bool:
        """True for a pattern of groups or dimensions, not of parts."""
        return ":" in self.pattern or "/" in self.pattern

    def names(self, tensor: str) -> bool:
        """True if the tensor has a matching name, or is inside a module with one."""
        names = self.analysis.graph.tensor(tensor).names
        return any(fnmatchcase(n, self.pattern) for name in names for n in _around(name))

    @property
    def part(self) -> frozenset[int]:
        """The groups named wholly or in part."""
        groups, known = self.analysis.groups, parts(self.analysis)
        return frozenset(g for g, group in enumerate(groups) if self._in(group, known))

    def _in(self, group: Group, known: Parts) -> bool:
        if self.of_groups and fnmatchcase(group.name, self.pattern):
            return True
        return any(self.means(member, known) for member in group.members)

    def means(self, member: Member, known: Parts) -> bool:
        """True for a member whose dimension is named."""
        if self.of_groups:
            names = self.analysis.graph.tensor(member.tensor).names
            return any(fnmatchcase(f"{name}:{member.dim}", self.pattern) for name in names)
        return known.reads(member) is self.inputs and self.names(member.tensor)

    def _known(self) -> Iterator[str]:
        """The names that a pattern may match."""
        graph = self.analysis.graph
        if self.of_groups:
            for group in self.analysis.groups:
                yield from _dimensions(group)
            for tensor in graph.tensors:
                yield from (f"{n}:{d}" for n in tensor.names for d in range(len(tensor.shape)))
        else:
            for tensor in graph.tensors:
                for name in tensor.names:
                    yield from _around(name)

    def answer(self) -> str:
        """The reason why the pattern names no group."""
        known = parts(self.analysis)
        said = f"pattern {self.text!r} names no group that may shrink"
        pins = [p for p in self.analysis.pins if self.names(p.tensor) or self._pinned(str(p))]
        stays = next((p for p in pins if (p.tensor, p.dim) in known.made), next(iter(pins), None))
        said += f": {stays}" if stays is not None else ""
        reads = [
            group
            for group in self.analysis.groups
            if any(known.reads(m) and self.names(m.tensor) for m in group.members)
        ]
        if reads:
            said += f"; it reads group {reads[0]}: name that, or '{self.pattern}:in'"
        return said

    def _pinned(self, dimension: str) -> bool:
        return fnmatchcase(dimension.partition(" ")[0].rstrip(":"), self.pattern)

    def _passing(self) -> list[Group]:
        """The groups whose units pass through the named layers, by their results."""
        analysis = self.analysis
        results = (
            analysis.walked.labels[ref.id]
            for node in analysis.graph.nodes
            if any(fnmatchcase(name, self.pattern) for name in _around(node.module))
            for ref in node.outputs
            if ref is not None
        )
        atoms = [layer.atoms.reshape(-1) for result in results for layer in result.layers]
        found = np.unique(analysis.grouping.group[np.concatenate(atoms)]) if atoms else ()
        return [analysis.groups[g] for g in found if g != PINNED]

    def _unknown(self) -> str:
        passing = [] if self.of_groups else self._passing()
        if passing:
            return (
                f"pattern {self.text!r} names layers without tensors; the units of group "
                f"{passing[0]} pass through: name that"
            )
        names = [group.name for group in self.analysis.groups]
        names = list(dict.fromkeys([*names, *self._known()]))
        near = difflib.get_close_matches(self.text, names, n=_NEAR, cutoff=0.4)
        some = ", ".join(names[:_NEAR]) or "none"
        hint = f"; near misses: {', '.join(near)}" if near else f"; there are {some}, ..."
        return f"pattern {self.text!r} matches no group{hint}"


def _dimensions(group: Group) -> Iterable[str]:
    yield group.name
    yield from dict.fromkeys(f"{member.tensor}:{member.dim}" for member in group.members)


def _around(tensor: str) -> Iterator[str]:
    """A tensor and the modules around it."""
    yield tensor
    while "." in tensor:
        tensor = tensor.rpartition(".")[0]
        yield tensor
