"""The details of a page as plain data: its script draws them when a reader opens them.

Indices travel as bitmaps, tensors by number. Free texts are escaped for display.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from planc.cli.report.scores import Distribution
from planc.cli.report.sides import Row, Sides, Sizes
from planc.errors.text import escaped
from planc.ir.units import marked
from planc.plan.plan import CLASS, AttributeChange, Plan, PlanGroup

WRITES, CARRIES, READS = "writes", "carries", "reads"
# layers with their results along dimension 1 of the weight
_RESULTS_SECOND = ("ConvTranspose", "Embedding", "Conv1D")


def record(sides: Sides) -> str:
    """Return the details as JSON without ``<``, ``>`` and ``&``, for a script element."""
    places = {tensor.name: i for i, tensor in enumerate(sides.tensors)}
    modules = {m.path: dict(m.attributes) for p in reversed(sides.plans) for m in p.modules}
    found = {
        "plans": len(sides.plans),
        "tensors": [_tensor(tensor) for tensor in sides.tensors],
        "groups": [
            _group(row, sides.tensors, places, modules)
            | {
                "sides": [
                    side and _side(side, found)
                    for side, found in zip(row.sides, scores, strict=True)
                ]
            }
            for row, scores in zip(sides.rows, sides.scores, strict=True)
        ],
        "attributes": _attributes(sides.plans),
        "constraints": list(
            dict.fromkeys((c.text, c.reason) for plan in sides.plans for c in plan.constraints)
        ),
        "outputs": _outputs(sides.plans),
    }
    text = json.dumps(found, separators=(",", ":"))
    if "\\u" in text or "\x7f" in text:  # perhaps an invisible character
        text = json.dumps(_harmless(found), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _harmless(value: Any) -> Any:
    """The same data with invisible characters of its texts escaped."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {key: _harmless(item) for key, item in value.items()}
    return [_harmless(item) for item in value] if isinstance(value, list | tuple) else value


def _tensor(tensor: Sizes) -> list[Any]:
    after = [0 if shape == tensor.before else shape for shape in tensor.after]
    return [tensor.name, tensor.before, *after]


def _group(
    row: Row,
    tensors: tuple[Sizes, ...],
    places: dict[str, int],
    modules: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    group = row.group
    nodes = _nodes(group, tensors, places, modules)
    return {
        "name": group.name,
        "kind": group.kind,
        "mixing": group.mixing,
        "nodes": [(path, role, list(found)) for (path, role), found in nodes.items()],
    }


def _nodes(
    group: PlanGroup,
    tensors: tuple[Sizes, ...],
    places: dict[str, int],
    modules: dict[str, dict[str, Any]],
) -> dict[tuple[str, str], dict[tuple[int, int], None]]:
    """Tensor and dimension of each member, by module and role; a bias goes with its weight."""
    found = []
    for member in group.members:
        place = places[member.tensor]
        path = member.tensor.rpartition(".")[0]
        role = _role(tensors[place], member.dim, modules.get(path, {}))
        found.append((path, role, (place, member.dim)))
    writers = {path for path, role, _ in found if role == WRITES}
    nodes: dict[tuple[str, str], dict[tuple[int, int], None]] = {}
    for path, role, at in found:
        beside = role == CARRIES and path and path in writers
        nodes.setdefault((path, WRITES if beside else role), {})[at] = None
    return nodes


def _role(tensor: Sizes, dim: int, attributes: dict[str, Any]) -> str:
    """The part of a tensor's dimension in the flow of a group, by the layout of torch's layers."""
    shape = tensor.before
    depthwise = attributes.get("groups", 1) == shape[0] > 1 and shape[1:2] == (1,)
    if tensor.kind == "buffer" or len(shape) == 1 or dim > 1 or depthwise:
        return CARRIES
    second = str(attributes.get(CLASS, "")).startswith(_RESULTS_SECOND)
    return WRITES if dim == int(second) else READS


def _side(group: PlanGroup, found: Distribution | None) -> dict[str, Any]:
    bits = np.packbits(marked(group.removed, group.size), bitorder="little")
    side = {
        "size": group.size,
        "rows": group.rows,
        "removed": len(group.removed),
        "bits": b64encode(bits.tobytes()).decode() if group.removed else "",
    }
    return side if found is None else side | {"scores": _distribution(found)}


def _distribution(found: Distribution) -> dict[str, Any]:
    return {
        "low": found.low,
        "high": found.high,
        "log": found.logarithmic,
        "kept": found.kept,
        "removed": found.removed,
        "at": found.threshold(),
        "removed_to": found.removed_to,
        "kept_from": found.kept_from,
        "over": found.over,
    }


def _outputs(plans: tuple[Plan, ...]) -> list[list[str]]:
    """Name and dimension, size before, and size after each plan."""
    tables = [{(o.name, o.dim): o for o in plan.outputs} for plan in plans]
    found = {key: output for table in reversed(tables) for key, output in table.items()}
    return [
        [
            f"{name or '(the result)'}:{dim}",
            str(output.size),
            *(str(len(t[name, dim].kept) if (name, dim) in t else output.size) for t in tables),
        ]
        for (name, dim), output in found.items()
    ]


def _attributes(plans: tuple[Plan, ...]) -> list[list[str]]:
    """Name, value before, and value after each plan."""
    tables = [{(c.module, c.name): c for c in plan.attributes} for plan in plans]
    names = dict.fromkeys(name for table in tables for name in table)
    return [list(_changes(".".join(filter(None, name)), name, tables)) for name in names]


def _changes(
    shown: str, name: tuple[str, str], tables: list[dict[tuple[str, str], AttributeChange]]
) -> Iterator[str]:
    before = next(repr(table[name].before) for table in tables if name in table)
    yield shown
    yield before
    for table in tables:
        yield repr(table[name].after) if name in table else before
