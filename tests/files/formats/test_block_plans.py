"""Files of plans that remove blocks: read back as written, refused where two fields disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

import planc
from planc.errors import MalformedFile
from planc.files.cut.configuration import describes
from planc.files.disk.limits import Limits
from planc.files.formats import checks, decode_plan, encode_plan
from planc.plan.plan import AttributeChange, Plan
from tests.support.blocks import Stack, inputs

Edit = Callable[[Plan], Plan]


@cache
def made() -> Plan:
    return planc.compile(Stack(4, by_count=True).eval(), inputs(), remove={"blocks": [1]})


def _list(plan: Plan, **changes: object) -> Plan:
    return plan.replace(groups=(replace(plan.groups[0], **changes), *plan.groups[1:]))  # type: ignore[arg-type]


def test_a_plan_of_blocks_reads_back_and_requires_a_reader_of_blocks() -> None:
    plan = made()
    assert plan.requires == ("removed blocks",)
    assert decode_plan(encode_plan(plan)) == plan
    assert not describes(plan)


def _change(plan: Plan, module: str, before: object, after: object) -> Plan:
    more = AttributeChange(module, "kind", before, after)
    return plan.replace(attributes=(*plan.attributes, more))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plan: plan.replace(requires=()), "4 units lie nowhere"),
        (lambda plan: _list(plan, removed=()), "lose 0 blocks"),
        (lambda plan: _list(plan, kind="layers"), "only blocks have none"),
        (lambda plan: _list(plan, size=5), "4 children, 5 blocks"),
        (lambda plan: _list(plan, removed=(0, 1, 2, 3)), "at least one must stay"),
        (lambda plan: plan.replace(groups=(plan.groups[0], *plan.groups)), "is there twice"),
        (lambda plan: _change(plan, "blocks.1", "pre", "post"), "'blocks.1' is removed"),
        (lambda plan: _change(plan, "blocks.0", ("a", "b"), ("a",)), "is not of the type"),
    ],
)
def test_contradictions_are_refused(edit: Edit, message: str) -> None:
    with pytest.raises(MalformedFile, match=message):
        checks.check_plan(edit(made()), Limits())


def test_lists_with_one_entry_a_block_get_shorter_with_it() -> None:
    plan = _change(made(), "blocks.0", ("a", "b", "c", "d"), ("a", "c", "d"))
    with pytest.raises(MalformedFile, match="has no attribute 'kind'"):
        checks.check_plan(plan, Limits())
