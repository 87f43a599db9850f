"""Reading a file whose kind is not known beforehand: a path in, a plan or a mask plan out."""

from __future__ import annotations

import os

from planc.codec import decode_plan
from planc.codec.envelope import kind_of
from planc.codec.files import read_file
from planc.codec.formats import Path
from planc.codec.limits import DEFAULT, Limits
from planc.codec.masks import KIND, decode_masks
from planc.maskplan import MaskPlan
from planc.plan import Plan


def load_any(path: Path, *, limits: Limits = DEFAULT) -> Plan | MaskPlan:
    """Reads a plan or a mask plan.

    Raises:
        FileError, OSError: as for :func:`planc.codec.load_plan`.
    """
    content = read_file(path, limits.file)
    if kind_of(content[:12]) == KIND:
        return decode_masks(content, name=os.fspath(path), limits=limits)
    return decode_plan(content, name=os.fspath(path), limits=limits)
