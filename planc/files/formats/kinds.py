"""Reading a file whose kind is not known beforehand: a path in, a plan, a mask plan or a latency
table out.
"""

from __future__ import annotations

import os

from planc.files.disk.atomic import read_file
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import decode_plan
from planc.files.formats.envelope import kind_of
from planc.files.formats.formats import Path
from planc.files.formats.latency import KIND as LATENCY
from planc.files.formats.latency import decode_latency
from planc.files.formats.masks import KIND as MASKS
from planc.files.formats.masks import decode_masks
from planc.plan.latency import LatencyTable
from planc.plan.masks import MaskPlan
from planc.plan.plan import Plan


def load_any(
    path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT
) -> Plan | MaskPlan | LatencyTable:
    """Reads a plan, a mask plan or a latency table.

    Raises:
        FileError, OSError: as for :func:`planc.codec.load_plan`.
    """
    content = read_file(path, limits.file)
    kind, name = kind_of(content), os.fspath(path)
    if kind == MASKS:
        return decode_masks(content, name=name, sha256=sha256, limits=limits)
    if kind == LATENCY:
        return decode_latency(content, name=name, sha256=sha256, limits=limits)
    return decode_plan(content, name=name, sha256=sha256, limits=limits)
