"""Fingerprints agree where a plan may be used, and differences are named where it may not."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planc.errors import AlreadyApplied, StalePlan
from planc.plan.fingerprint import (
    attributes_digest,
    canonical,
    check_source,
    check_state_dict,
    compare,
    first_difference,
    joined,
    lists_classes,
    modules_after,
    modules_before,
    pruned_structure,
    shapes_digest,
    shared,
    structure_digest,
    tensors_after,
    tensors_digest,
)
from planc.plan.plan import CLASS, AttributeChange, ModuleSpec, Plan, TensorSpec
from tests.support.strategies import complete, example_plan, plans

PLAN = example_plan()
TENSORS, MODULES = PLAN.tensors, PLAN.modules


def shapes_of(tensors: tuple[TensorSpec, ...]) -> dict[str, tuple[int, ...]]:
    return {name: spec.shape for spec in tensors for name in spec.names}


@given(plans(), st.randoms(use_true_random=False))
def test_digests_do_not_depend_on_the_order_of_tables(plan: Plan, chance: Any) -> None:
    def shuffled(items: tuple[Any, ...]) -> list[Any]:
        return chance.sample(items, len(items))  # type: ignore[no-any-return]

    assert tensors_digest(shuffled(plan.tensors)) == plan.source.tensors
    assert attributes_digest(shuffled(plan.modules)) == plan.source.attributes
    assert structure_digest(shuffled(plan.groups)) == plan.source.structure


@given(plans())
def test_a_plan_fits_its_own_tables(plan: Plan) -> None:
    assert compare(plan, plan.tensors, plan.modules) is None
    check_source(plan, plan.tensors, plan.modules)
    check_source(plan, reversed(plan.tensors))
    check_state_dict(plan, shapes_of(plan.tensors))


@given(plans())
def test_what_a_plan_produces_is_recognised(plan: Plan) -> None:
    tensors = tensors_after(plan.tensors, plan.cuts)
    modules = modules_after(plan.modules, plan.attributes)
    assert tensors_digest(tensors) == plan.result.tensors
    assert attributes_digest(modules) == plan.result.attributes
    if tensors == plan.tensors and modules == plan.modules:
        return
    with pytest.raises(AlreadyApplied, match="apply the plan to the original"):
        check_source(plan, tensors, modules)
    if tensors != plan.tensors:
        with pytest.raises(AlreadyApplied):
            check_state_dict(plan, shapes_of(tensors))


@given(plans(), plans())
def test_digests_differ_exactly_where_a_difference_is_named(a: Plan, b: Plan) -> None:
    same = (a.source.tensors, a.source.attributes) == (b.source.tensors, b.source.attributes)
    both = compare(a, b.tensors, b.modules) or compare(b, a.tensors, a.modules)
    assert (both is None) == same


def renamed(index: int, *names: str) -> tuple[TensorSpec, ...]:
    return changed(index, names=names)


def changed(index: int, **changes: Any) -> tuple[TensorSpec, ...]:
    spec = replace(TENSORS[index], **changes)
    return (*TENSORS[:index], spec, *TENSORS[index + 1 :])


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (TENSORS[:1] + TENSORS[2:], "b.weight: expected a parameter of shape (6, 12), found none"),
        ((*TENSORS, TensorSpec(("new",), (2,), "buffer")), "new: expected no such tensor"),
        ((*TENSORS, TensorSpec(("new", "twin"), (2,), "buffer")), "new: expected no such tensor"),
        (changed(1, shape=(6, 13)), "b.weight: expected shape (6, 12), found (6, 13)"),
        (changed(4, kind="parameter"), "steps: expected a buffer, found a parameter"),
        (renamed(0, "a.weight"), "tied.weight: expected a parameter of shape (6, 1), found none"),
        (
            (*renamed(0, "a.weight"), TensorSpec(("tied.weight",), (6, 1), "parameter")),
            "tied.weight: expected to be tied to a.weight, found a tensor of its own",
        ),
        (
            (*TENSORS[:2], TensorSpec(("c.weight", "other"), (6,), "parameter"), *TENSORS[3:]),
            "c.weight: expected not to be tied to other, found the two tied",
        ),
    ],
)
def test_the_first_different_tensor_is_named(tensors: tuple[TensorSpec, ...], words: str) -> None:
    assert words in str(compare(PLAN, tensors, MODULES))
    with pytest.raises(StalePlan) as caught:
        check_source(PLAN, tensors)
    assert words in str(caught.value)
    assert tensors_digest(tensors) != PLAN.source.tensors


def with_attribute(name: str, value: Any) -> tuple[ModuleSpec, ...]:
    attributes = dict(MODULES[1].attributes) | {name: value}
    kept = tuple(sorted((n, v) for n, v in attributes.items() if v is not None))
    return (MODULES[0], ModuleSpec("a", kept), MODULES[2])


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (MODULES[:2], "tied: expected a module, found none"),
        ((*MODULES, ModuleSpec("new", ())), "new: expected no such module"),
        (with_attribute("mode", None), "a: expected the attribute mode = 'same', found none"),
        (with_attribute("mode", "valid"), "a: expected mode = 'same', found 'valid'"),
        (with_attribute("bias", 1), "a: expected bias = True, found 1"),
    ],
)
def test_the_first_different_module_is_named(modules: tuple[ModuleSpec, ...], words: str) -> None:
    assert words in str(compare(PLAN, TENSORS, modules))
    with pytest.raises(StalePlan) as caught:
        check_source(PLAN, TENSORS, modules)
    assert words in str(caught.value)
    assert attributes_digest(modules) != PLAN.source.attributes


def test_tensors_of_the_result_with_attributes_of_the_source_are_stale() -> None:
    with pytest.raises(StalePlan):
        check_source(PLAN, tensors_after(TENSORS, PLAN.cuts), MODULES)


def test_tensors_of_the_result_without_an_attribute_are_stale() -> None:
    after, modules = tensors_after(TENSORS, PLAN.cuts), modules_after(MODULES, PLAN.attributes)
    with pytest.raises(AlreadyApplied):
        check_source(PLAN, after, modules)
    for name in ("out_features", "shape"):  # which the plan changes, and its table lists
        fewer = tuple(
            replace(m, attributes=tuple(pair for pair in m.attributes if pair[0] != name))
            for m in modules
        )
        with pytest.raises(StalePlan):
            check_source(PLAN, after, fewer)


def test_without_modules_only_tensors_are_compared() -> None:
    assert first_difference(TENSORS, MODULES, TENSORS) is None
    assert first_difference(TENSORS, None, TENSORS, MODULES) is None
    with pytest.raises(AlreadyApplied):
        check_source(PLAN, tensors_after(TENSORS, PLAN.cuts))


def test_a_state_dict_may_lack_buffers_and_tied_names() -> None:
    shapes = shapes_of(TENSORS)
    del shapes["steps"], shapes["tied.weight"]
    check_state_dict(PLAN, shapes)
    del shapes["a.weight"]
    with pytest.raises(StalePlan, match=r"a\.weight: expected a parameter of shape \(6, 1\)"):
        check_state_dict(PLAN, shapes)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("b.weight", (6, 13), "b.weight: expected shape (6, 12), found (6, 13)"),
        ("tied.weight", (5, 1), "tied.weight: expected shape (6, 1), found (5, 1)"),
        ("new", (2,), "new: expected no such tensor, found one of shape (2,)"),
    ],
)
def test_another_state_dict_is_stale(name: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(StalePlan) as caught:
        check_state_dict(PLAN, shapes_of(TENSORS) | {name: shape})
    assert words in str(caught.value)


def test_the_structure_does_not_depend_on_what_people_read() -> None:
    described = [replace(group, kind="other", mixing="other", removed=()) for group in PLAN.groups]
    assert structure_digest(described) == PLAN.source.structure
    smaller = [replace(group, members=group.members[:1]) for group in PLAN.groups]
    assert structure_digest(smaller) != PLAN.source.structure


def test_digests_are_those_of_the_packed_rows() -> None:
    assert tensors_digest(()) == attributes_digest(()) == structure_digest(()) == sha256().digest()
    modules = (ModuleSpec("b", (("y", 1), ("x", 2))), ModuleSpec("a", ()))
    rows = [("a", []), ("b", [("x", 2), ("y", 1)])]
    assert attributes_digest(modules) == sha256(b"".join(map(canonical, rows))).digest()
    tensors = (TensorSpec(("w", "t"), (2, 3), "parameter"), TensorSpec(("b",), (), "buffer"))
    named = [(["b"], [], "buffer"), (["t", "w"], [2, 3], "parameter")]
    assert tensors_digest(tensors) == sha256(b"".join(map(canonical, named))).digest()


def test_what_is_pruned_from_a_structure_names_another() -> None:
    source = PLAN.source.structure
    named = {
        pruned_structure(source, removed)
        for removed in (((),), ((1,),), ((1, 2),), ((1,), (2,)), ((), ()))
    }
    assert len(named) == 5
    assert pruned_structure(source, ((1,),)) == sha256(source + b"\x91\x91\x01").digest()
    assert source not in named


def test_attributes_that_a_table_does_not_list_are_not_missed() -> None:
    for name in ("width", "config.width"):
        more = (MODULES[0], with_attribute(name, 3)[1], MODULES[2])
        assert compare(PLAN, TENSORS, more) is None
        assert compare(PLAN.replace(modules=more), TENSORS, MODULES) == (
            f"a: expected the attribute {name} = 3, found none"
        )


def test_another_class_is_named_before_any_attribute() -> None:
    known = (MODULES[0], with_attribute(CLASS, "Linear")[1], MODULES[2])
    other = (MODULES[0], with_attribute(CLASS, "Conv1d")[1], MODULES[2])
    assert lists_classes(known)
    assert not lists_classes(MODULES)
    plan = PLAN.replace(modules=known)
    assert compare(plan, TENSORS, known) is None
    assert compare(plan, TENSORS, other) == "a: expected a Linear, found a Conv1d"
    for one, modules in ((plan, MODULES), (PLAN, other)):  # an older plan does not say
        assert compare(one, TENSORS, modules) is None


def test_tables_join_and_meet() -> None:
    first = (ModuleSpec("", (("a", 1),)), ModuleSpec("x", (("b", 2), ("c", 3))))
    second = (ModuleSpec("x", (("a", 0), ("c", 9))), ModuleSpec("y", (("d", 4),)))
    assert joined(first, second) == (
        ModuleSpec("", (("a", 1),)),
        ModuleSpec("x", (("a", 0), ("b", 2), ("c", 3))),
    )
    assert shared(first, second) == (ModuleSpec("", (("a", 1),)), ModuleSpec("x", (("c", 3),)))
    changes = [AttributeChange("x", "b", 2, 1), AttributeChange("x", "a", 5, 6)]
    assert modules_before(changes) == (ModuleSpec("x", (("a", 5), ("b", 2))),)
    added = AttributeChange("y", "d", None, 4)
    assert modules_before([*changes, added]) == modules_before(changes)
    assert modules_before([]) == ()


def test_shapes_depend_on_their_order_and_on_numbers() -> None:
    steps = [("aten.relu", [(2, 3)], ()), ("aten.add", [(2, 3), (1,)], (0.5,))]
    assert shapes_digest(steps) == shapes_digest(iter(steps))
    assert shapes_digest(steps) != shapes_digest(reversed(steps))
    assert shapes_digest(steps) != shapes_digest([steps[0], (*steps[1][:2], (0.25,))])


def test_attributes_that_plans_change_unlisted_do_not_matter() -> None:
    plan = complete(TENSORS, MODULES, PLAN.groups, PLAN.attributes[1:2])
    assert plan.result.attributes == plan.source.attributes
