"""Reading a file of any kind: a plan, a mask plan or a latency table."""

from __future__ import annotations

import os
from typing import Any

from planc.files.disk.atomic import read_file
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import PLANS
from planc.files.formats.envelope import kind_of
from planc.files.formats.formats import Format, Path
from planc.files.formats.latency import LATENCIES
from planc.files.formats.masks import MASKS
from planc.files.formats.nature import check_nature, start_of
from planc.plan.latency import LatencyTable
from planc.plan.masks import MaskPlan
from planc.plan.plan import Plan

_FORMATS: dict[bytes | None, Format[Any]] = {f.kind: f for f in (PLANS, MASKS, LATENCIES)}


def load_any(
    path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT
) -> Plan | MaskPlan | LatencyTable:
    """Read a plan, a mask plan or a latency table.

    Raises:
        FileError, OSError: as for :func:`planc.files.formats.load_plan`.
    """
    kind = _FORMATS.get(kind_of(start_of(path)), PLANS)
    check_nature(path, kind.kind)
    content = read_file(path, limits.file)
    loaded: Plan | MaskPlan | LatencyTable = kind.decode(
        content, name=os.fspath(path), sha256=sha256, limits=limits
    )
    return loaded
