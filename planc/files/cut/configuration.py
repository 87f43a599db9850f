"""The ``config.json`` beside a checkpoint: its text and a plan in, the text that describes what the
plan produces out.

A plan names the fields that change, as attributes ``config.NAME`` of the model itself.
"""

from __future__ import annotations

import json
from typing import Any

from planc.errors import StalePlan
from planc.files.tensors.header import parse_object
from planc.plan.plan import Plan

FILE = "config.json"
_PREFIX = "config."


def described(text: bytes, plan: Plan, where: str) -> bytes:
    """The text with the fields that the plan changes; the very same where it changes none.

    A field that the text leaves out, having its default, is added.

    Raises:
        MalformedFile: the text is no JSON object.
        StalePlan: a field has another value than the plan was made for; it is named.
    """
    changes = [c for c in plan.attributes if c.module == "" and c.name.startswith(_PREFIX)]
    if not changes:
        return text
    table = parse_object(text, where, sizes_only=False)
    for change in changes:
        *outer, name = change.name.removeprefix(_PREFIX).split(".")
        holder: Any = table
        for key in outer:
            holder = holder.setdefault(key, {})
            if not isinstance(holder, dict):
                raise StalePlan(f"{where}: {key} is {holder!r}, the plan has fields in it")
        found = holder.get(name, change.before)
        if _as_tuples(found) != change.before:
            raise StalePlan(
                f"{where}: {change.name.removeprefix(_PREFIX)} is {found!r}, the plan was made for "
                f"{change.before!r}; get the config.json of the model it was made for"
            )
        holder[name] = change.after
    return (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()


def describes(plan: Plan) -> bool:
    """Whether a configuration can make the model that the plan produces: its fields change with
    the tensors, or no tensor changes.
    """
    return not plan.cuts or any(c.name.startswith(_PREFIX) for c in plan.attributes)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
