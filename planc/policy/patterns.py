"""Name patterns: which groups a user means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from planc.errors import PolicyError
from planc.groups import Group


def matching(groups: Iterable[Group], pattern: str) -> frozenset[int]:
    """The groups that a shell-style pattern means: by their name, or by any tensor (or module of
    a tensor) among their members.

    Raises:
        PolicyError: it matches nothing; names the near misses.
    """
    found: set[int] = set()
    names: dict[str, None] = {}
    for g, group in enumerate(groups):
        for name in _names(group):
            names[name] = None
            if fnmatchcase(name, pattern):
                found.add(g)
    if not found:
        near = difflib.get_close_matches(pattern, list(names), n=3, cutoff=0.4)
        hint = f"; near misses: {', '.join(near)}" if near else ""
        raise PolicyError(f"pattern {pattern!r} matches no group{hint}")
    return frozenset(found)


def _names(group: Group) -> Iterable[str]:
    yield group.name
    for tensor in dict.fromkeys(member.tensor for member in group.members):
        yield tensor
        module = tensor
        while "." in module:
            module = module.rpartition(".")[0]
            yield module
