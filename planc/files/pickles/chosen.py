"""The model's state dict inside a training checkpoint, found by the names of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from planc.errors import MalformedFile, PlancError
from planc.modules.wrappers import unprefixed
from planc.plan.plan import TensorSpec

Path = tuple[str, ...]


def state_dict_in(
    entries: Iterable[tuple[Path, str]], tensors: Iterable[TensorSpec], where: str
) -> tuple[Path, tuple[str, ...]]:
    """Find the state dict of a model in nested dicts.

    Args:
        entries: the keys leading to each entry, and its kind: "tensor", or its type's name.
        tensors: those of the model; without any, the dict with most tensors is the model's.
        where: the file's name, for messages.

    Returns:
        The path of the dict with most of the model's names, and the outermost entries outside of it
        as sorted dotted names.

    Raises:
        PlancError: several dicts hold equally many of the model's names.
        MalformedFile: the state dict holds more than tensors.
    """
    entries = list(entries)
    names = {name for spec in tensors for name in spec.names}
    found: Counter[Path] = Counter()
    for known in (names.__contains__, lambda name: unprefixed(name, names)):
        found = found or Counter(path[:-1] for path, _ in entries if path and known(path[-1]))
    if not names:
        found = Counter(path[:-1] for path, kind in entries if path and kind == "tensor")
    most = max(found.values(), default=None)
    best, *twins = [path for path, count in found.items() if count == most] or [()]
    if twins:
        places = " and ".join(f"under {_shown(path)}" for path in (best, *twins))
        raise PlancError(f"{where}: holds the model's tensors {places}; save one of them alone")
    for path, kind in entries:
        if path[:-1] == best and (kind != "tensor" or not path):
            raise MalformedFile(
                f"{where}: {_shown(path)} is a {kind}; a state dict holds names and tensors only: "
                "save the model's state_dict()"
            )
    outside = {_first_apart(path, best) for path, _ in entries if path[:-1] != best}
    return best, tuple(sorted(outside))


def _first_apart(path: Path, best: Path) -> str:
    """Cut ``path`` after its first key not shared with ``best``, and join it by dots."""
    same = next((i for i, (a, b) in enumerate(zip(path, best, strict=False)) if a != b), len(best))
    return ".".join(path[: same + 1])


def _shown(path: Path) -> str:
    return repr(".".join(path)) if path else "no name"
