"""A second reader of plan files, in thirty lines, that knows msgpack and the layout in
planc/files/formats/envelope.py and records.py and nothing else of planc.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack


def read(path: Path) -> dict[str, Any]:
    """The body of a plan file; removed units are listed, tensors of members named, and fields
    that version 1 lacks are empty.
    """
    content = path.read_bytes()
    kind, version, digest, body = msgpack.unpackb(content)
    assert (kind, version in (1, 2)) == ("planc/plan", True)
    assert digest == sha256(content[:13] + body).digest()
    plan: dict[str, Any] = msgpack.unpackb(body)
    assert list(plan) == sorted(plan)
    for module in plan["modules"]:
        module["attributes"] = plan["structural"][module["attributes"]]
    plan.setdefault("outputs", [])
    for entry in plan["provenance"]:
        for name in ("weights", "statistics"):
            digest = entry.setdefault(name, None)
            entry[name] = digest and digest.hex()
        entry.setdefault("origin", "")
        entry.setdefault("decisions", [])
    for output in plan["outputs"]:
        output["kept"] = [i for i in range(output["size"]) if output["kept"][i // 8] >> i % 8 & 1]
    for group in plan["groups"]:
        scores = group.setdefault("scores", None)
        group["scores"] = scores and scores.hex()
        cells = group["size"] // group["rows"]
        width = -(-cells // 8)
        group["removed"] = [
            row * cells + cell
            for row in range(group["rows"])
            for cell in range(cells)
            if group["removed"][row * width + cell // 8] >> cell % 8 & 1
        ]
        for member in group["members"]:
            member["tensor"] = plan["tensors"][member["tensor"]]["names"][0]
    return plan
