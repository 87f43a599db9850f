"""Name patterns: the groups selected by a user's text."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from planc.errors import PolicyError
from planc.ir.groups import Group


def matching(groups: Iterable[Group], pattern: str) -> frozenset[int]:
    """The groups selected by a shell-style pattern.

    A pattern matches the group's name, any tensor among its members, or a module around such a
    tensor.

    Raises:
        PolicyError: nothing matches; names the near misses.
    """
    return _matching(groups, pattern, _all_names)


def named(groups: Iterable[Group], pattern: str) -> frozenset[int]:
    """The groups named by a shell-style pattern.

    A pattern matches the group's name, the tensor in it, or a module around that tensor. Layers
    sharing the group do not count.

    Raises:
        PolicyError: nothing matches; names the near misses.
    """
    return _matching(groups, pattern, _own_names)


def _matching(
    groups: Iterable[Group], pattern: str, names_of: Callable[[Group], Iterable[str]]
) -> frozenset[int]:
    found: set[int] = set()
    names: dict[str, None] = {}
    for g, group in enumerate(groups):
        for name in names_of(group):
            names[name] = None
            if fnmatchcase(name, pattern):
                found.add(g)
    if not found:
        near = difflib.get_close_matches(pattern, list(names), n=3, cutoff=0.4)
        some = ", ".join(list(names)[:3])
        hint = f"; near misses: {', '.join(near)}" if near else f"; there are {some}, ..."
        raise PolicyError(f"pattern {pattern!r} matches no group{hint}")
    return frozenset(found)


def _own_names(group: Group) -> Iterable[str]:
    yield group.name
    yield from _around(group.members[0].tensor)


def _all_names(group: Group) -> Iterable[str]:
    yield group.name
    for tensor in dict.fromkeys(member.tensor for member in group.members):
        yield from _around(tensor)


def _around(tensor: str) -> Iterable[str]:
    """A tensor and the modules around it."""
    yield tensor
    while "." in tensor:
        tensor = tensor.rpartition(".")[0]
        yield tensor
