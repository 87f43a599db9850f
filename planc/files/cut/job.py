"""The processes of a ``torch.distributed`` job as ranks, from the environment of torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed

from planc.errors import PlancError
from planc.files.cut.ranks import Ranks

_T = TypeVar("_T")
_MEETING = timedelta(minutes=10)
_WORK = timedelta(days=7)  # a dead process is noticed at once; a working one may take long


@contextmanager
def job() -> Iterator[Ranks]:
    """The ranks of this job, for :func:`planc.apply_files`; every process of the job must enter.

    Ranks communicate over gloo, independent of the job's other groups. Without an existing process
    group, one is made from ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, and
    destroyed on exit.

    Yields:
        The ranks, to be passed as ``ranks``.

    Raises:
        PlancError: torch lacks torch.distributed, or the processes do not find each other.
    """
    if not distributed.is_available():
        raise PlancError("this torch was built without torch.distributed: apply in one process")
    own = not distributed.is_initialized()
    try:
        if own:
            distributed.init_process_group("gloo", timeout=_MEETING)
        group = distributed.new_group(backend="gloo", timeout=_WORK)
    except (RuntimeError, ValueError) as error:
        raise PlancError(f"the processes of the job do not find each other: {error}") from None
    try:
        yield _Job(distributed.get_rank(), distributed.get_world_size(), group)
    finally:
        if own:
            distributed.destroy_process_group()


class _Job(Ranks):
    def __init__(self, rank: int, size: int, group: Any) -> None:
        super().__init__(rank, size)
        self._group = group

    def gather(self, mine: _T) -> list[_T]:
        everyone: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(everyone, mine, group=self._group)
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise PlancError(
                f"rank {self.rank}: another process of the job has ended ({first}); what is "
                "finished is kept: run again"
            ) from None
        return everyone
