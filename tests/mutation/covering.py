"""Which modules R16 speaks of, and which tests are run for them.

``python -m tests.mutation.covering`` runs these tests, but for the longest, and fails unless every
branch of the modules is taken; options and other tests that are named are for pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FORMATS = ("tests/files/formats", "tests/errors/test_text.py", "tests/modules/test_kept_inputs.py")
_VERIFY = (
    "tests/verify",
    "tests/compile/test_configuration.py",
    "tests/compile/test_outputs.py",
    "tests/trace/test_data_dependent.py",
    "tests/rules/test_leaf.py",
    "tests/modules/test_kept_inputs.py",
    "tests/analysis/test_structure.py",
    "tests/trace/test_sparse.py",
)


def _each(package: str, **modules: str) -> dict[str, tuple[str, ...]]:
    """The names of the modules' test files, which are quick."""
    return {
        f"planc/{package}/{module}.py": tuple(f"tests/{package}/test_{n}.py" for n in names.split())
        for module, names in modules.items()
    }


# for the modules of a package all its tests; for single modules those about them, which are quick
TESTS: dict[str, tuple[str, ...]] = {
    "planc/files/disk": ("tests/files/disk", "tests/files/formats/test_replacing.py"),
    **_each("files/disk", directories="directories", stream="stream", staging="staging"),
    "planc/files/formats": _FORMATS,
    "planc/files/formats/masks.py": (*_FORMATS, "tests/masks/test_files.py"),
    "planc/files/formats/kinds.py": (*_FORMATS, "tests/masks/test_files.py"),
    "planc/plan/fingerprint.py": ("tests/plan/test_fingerprint.py",),
    "planc/files/pickles": ("tests/files/pickles",),
    **_each("files/pickles", archives="archives native", chosen="chosen archives native"),
    **_each("files/pickles", native="native", pickled="archives", sources="sources"),
    "planc/files/checkpoint": ("tests/files/checkpoint", "tests/trace/test_sparse.py"),
    **_each(
        "files/checkpoint", differences="differences checkpoint load save", elements="elements load"
    ),
    **_each("files/checkpoint", load="load checkpoint differences", stored="stored elements"),
    **_each(
        "files/checkpoint",
        save="save checkpoint differences load",
        values="values differences load",
    ),
    "planc/files/tensors": ("tests/files/tensors",),
    **_each("files/tensors", header="header_text", opened="belonging", distributed="pieces"),
    **_each("files/tensors", pieces="pieces", reader="reader", writer="writer"),
    "planc/files/tensors/shards.py": (
        "tests/files/tensors/test_pieces.py",
        "tests/files/tensors/test_sets.py",
        "tests/files/pickles/test_sources.py",
    ),
    "planc/files/cut": ("tests/files/cut",),
    **_each("files/cut", besides="besides", configuration="besides"),
    **_each("files/cut", cutting="cutting uncutting", uncutting="uncutting", ranks="agreeing"),
    **_each("files/cut", apply="apply besides", layout="layout", removed="restore besides"),
    **_each("files/cut", restore="restore besides", shard="workers", workers="workers cutting"),
    "planc/files/cut/masking.py": ("tests/masks/test_masking_files.py",),
    "planc/apply/validate.py": _VERIFY,
    "planc/verify": _VERIFY,
}
# many cases of what shorter tests take every branch of, or of other processes and their memory
_LONG = (
    "tests/files/formats/test_damage.py::test_a_golden_plan_is_refused_with_any_bit_flipped",
    "tests/files/formats/test_damage.py::test_a_checkpoint_is_refused_with_any_bit",
    "tests/files/cut/test_executors.py",
    "tests/files/cut/test_processes.py::test_memory",
    "tests/files/cut/test_native.py::test_torch_reads_the_result_on_another_number_of_ranks",
    "tests/files/cut/test_pickled.py::test_memory",
    "tests/files/cut/test_ranks.py::test_torchrun",
    "tests/files/cut/test_transformers.py::test_the_result_is_a_checkpoint_of_its_family",
    "tests/verify/test_verify.py::test_every_fault",
    "tests/verify/test_verify_sizes.py::test_models_of_the_zoo",
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
    options = ["-m", "", "--cov", "--cov-report=term-missing:skip-covered"]
    return int(pytest.main([*options, *left_out(), *sys.argv[1:], *files_for(modules())]))


if __name__ == "__main__":
    sys.exit(main())
