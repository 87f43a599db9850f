"""The digests of some plans, one a line: R10 has them equal in every process, whatever its hash
seed, its threads and its Python.

    python -m tests.scripts.digests [--threads 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import torch

import planc
from planc.files.formats import encode_plan
from tests.support.small import build

MODELS = ("residual", "attention", "vit")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"criterion": "l1", "global_ranking": True},
    {"criterion": "random"},
)


def digests(threads: int | None = None) -> Iterator[str]:
    """A line for each model and each set of options."""
    for name in MODELS:
        model, inputs = build(name)
        if threads is not None:
            torch.set_num_threads(threads)
        for number, options in enumerate(OPTIONS):
            plan = planc.compile(model, inputs, **options)
            yield f"{name} {number} {sha256(encode_plan(plan)).hexdigest()}"


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    for line in digests(parser.parse_args().threads):
        print(line)


if __name__ == "__main__":
    main()
