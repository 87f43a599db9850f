"""The ``config.json`` beside a checkpoint, updated to describe the result of a plan.

A plan lists the changed fields as attributes ``config.NAME`` of the root module.
"""

from __future__ import annotations

import json
from typing import Any

from planc.errors import MalformedFile, StalePlan
from planc.files.tensors.header import parse_object
from planc.ir.plain import as_tuples
from planc.plan.depth import depth_of
from planc.plan.plan import Plan

FILE = "config.json"
_PREFIX = "config."
_CLASSES = ("architectures", "architecture", "model_type")


def described(text: bytes, plan: Plan, where: str) -> bytes:
    """Return the text with the fields changed by the plan, or unmodified if there are none.

    A field missing from the text has its default value and is added.

    Raises:
        MalformedFile: the text is not a JSON object.
        StalePlan: a field has another value than the plan was made for; names the field.
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
        if as_tuples(found) != change.before:
            raise StalePlan(
                f"{where}: {change.name.removeprefix(_PREFIX)} is {found!r}, the plan was made for "
                f"{change.before!r}; get the config.json of the model it was made for"
            )
        holder[name] = change.after
    return (json.dumps(table, indent=2, ensure_ascii=False) + "\n").encode()


def describes(plan: Plan) -> bool:
    """Return True if a configuration can make the model produced by the plan.

    Its fields change with the tensors, or no tensor changes.
    """
    changed = plan.cuts or depth_of(plan)
    return not changed or any(c.name.startswith(_PREFIX) for c in plan.attributes)


def names_model(text: bytes, where: str) -> bool:
    """Return True if a library can build a model from the text, because it names a class or a kind
    of models.
    """
    try:
        table = parse_object(text, where, sizes_only=False)
    except MalformedFile:
        return False
    return any(table.get(key) for key in _CLASSES)
