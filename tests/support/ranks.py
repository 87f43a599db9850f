"""Jobs of several processes: one import of torch, then a fork for each rank, as quick as can be.

Run it in a process of its own, ``in_ranks`` below: forks of a process with threads may hang.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGS = 1200.0  # seconds after which a test is taken to hang; a busy machine is slow, not hung


def forked(size: int, work: Callable[[int], object]) -> list[int]:
    """Runs ``work(rank)`` in each of ``size`` processes, in the environment that torchrun gives;
    returns their exit codes, a signal's as a negative one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            os.environ |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            code = 1
            try:
                found = work(rank)
                code = found if isinstance(found, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def in_ranks(script: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script that calls :func:`forked` in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=directory,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
