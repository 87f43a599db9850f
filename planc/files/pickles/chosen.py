"""Which of the dicts in a training checkpoint is the model's: what it holds and a plan in, the dict
whose names are the plan's out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from planc.errors import MalformedFile, PlancError
from planc.plan.plan import Plan

Path = tuple[str, ...]


def state_dict_in(
    entries: Iterable[tuple[Path, str]], plan: Plan, where: str
) -> tuple[Path, tuple[str, ...]]:
    """Where in nested dicts the state dict of the plan's model is, and what is outside of it.

    Args:
        entries: the keys that lead to each entry, and what it is: "tensor", or its type's name.

    Raises:
        PlancError: it is there several times.
        MalformedFile: it holds more than tensors.
    """
    entries = list(entries)
    names = {name for spec in plan.tensors for name in spec.names}
    found = Counter(path[:-1] for path, kind in entries if path and path[-1] in names)
    most = max(found.values(), default=None)
    best, *twins = [path for path, count in found.items() if count == most] or [()]
    if twins:
        places = " and ".join(f"under {_shown(path)}" for path in (best, *twins))
        raise PlancError(f"{where}: holds the plan's tensors {places}; save one of them alone")
    for path, kind in entries:
        if path[:-1] == best and (kind != "tensor" or not path):
            raise MalformedFile(
                f"{where}: {_shown(path)} is a {kind}; a state dict holds names and tensors only: "
                "save the model's state_dict()"
            )
    outside = {_first_apart(path, best) for path, _ in entries if path[:-1] != best}
    return best, tuple(sorted(outside))


def _first_apart(path: Path, best: Path) -> str:
    """The outermost dict or entry on a path that does not lead to the state dict."""
    same = next((i for i, (a, b) in enumerate(zip(path, best, strict=False)) if a != b), len(best))
    return ".".join(path[: same + 1])


def _shown(path: Path) -> str:
    return repr(".".join(path)) if path else "no name"
