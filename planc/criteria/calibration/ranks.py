"""Sums over all processes of ``torch.distributed``, or over the only one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import distributed

from planc.errors import CalibrationError

Described = dict[str, tuple[tuple[int, ...], torch.dtype]]


def rank() -> int:
    """The number of this process, 0 if it is the only one."""
    return distributed.get_rank() if _several() else 0


def together(
    batches: int, sums: Mapping[str, torch.Tensor], error: CalibrationError | None
) -> tuple[int, dict[str, torch.Tensor]]:
    """The number of batches and the sums over all processes, on the CPU, bit-identical on each.

    Raises:
        CalibrationError: a process failed, or they ran different models; names the rank.
    """
    if not _several():
        if error is not None:
            raise error
        return batches, {key: sums[key].cpu() for key in sorted(sums)}
    own: Described = {key: (tuple(value.shape), value.dtype) for key, value in sums.items()}
    everyone: list[tuple[str, int, Described]] = [("", 0, {})] * distributed.get_world_size()
    distributed.all_gather_object(everyone, (str(error or ""), batches, own))
    for number, (failed, _, _) in enumerate(everyone):
        if failed:
            raise CalibrationError(f"rank {number}: {failed}") from error
    described: Described = {}
    for number, (_, _, theirs) in enumerate(everyone):
        for key, description in theirs.items():
            if described.setdefault(key, description) != description:
                raise CalibrationError(
                    f"rank {number}: {key} is of shape {description[0]}, elsewhere of "
                    f"{described[key][0]}; run the same model on every rank"
                )
    device = _device()
    total = {}
    for key in sorted(described):
        shape, dtype = described[key]
        value = sums[key] if key in sums else torch.zeros(shape, dtype=dtype)
        value = value.to(device, copy=True)
        distributed.reduce(value, dst=0)  # and broadcast: the same bits on every rank
        distributed.broadcast(value, src=0)
        total[key] = value.cpu()
    return sum(count for _, count, _ in everyone), total


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _device() -> torch.device:
    """The device required by the backend."""
    if "nccl" in distributed.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
