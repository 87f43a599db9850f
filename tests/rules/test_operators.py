"""Every operator that the zoos were seen to use has a rule, or is named here with its reason.

``operators.tsv`` was measured: the operators of torchvision's, timm's and transformers' models, how
many models use each, how often, and one of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from planc.rules import find, registry
from planc.rules.families.indexing import picked
from tests.scripts import coverage_of_operators

OPERATORS = [
    line.split("\t")[0]
    for line in Path(__file__).with_name("operators.tsv").read_text().splitlines()[1:]
]
NO_OPERATORS = {
    "<built-in function getitem>": "torch.fx's way to one of several results",
    "wrap_with_set_grad_enabled": "a region that torch.export sets apart; the recorder sees inside",
    "aten._assert_tensor_metadata.default": "has no result, and constrains nothing",
}
PINNING = {
    "aten.where.default": "gives positions",
    "aten._unique2.default": "how many there are depends on values",
    "aten.histc.default": "counts values",
    "aten.item.default": "a number, which control flow may depend on",
    "torchvision.nms.default": "gives positions",
}
UNKNOWN = {
    "transformers.grouped_mm_fallback.default": "rows are cut at positions that values decide",
}


def test_no_operator_is_named_twice() -> None:
    assert len(OPERATORS) == len(set(OPERATORS)) > 160
    assert not set(PINNING) & set(UNKNOWN)


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - set(NO_OPERATORS) - set(UNKNOWN)))
def test_an_operator_of_the_zoos_has_a_rule(name: str) -> None:
    assert find(name) is not None
    assert (find(name) is picked) == (name in PINNING)


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_what_is_said_to_have_no_rule_has_none(name: str) -> None:
    assert name in OPERATORS
    assert name not in registry._RULES


def test_95_percent_of_the_operators_of_the_zoos_have_a_rule() -> None:
    operators = coverage_of_operators.seen()
    assert sum(map(coverage_of_operators.has_rule, operators)) >= 0.95 * len(operators) > 150


def test_every_differentiable_operator_has_a_rule_or_a_reason() -> None:
    operators = coverage_of_operators.differentiable()
    without = [name for name in operators if not coverage_of_operators.has_rule(name)]
    assert len(operators) > 550
    assert len(without) < len(operators) / 3
    unexplained = [
        n for n in without if coverage_of_operators.line(n) == coverage_of_operators.OTHER
    ]
    assert len(unexplained) <= 25


def test_the_report_names_the_rule_or_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    coverage_of_operators.main()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-2])
    assert lines["aten.linear.default"] == "contraction.linear"
    assert lines["aten.linalg_qr.default"] == "a factorisation of a matrix"
    assert lines["aten.take.default"].startswith("pins: ")
