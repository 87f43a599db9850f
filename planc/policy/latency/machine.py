"""The names of this machine's processors, and the check of a latency table against them."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from planc.errors import PolicyError
from planc.plan.latency import Prediction

_CPUINFO = Path("/proc/cpuinfo")


def processor(device: str = "cpu") -> str:
    """The name of a device: "x86_64 AMD EPYC", "NVIDIA H200"."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {_model()}".strip() if kind == "cpu" else kind


def check_machine(table: Prediction, machine: str | None = None) -> None:
    """Check that the table was measured on ``machine``, by default this one.

    Raises:
        PolicyError: it was measured elsewhere; names both.
    """
    if not callable(getattr(table, "prediction", None)):
        raise PolicyError(
            f"latency_table is of type {type(table).__name__}: give what planc.measure_latency or "
            "planc.load_latency returns"
        )
    if machine is not None:
        if table.machine != machine:
            raise PolicyError(
                f"the latency table was measured on {table.machine!r}, the plan is for machine "
                f"{machine!r}: give a table that was measured there"
            )
        return
    here = [processor()]
    here += [processor(f"cuda:{i}") for i in range(torch.cuda.device_count())]
    if table.machine not in here:
        raise PolicyError(
            f"the latency table was measured on {table.machine!r}, this machine has "
            f"{' and '.join(map(repr, here))}: measure here, or, for a plan that is to run there, "
            f"say so with machine={table.machine!r} (--machine)"
        )


def _model() -> str:
    """The name of the CPU, as far as the system reports it."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor()
