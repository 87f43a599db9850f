"""List every differentiable ATen operator of torch, with its rule or the reason why it pins.

    python -m tests.scripts.coverage_of_operators [--without]

Differentiable are the operators with a formula in torch's own table of derivatives, except the
operators of backward passes. The last lines count them, and the operators that occur in the graphs
of the zoos (``tests/rules/operators.tsv``). With ``--without``, only operators without a rule are
listed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import yaml

from planc.rules import find
from planc.rules.families.indexing import picked

SEEN = Path(__file__).parents[1] / "rules" / "operators.tsv"
PICKED = "pins: results are picked, counted or placed by position or by value"
NO_RULE = {
    r"linalg_|_linalg_|cholesky|geqrf|ormqr|triangular|lu_unpack": "a factorisation of a matrix",
    r"loss|binary_cross": "a loss, computed beside the model",
    r"cauchy|geometric|log_normal|poisson|standard_gamma|fused_dropout": "a random draw",
    r"sparse|coalesce|indices|values|to_dense": "of sparse tensors, which stay whole",
    r"cudnn|mkldnn|mps|miopen|nnpack|flash_att|efficient_att|fused_attention|overrideable|thnn|"
    r"slow_conv|conv_depthwise|cpu_fallback|pin_memory|_lazy|_euclidean|no_update": (
        "of a backend, below the operators of a trace"
    ),
    r"nested|padded_tensor": "of nested tensors, which are refused",
    r"foreach": "of optimizers",
    r"_test_|hash_tensor|feature_meta|efficientzero|_is_a|batch_fork": "internal to torch",
    r"unique|count_nonzero|max_unpool|fractional|index_reduce|masked_index|segment_reduce": (
        "values are placed by position or by value"
    ),
}
OTHER = "no rule yet: its operands stay whole"


def differentiable() -> list[str]:
    """The differentiable operators by full name, in alphabetical order."""
    text = files("torchgen").joinpath("packaged/autograd/derivatives.yaml").read_text()
    names = (entry["name"].split("(")[0] for entry in yaml.safe_load(text))
    forward = {name for name in names if "backward" not in name}
    return sorted("aten." + (name if "." in name else f"{name}.default") for name in forward)


def seen() -> list[str]:
    """The ATen operators in the graphs of the zoos."""
    names = (line.split("\t")[0] for line in SEEN.read_text().splitlines()[1:])
    return [name for name in names if name.startswith("aten.")]


def has_rule(operator: str) -> bool:
    """True if a rule says what the operator does with each coordinate."""
    return find(operator) not in (None, picked)


def line(operator: str) -> str:
    """The rule of an operator, or the reason why it pins."""
    rule = find(operator)
    if rule is picked:
        return PICKED
    if rule is not None:
        return f"{rule.__module__.removeprefix('planc.rules.families.')}.{rule.__qualname__}"
    return next((why for what, why in NO_RULE.items() if re.search(what, operator)), OTHER)


def counts() -> Iterator[str]:
    for what, names in (("differentiable", differentiable()), ("in the zoos' graphs", seen())):
        covered = sum(map(has_rule, names))
        share = 100 * covered / len(names)
        yield f"{covered} of {len(names)} operators {what} have a rule ({share:.1f} %)"


def main() -> None:
    for operator in differentiable():
        if not ("--without" in sys.argv and has_rule(operator)):
            print(f"{operator:60} {line(operator)}")
    print(*counts(), sep="\n")


if __name__ == "__main__":
    main()
