"""Which modules R16 speaks of, and which tests are run for them.

``python -m tests.mutation.covering`` runs these tests, but for the longest, and fails unless every
branch of the modules is taken; options and other tests that are named are for pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CODEC = ("tests/test_codec.py", "tests/codec", "tests/test_text.py", "tests/test_kept_inputs.py")
# the tests that are about one module, and take less time than those of all of them
_TORCH_FILES = {
    "archives": ("archives", "native"),
    "chosen": ("chosen", "archives", "native"),
    "differences": ("differences", "checkpoint", "load", "save"),
    "elements": ("elements", "archives", "load"),
    "load": ("load", "checkpoint", "differences"),
    "native": ("native",),
    "pickled": ("archives",),
    "save": ("save", "checkpoint", "differences", "load"),
    "stored": ("stored", "elements"),
    "values": ("values", "differences", "load"),
}
_VERIFY = (
    "tests/verify",
    "tests/test_verify.py",
    "tests/test_verify_sizes.py",
    "tests/test_configuration.py",
    "tests/test_data_dependent.py",
    "tests/test_leaf.py",
    "tests/test_kept_inputs.py",
    "tests/test_structure.py",
    "tests/trace/test_sparse.py",
)


def _each(package: str, **modules: str) -> dict[str, tuple[str, ...]]:
    """The names of the modules' test files, which are quick."""
    return {
        f"planc/{package}/{module}.py": tuple(f"tests/{package}/test_{n}.py" for n in names.split())
        for module, names in modules.items()
    }


TESTS: dict[str, tuple[str, ...]] = {
    "planc/codec": _CODEC,
    "planc/files/formats/masks.py": (*_CODEC, "tests/masks/test_files.py"),
    "planc/files/formats/kinds.py": (*_CODEC, "tests/masks/test_files.py"),
    "planc/plan/fingerprint.py": ("tests/test_fingerprint.py",),
    "planc/checkpoint": ("tests/checkpoint", "tests/trace/test_sparse.py"),
    **{
        f"planc/checkpoint/{name}.py": tuple(f"tests/checkpoint/test_{t}.py" for t in tests)
        for name, tests in _TORCH_FILES.items()
    },
    "planc/files/tensors/header.py": ("tests/tensorfiles/test_header_text.py",),
    "planc/tensorfiles": ("tests/tensorfiles",),
    **_each("tensorfiles", checkpoint="belonging", directories="directories", distributed="pieces"),
    **_each("tensorfiles", pieces="pieces", reader="reader", stream="stream", writer="writer"),
    "planc/files/tensors/shards.py": (
        "tests/tensorfiles/test_pieces.py",
        "tests/tensorfiles/test_sets.py",
        "tests/streaming/test_sources.py",
    ),
    "planc/streaming": ("tests/streaming",),
    **_each("streaming", besides="besides", configuration="besides"),
    **_each("streaming", cutting="cutting uncutting", uncutting="uncutting", ranks="agreeing"),
    **_each("streaming", sources="sources", staging="staging"),
    **_each("streaming", apply="apply besides", layout="layout", removed="restore besides"),
    **_each("streaming", restore="restore besides", shard="workers", workers="workers cutting"),
    "planc/files/cut/masking.py": ("tests/masks/test_masking_files.py",),
    "planc/apply/validate.py": _VERIFY,
    "planc/verify": _VERIFY,
}
# many cases of what shorter tests take every branch of, or of other processes and their memory
_LONG = (
    "tests/streaming/test_executors.py",
    "tests/streaming/test_processes.py::test_memory",
    "tests/streaming/test_native.py::test_torch_reads_the_result_on_another_number_of_ranks",
    "tests/streaming/test_pickled.py::test_memory",
    "tests/streaming/test_ranks.py::test_torchrun",
    "tests/streaming/test_transformers.py::test_the_result_is_a_checkpoint_of_its_family",
    "tests/test_verify.py::test_every_fault",
    "tests/test_verify_sizes.py::test_models_of_the_zoo",
)


def modules(only: str = "") -> list[str]:
    """The modules' paths; those that begin with ``only``, in the order of their packages."""
    found = [
        path.relative_to(ROOT).as_posix()
        for place in TESTS
        for path in sorted((ROOT / place).rglob("*.py") if place[-3:] != ".py" else [ROOT / place])
    ]
    return [path for path in dict.fromkeys(found) if path.startswith(only)]


def files_for(paths: list[str]) -> list[str]:
    """The test files and folders for some modules, each once."""
    places = {max((p for p in TESTS if path.startswith(p)), key=len) for path in paths}
    found = dict.fromkeys(test for place in TESTS if place in places for test in TESTS[place])
    return [test for test in found if (ROOT / test).exists()]


def left_out() -> list[str]:
    """Options for pytest: without the longest tests."""
    return [f"--deselect={test}" for test in _LONG]


def main() -> int:
    options = ["--cov", "--cov-report=term-missing:skip-covered"]
    return int(pytest.main([*options, *left_out(), *sys.argv[1:], *files_for(modules())]))


if __name__ == "__main__":
    sys.exit(main())
