"""What verification says of a plan, a module or a graph that is not what the removals lead to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import fx, nn

import planc
from planc.analysis import Analysis
from planc.apply.validate import (
    check_structure,
    compare_shapes,
    deciding_alike,
    shapes_digest,
    validate,
)
from planc.compile.select import write_plan
from planc.errors import StalePlan, TraceError, VerificationError
from planc.ir.graph import Ref
from planc.ir.groups import Over
from planc.plan.plan import ModuleSpec, Plan
from planc.verify import structure
from planc.verify.structure import (
    as_planned,
    check_graph,
    check_modules,
    check_plan,
    check_shapes,
    check_source,
    unreached,
)
from planc.verify.tensors import check_tensors

CALL: Any = ((torch.zeros(2, 3),), {})
X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Two groups: four features, then six."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("unseen", torch.zeros(1), persistent=False)
        self.rate, self.held = 0.5, [1, (2.0, None)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.relu(self.mid(torch.relu(self.up(x)))))
        return y


def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


MODEL = small()
PLAN = planc.compile(MODEL, X, ratio=0.5)
GRAPH_PLAN = planc.compile(MODEL, X, ratio=0.5, target="graph")
ANALYSIS = planc.analyze(planc.trace(MODEL, X))
GONE = ANALYSIS.gone([group.removed for group in PLAN.groups])


def pruned() -> nn.Module:
    return planc.apply(PLAN, MODEL)


def with_group(number: int, **changes: Any) -> Plan:
    groups = list(PLAN.groups)
    groups[number] = replace(groups[number], **changes)
    return PLAN.replace(groups=tuple(groups))


# -- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (with_group(0, name="other"), "group other: the plan's name is other, the model's is up."),
        (with_group(0, kind="heads"), "the plan's kind is heads, the model's is "),
        (with_group(1, size=7), "the plan's size is 7, the model's is 6; compile the plan again"),
        (with_group(0, rows=2), "the plan's rows is 2, the model's is 1; compile the plan again"),
        (with_group(0, members=PLAN.groups[0].members[:1]), "the plan's members is "),
        (with_group(0, members=PLAN.groups[0].members * 9), "..., the model's is "),
        (PLAN.replace(groups=PLAN.groups[:1]), "the plan has 1 groups, the model 2"),
        (PLAN.replace(groups=(*PLAN.groups, PLAN.groups[0])), "the plan has 3 groups, the model 2"),
        (with_group(0, removed=(2, 1)), "removed units are not sorted and in range"),
        (with_group(0, removed=(1, 1)), "removed units are not sorted and in range"),
        (with_group(0, removed=(1, 4)), "removed units are not sorted and in range"),
        (with_group(0, removed=(0, 1, 9)), "removed units are not sorted and in range"),
        (with_group(0, removed=(-1, 1)), "removed units are not sorted and in range"),
        (PLAN.replace(target="moon"), 'the plan\'s target is \'moon\', not "module" or "graph"'),
        (with_group(0, removed=(0, 1, 2, 3)), "the plan breaks a constraint: "),
        (with_group(0, removed=(0,)), "the plan's attributes differ from what its removals lead"),
        (with_group(0, mixing="odd"), "the plan's groups differ from what its removals lead to: "),
        (
            PLAN.replace(tensors=PLAN.tensors[1:]),
            "the plan's tensors differ from what its removals",
        ),
        (PLAN.replace(attributes=PLAN.attributes[:-1]), "attributes differ from what its removals"),
        (PLAN.replace(shapes=bytes(32)), "the plan's shapes differ from what its removals lead to"),
        (PLAN.replace(requires=("magic",)), "the plan's requires differ from what its removals"),
        (PLAN.replace(inputs=("tuple",)), "the plan's inputs differ from what its removals lead"),
        (PLAN.replace(cost_after=PLAN.cost_before), "the plan's cost_after differ from what its"),
        (PLAN.replace(cost_before=PLAN.cost_after), "the plan's cost_before differ from what its"),
        (PLAN.replace(source=PLAN.result), "the plan's source differ from what its removals lead"),
        (
            PLAN.replace(result=replace(PLAN.result, attributes=bytes(32))),
            "the plan's fingerprint of the result's attributes is wrong",
        ),
        (
            PLAN.replace(result=replace(PLAN.result, tensors=bytes(32))),
            "the plan's fingerprint of the result's tensors is wrong",
        ),
        (
            PLAN.replace(result=replace(PLAN.result, structure=bytes(32))),
            "the plan's fingerprint of the result's structure is wrong",
        ),
    ],
)
def test_a_plan_that_its_removals_do_not_lead_to_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        check_plan(plan, ANALYSIS)
    assert words in str(caught.value)


def test_what_differs_is_shown_beside_what_was_expected() -> None:
    def said(plan: Plan) -> str:
        with pytest.raises(VerificationError) as caught:
            check_plan(plan, ANALYSIS)
        return str(caught.value).rpartition("lead to: ")[2]

    change = PLAN.attributes[0]
    other = PLAN.replace(attributes=(replace(change, after=1), *PLAN.attributes[1:]))
    assert said(other) == f"{replace(change, after=1)}, expected {change}"
    assert said(PLAN.replace(attributes=())) == f"0 entries, expected {len(PLAN.attributes)}"
    assert said(PLAN.replace(requires=("x" * 300,))) == "1 entries, expected 0"
    costs = f"{PLAN.cost_after}, expected {PLAN.cost_before}"
    assert said(PLAN.replace(cost_before=PLAN.cost_after)) == costs
    long = said(PLAN.replace(tensors=(replace(PLAN.tensors[0], names=("n" * 300,)),)))
    shown = long.partition(", expected ")[0]
    assert len(shown) == 200
    assert shown.endswith("nnn...")


@pytest.mark.parametrize(
    ("planned", "derived", "words"),
    [
        (5, (1,), "5, expected (1,)"),
        ((1,), 5, "(1,), expected 5"),
        ((1, 2), (1, 3), "2, expected 3"),
        ((1, 2), (1,), "2 entries, expected 1"),
        ("a" * 200, "b" * 201, f"{'a' * 200}, expected {'b' * 197}..."),
    ],
)
def test_the_first_difference_is_shown(planned: Any, derived: Any, words: str) -> None:
    assert structure._first_difference(planned, derived) == words


def test_the_first_and_the_last_unit_may_leave() -> None:
    plan = write_plan(ANALYSIS, ((0, 3), (0, 5)), "module", "l2", "by hand")
    assert check_plan(plan, ANALYSIS) == "the plan's 2 groups are those of a fresh analysis"


def test_a_composed_plans_result_may_be_named_otherwise() -> None:
    composed = PLAN.replace(
        provenance=PLAN.provenance * 2, result=replace(PLAN.result, structure=bytes(32))
    )
    assert check_plan(composed, ANALYSIS) == "the plan's 2 groups are those of a fresh analysis"
    assert check_plan(PLAN, ANALYSIS) == "the plan's 2 groups are those of a fresh analysis"


def test_a_composed_plan_for_a_graph_has_the_shapes_of_its_last_part() -> None:
    plan = planc.compile(small(), X, ratio=0.5, target="graph").replace(shapes=bytes(32))
    with pytest.raises(VerificationError, match="the plan's shapes differ from what its removals"):
        check_plan(plan, ANALYSIS)
    with pytest.raises(VerificationError, match="the plan's shapes differ from what its removals"):
        check_plan(PLAN.replace(provenance=PLAN.provenance * 2, shapes=bytes(32)), ANALYSIS)
    composed = plan.replace(provenance=plan.provenance * 2)
    assert check_plan(composed, ANALYSIS) == "the plan's 2 groups are those of a fresh analysis"


def test_a_plan_whose_members_do_not_fit_its_own_tensors_contradicts_itself() -> None:
    member = PLAN.groups[0].members[0]
    lost = with_group(0, members=(replace(member, tensor="none"), *PLAN.groups[0].members[1:]))
    with pytest.raises(VerificationError, match="the plan contradicts itself: "):
        check_source(lost, pruned())
    ragged = replace(PLAN.groups[0].members[1], over=Over(0, 0, 1))
    uncovered = with_group(0, members=(PLAN.groups[0].members[0], ragged))
    with pytest.raises(VerificationError, match=r"the plan contradicts itself: .* do not cover"):
        check_source(uncovered, pruned())
    check_source(PLAN, MODEL)


def test_inputs_that_the_plans_inputs_disagree_with_are_refused() -> None:
    assert as_planned(PLAN, MODEL, ANALYSIS) is ANALYSIS
    wide = planc.analyze(planc.trace(MODEL, torch.zeros(7, 3)))
    again = as_planned(PLAN, MODEL, wide)
    assert again is not wide
    assert again.graph.input_spec == PLAN.inputs
    spec = ("tuple", ("tuple", ("tensor", (2, 5), "float32")), ("dict",))
    with pytest.raises(VerificationError, match="the model does not run on the plan's inputs: "):
        as_planned(PLAN.replace(inputs=spec), MODEL, ANALYSIS)


def test_a_plan_of_other_groups_is_stale_where_the_model_decides_by_values() -> None:
    deciding = replace(ANALYSIS, graph=replace(ANALYSIS.graph, data_dependent=True))
    plan = PLAN.replace(inputs=("tuple",))
    assert as_planned(plan, MODEL, deciding) is deciding
    with pytest.raises(StalePlan, match="its groups are not: their members differ"):
        as_planned(plan.replace(source=replace(PLAN.source, structure=bytes(32))), MODEL, deciding)


class Either(nn.Module):
    """Another layer on small batches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.a(x) if x.shape[0] > 4 else self.b(x))
        return y


class First(nn.Module):
    """Calls one of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.a(x)
        return y


def test_inputs_on_which_the_model_has_other_groups_are_refused() -> None:
    model = Either().eval()
    few, many = torch.zeros(2, 3), torch.zeros(8, 3)
    plan = planc.compile(model, few, ratio=0.5)
    with pytest.raises(VerificationError, match="on these inputs the model has other groups than"):
        as_planned(plan, model, planc.analyze(planc.trace(model, many)))


def test_tensors_that_no_run_reached_are_named() -> None:
    assert unreached(ANALYSIS) == ""
    model = Either().eval()
    few = planc.analyze(planc.trace(model, torch.zeros(2, 3)))
    assert unreached(few) == (
        "2 tensors were not reached and stay whole (a.weight, a.bias): what runs on inputs that "
        "reach them is not known"
    )
    found = unreached(planc.analyze(planc.trace(First(), torch.zeros(1, 2))))
    assert found.startswith(
        "4 tensors were not reached and stay whole (b.weight, b.bias, c.weight,"
    )
    assert "c.weight, ...)" in found


@pytest.mark.parametrize(
    ("names", "shown"),
    [("a", "a"), ("abc", "a, b, c"), ("aabc", "a, b, c"), ("abcd", "a, b, c, ...")],
)
def test_three_of_the_tensors_that_no_run_reached_are_named(names: str, shown: str) -> None:
    pins = [SimpleNamespace(tensor=name, reason="not used by the traced run") for name in names]
    others = [SimpleNamespace(tensor="z", reason="its rows are shared")]
    analysis: Any = SimpleNamespace(pins=[*pins, *others])
    found = unreached(analysis)
    assert found.startswith(f"{len(set(names))} tensors were not reached and stay whole ({shown}):")


# -- modules --------------------------------------------------------------------------------------


def test_a_module_that_is_as_planned_is_accepted() -> None:
    assert check_modules(PLAN, MODEL, pruned(), CALL) == (
        f"structural attributes of 4 modules, {len(PLAN.attributes)} of them new"
    )


def edited(edit: Callable[[Any], object]) -> nn.Module:
    smaller = pruned()
    edit(smaller)
    return smaller


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.up.train(), "up: training is True, was False"),
        (lambda m: m.up.register_forward_pre_hook(print), "up: _forward_pre_hooks is 1, was 0"),
        (lambda m: m.register_buffer("unseen", torch.zeros(1)), "_non_persistent_buffers_set is "),
        (lambda m: setattr(m.up, "out_features", 4), "up: expected out_features = 2, found 4"),
        (
            lambda m: setattr(m, "up", nn.Bilinear(3, 3, 2)),
            "up: expected a Linear, found a Bilinear",
        ),
    ],
)
def test_an_attribute_that_is_not_as_planned_is_named(
    edit: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(VerificationError) as caught:
        check_modules(PLAN, MODEL, edited(edit), CALL)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: setattr(m, "rate", 0.25),
        lambda m: delattr(m, "rate"),
        lambda m: setattr(m, "held", [1, (2.0, True)]),
        lambda m: setattr(m.up, "calls", 7),
        lambda m: setattr(m.up, "shape", torch.Size([2, 3])),
        lambda m: setattr(m, "_seen", 1),
        lambda m: setattr(m.mid, "wall_hooks", 5.5),
        lambda m: setattr(m, "table", {"a": object()}),
    ],
)
def test_what_no_size_depends_on_is_not_compared(edit: Callable[[Any], object]) -> None:
    told = check_modules(PLAN, MODEL, pruned(), CALL)
    assert check_modules(PLAN, MODEL, edited(edit), CALL) == told
    used = small()
    edit(used)
    assert check_modules(PLAN, used, pruned(), CALL) == told


class Hooking(Small):
    """Its first run installs a hook."""

    hooked = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hooked:
            self.hooked = True
            self.mid.register_forward_hook(lambda *_: None)
        return super().forward(x)


def test_hooks_that_a_run_installs_are_no_difference() -> None:
    fresh, used = Hooking().eval(), Hooking().eval()
    plan = planc.compile(fresh, X, ratio=0.5)
    smaller, ran = planc.apply(plan, fresh), planc.apply(plan, fresh)
    for model in (used, ran):
        model(X)
    for model, result in ((fresh, ran), (used, smaller), (used, ran), (fresh, smaller)):
        assert check_modules(plan, model, result, CALL)
        result.up.register_forward_hook(print)
        with pytest.raises(VerificationError, match="up: _forward_hooks is 1, was 0"):
            check_modules(plan, model, result, CALL)
        result.up._forward_hooks.clear()


def test_a_hook_that_a_copy_lost_is_named_even_where_the_model_does_not_run() -> None:
    model = small()
    model.mid.register_forward_hook(print)
    with pytest.raises(VerificationError, match="mid: _forward_hooks is 0, was 1"):
        check_modules(PLAN, model, pruned(), ((None,), {"no": "such"}))


def test_another_class_is_named() -> None:
    class Other(Small):
        pass

    other = pruned()
    other.__class__ = Other
    with pytest.raises(
        VerificationError, match="the pruned model is a Other, the original a Small"
    ):
        check_modules(PLAN, MODEL, other, CALL)

    class Layer(nn.Linear):
        pass

    inner = pruned()
    inner.mid.__class__ = Layer
    with pytest.raises(VerificationError, match="mid: expected a Linear, found a Layer"):
        check_modules(PLAN, MODEL, inner, CALL)
    inner.mid.__class__ = type("Linear", (nn.Linear,), {})  # another class of that name
    with pytest.raises(VerificationError, match="mid is a Linear, was a Linear"):
        check_modules(PLAN, MODEL, inner, CALL)


def test_graph_modules_are_alike_if_their_code_is() -> None:
    traced = fx.symbolic_trace(MODEL)
    assert structure._alike(traced, copy.deepcopy(traced))
    other = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    assert not structure._alike(traced, other)
    assert not structure._alike(traced, MODEL)
    assert not structure._alike(MODEL, traced)
    assert structure._alike(MODEL, small())


# -- graphs ---------------------------------------------------------------------------------------


def graphs() -> tuple[fx.GraphModule, fx.GraphModule]:
    first = planc.apply(GRAPH_PLAN, MODEL)
    assert isinstance(first, fx.GraphModule)
    return first, copy.deepcopy(first)


def test_a_graph_that_is_not_the_rewritten_one_is_refused() -> None:
    reference, found = graphs()
    count = len(list(found.graph.nodes))
    said = f"the {count} nodes of the graph are those of the rewritten one"
    assert check_graph(GRAPH_PLAN, reference, found) == said
    with pytest.raises(VerificationError, match="the pruned model is a Small, the plan is for a"):
        check_graph(GRAPH_PLAN, reference, MODEL)
    relu = next(n for n in found.graph.nodes if "relu" in str(n.target))
    relu.target = torch.ops.aten.tanh.default
    with pytest.raises(
        VerificationError,
        match=r"has call_function tanh\.default \(.*, expected call_function relu\.default \(",
    ):
        check_graph(GRAPH_PLAN, reference, found)
    reference, found = graphs()
    weights = [n for n in found.graph.nodes if n.op == "get_attr"]
    weights[0].target, weights[1].target = weights[1].target, weights[0].target
    with pytest.raises(VerificationError) as caught:
        check_graph(GRAPH_PLAN, reference, found)
    names = (weights[0].target, weights[1].target)
    assert str(
        caught.value
    ) == "the graph has get_attr {} () {{}}, expected get_attr {} () {{}}".format(*names)
    reference, found = graphs()
    output = next(n for n in reference.graph.nodes if n.op == "output")
    reference.graph.erase_node(output)
    with pytest.raises(
        VerificationError, match=f"the graph has {count} nodes, expected {count - 1}"
    ):
        check_graph(GRAPH_PLAN, reference, found)
    reference, found = graphs()
    found.train()
    with pytest.raises(VerificationError, match="training is True, was False"):
        check_graph(GRAPH_PLAN, reference, found)


class Block(nn.Module):
    """What a graph calls as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rate = nn.Linear(2, 2), 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y


class Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return isinstance(m, Block)


def called() -> tuple[fx.GraphModule, fx.GraphModule]:
    """Two graphs that call a module."""
    torch.manual_seed(0)
    root = nn.Sequential(Block(), nn.ReLU())
    made = fx.GraphModule(root, Leaves().trace(root))
    return made, copy.deepcopy(made)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda m: setattr(m.get_submodule("0.inner"), "in_features", 3),
            "in 0: inner: expected in_features = 2, found 3",
        ),
        (
            lambda m: delattr(m.get_submodule("0.inner"), "in_features"),
            "in 0: inner: expected the attribute in_features = 2, found none",
        ),
        (lambda m: m.get_submodule("0.inner").train(False), "0.inner: expected {'training': True"),
        (
            lambda m: setattr(m.get_submodule("0"), "inner", nn.Identity()),
            "0.inner is a Identity, w",
        ),
        (lambda m: delattr(m.get_submodule("0"), "inner"), "0.inner is a GraphModule"),
    ],
)
def test_a_module_that_a_graph_calls_is_compared(
    edit: Callable[[fx.GraphModule], object], words: str
) -> None:
    reference, found = called()
    inner = ModuleSpec("0.inner", (("class", "Linear"), ("in_features", 2)))
    plan = GRAPH_PLAN.replace(
        modules=(ModuleSpec("0", (("class", "Block"),)), inner, ModuleSpec("01", ())), attributes=()
    )
    found.get_submodule("0").rate, found.get_submodule("0.inner").calls = 1.5, 1
    assert check_graph(plan, reference, found).startswith("the ")
    edit(found)
    with pytest.raises(VerificationError) as caught:
        check_graph(plan, reference, found)
    assert words in str(caught.value)


# -- shapes ---------------------------------------------------------------------------------------


def run_of(model: nn.Module, x: torch.Tensor = X) -> Any:
    return planc.trace(model, x)


def test_a_run_as_predicted_is_accepted_and_counted() -> None:
    call = ((X,), {})
    found = run_of(pruned())
    compare_shapes(PLAN, ANALYSIS, found)
    assert shapes_digest(found) == PLAN.shapes
    validate(PLAN, MODEL, pruned(), call)
    said = check_shapes(PLAN, ANALYSIS, pruned(), call)
    assert said == f"all {len(found.nodes)} operators have the predicted shapes"
    assert deciding_alike(PLAN, ANALYSIS, pruned(), call, found) is found


class Longer(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class Otherwise(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.tanh(self.mid(torch.relu(self.up(x)))))
        return y


class Scaled(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 0.25


def as_class(kind: type[nn.Module]) -> nn.Module:
    model = pruned()
    model.__class__ = kind
    return model


@pytest.mark.parametrize(
    ("smaller", "words"),
    [
        (as_class(Longer), "the pruned model runs 6 operators, predicted 5"),
        (as_class(Otherwise), "operator 3 of the pruned model is "),
        (MODEL, "the pruned model gives shape (2, 4), predicted (2, 2)"),
    ],
)
def test_a_run_that_was_not_predicted_is_refused(smaller: nn.Module, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        compare_shapes(PLAN, ANALYSIS, run_of(smaller))
    assert words in str(caught.value)
    with pytest.raises(VerificationError) as caught:
        validate(PLAN, MODEL, smaller, ((X,), {}))
    assert words in str(caught.value)


def with_node(graph: Any, number: int, **changes: Any) -> Any:
    nodes = list(graph.nodes)
    nodes[number] = replace(nodes[number], **changes)
    return replace(graph, nodes=tuple(nodes))


def test_a_run_whose_operators_have_other_results_is_refused() -> None:
    found = run_of(pruned())
    for outputs in ((), found.nodes[2].outputs * 2):
        with pytest.raises(
            VerificationError, match=r"operator 2 of the pruned model is .*predicted"
        ):
            compare_shapes(PLAN, ANALYSIS, with_node(found, 2, outputs=outputs))
    compare_shapes(PLAN, ANALYSIS, with_node(found, 4, outputs=(None,)))
    analysis = replace(ANALYSIS, graph=with_node(ANALYSIS.graph, 4, outputs=(None,)))
    compare_shapes(PLAN, analysis, found)
    with pytest.raises(VerificationError, match="the pruned model runs 6 operators, predicted 5"):
        check_shapes(PLAN, ANALYSIS, as_class(Longer), ((X,), {}))


def shifted(graph: Any, by: int) -> Any:
    """The same graph with other numbers for its values."""

    def moved(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(moved, argument))
        return Ref(argument.id + by) if isinstance(argument, Ref) else argument

    return replace(
        graph,
        nodes=tuple(
            replace(node, args=moved(node.args), outputs=moved(node.outputs))
            for node in graph.nodes
        ),
        inputs=moved(graph.inputs),
        tensors=tuple(replace(tensor, value=tensor.value + by) for tensor in graph.tensors),
        values=graph.values[:1] * by + graph.values,
    )


def test_operators_are_compared_whatever_their_values_are_called() -> None:
    found = shifted(run_of(pruned()), 3)
    compare_shapes(PLAN, ANALYSIS, found)
    assert shapes_digest(found) == PLAN.shapes


def test_calls_that_torch_may_leave_out_are_not_compared() -> None:
    found, graph = run_of(pruned()), ANALYSIS.graph
    idle = replace(found.nodes[1], op="aten.contiguous.default")
    longer = replace(found, nodes=(*found.nodes[:2], idle, *found.nodes[2:]))
    assert shapes_digest(longer) == PLAN.shapes
    compare_shapes(PLAN, ANALYSIS, longer)
    planned = replace(graph, nodes=(*graph.nodes[:2], idle, *graph.nodes[2:]))
    compare_shapes(PLAN, replace(ANALYSIS, graph=planned), found)


def test_a_result_without_a_shape_does_not_hide_another() -> None:
    found, graph = run_of(pruned()), ANALYSIS.graph
    (ref,) = graph.nodes[2].outputs
    analysis = replace(ANALYSIS, graph=with_node(graph, 2, outputs=(None, ref)))
    (at,) = found.nodes[2].outputs
    compare_shapes(PLAN, analysis, with_node(found, 2, outputs=(None, at)))
    other = with_node(found, 2, outputs=(None, found.nodes[0].outputs[0]))
    with pytest.raises(VerificationError, match="the pruned model gives shape"):
        compare_shapes(PLAN, analysis, other)


def test_operators_of_a_graph_may_be_called_otherwise_with_other_numbers() -> None:
    """A graph names widths of its parts; what it computes is compared operator by operator."""
    found = run_of(pruned())
    given = (*found.nodes[1].args, 0.5)
    other = with_node(found, 1, op="aten.other.default", args=given)
    compare_shapes(PLAN.replace(target="graph"), ANALYSIS, other)
    with pytest.raises(VerificationError) as caught:
        compare_shapes(PLAN, ANALYSIS, other)
    words = (
        f"operator 1 of the pruned model is {other.nodes[1]}, predicted {ANALYSIS.graph.nodes[1]}"
    )
    assert str(caught.value) == words


def test_numbers_are_compared_in_modules_that_do_not_decide_by_values() -> None:
    model = Scaled().eval()
    plan = planc.compile(model, X, ratio=0.5)
    analysis = planc.analyze(run_of(model))
    found = run_of(planc.apply(plan, model))
    number = len(found.nodes) - 1
    other = with_node(found, number, args=(found.nodes[number].args[0], 0.5))
    compare_shapes(plan.replace(target="graph"), analysis, other)
    deciding = replace(analysis, graph=replace(analysis.graph, data_dependent=True))
    compare_shapes(plan, deciding, other)
    with pytest.raises(VerificationError, match=r"computes with 0\.5, the original with 0\.25"):
        compare_shapes(plan, analysis, other)


def test_flags_and_words_of_operators_are_compared() -> None:
    found = run_of(pruned())
    for more in (True, "same"):
        given = (*found.nodes[1].args, more)
        with pytest.raises(VerificationError, match="computes with the options"):
            compare_shapes(PLAN, ANALYSIS, with_node(found, 1, args=given))


def test_a_number_of_unknown_origin_must_be_what_it_was() -> None:
    model = Scaled().eval()
    plan = planc.compile(model, X, ratio=0.5)
    analysis = planc.analyze(run_of(model))
    smaller = planc.apply(plan, model)
    compare_shapes(plan, analysis, run_of(smaller))

    class Halved(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0.5

    smaller.__class__ = Halved
    with pytest.raises(
        VerificationError, match=r"the pruned model computes with 0\.5, the original with 0\.25"
    ):
        compare_shapes(plan, analysis, run_of(smaller))


@torch.library.custom_op("planc_tests::counted", mutates_args=())
def counted(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    return x.clone(), x.shape[0]


@counted.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    return torch.empty_like(x), x.shape[0]


class Counting(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = counted(super().forward(x))[0]
        return y


def test_results_that_are_no_tensors_have_no_shape() -> None:
    model = Counting().eval()
    plan = planc.compile(model, X, ratio=0.5)
    said = str(planc.verify(plan, model, planc.apply(plan, model), X))
    assert "all 6 operators have the predicted shapes" in said


def test_a_model_that_does_not_run_is_refused() -> None:
    broken = pruned()
    broken.mid = nn.Linear(9, 3)
    for check in (
        lambda: validate(PLAN, MODEL, broken, ((X,), {})),
        lambda: deciding_alike(PLAN, ANALYSIS, broken, ((X,), {})),
    ):
        with pytest.raises(VerificationError, match="the pruned model does not run: ") as caught:
            check()
        assert isinstance(caught.value.__cause__, TraceError)


def test_a_plan_of_other_groups_is_stale_where_shapes_are_not_as_predicted() -> None:
    plan = PLAN.replace(source=replace(PLAN.source, structure=bytes(32)))
    with pytest.raises(StalePlan, match="its groups are not: their members differ"):
        validate(plan, MODEL, MODEL, ((X,), {}))


def test_other_groups_make_a_plan_stale_and_the_first_is_named() -> None:
    check_structure(PLAN, ANALYSIS)
    first, second = PLAN.groups

    def said(plan: Plan, analysis: Analysis = ANALYSIS) -> str:
        digest = replace(plan.source, structure=bytes(32))
        with pytest.raises(StalePlan) as caught:
            check_structure(plan.replace(source=digest), analysis)
        return str(caught.value)

    assert ": their members differ; compile a plan for this model, or give" in said(PLAN)
    assert said(PLAN).endswith("give inputs of the shapes that it was compiled with")
    fewer = said(PLAN.replace(groups=(first,)))
    assert f"expected none, found {ANALYSIS.groups[1]};" in fewer
    renamed = said(PLAN.replace(groups=(replace(first, name="zz"), second)))
    assert f"expected {replace(first, name='zz')}, found none;" in renamed
    resized = replace(first, size=9)
    for other in (second, replace(second, size=9)):
        assert f"expected {resized}, found {ANALYSIS.groups[0]};" in said(
            PLAN.replace(groups=(resized, other))
        )
    deciding = replace(ANALYSIS, graph=replace(ANALYSIS.graph, data_dependent=True))
    assert said(PLAN, deciding).endswith(
        "give inputs on which it runs as on those that it was compiled with"
    )


# -- tensors --------------------------------------------------------------------------------------


def test_tensors_that_are_the_kept_slices_are_accepted() -> None:
    assert (
        check_tensors(ANALYSIS, GONE, MODEL, pruned()) == "7 tensors hold exactly the kept values"
    )


def test_how_a_dimension_of_one_lies_in_memory_is_no_difference() -> None:
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.zeros(2, 1)
    plan = planc.compile(model, x, ratio=0.5)
    analysis = planc.analyze(run_of(model, x))
    gone = analysis.gone([group.removed for group in plan.groups])
    smaller = planc.apply(plan, model)
    weight = smaller[0].weight
    smaller[0].weight = nn.Parameter(weight.detach().as_strided((2, 1), (1, 5)))
    check_tensors(analysis, gone, model, smaller)


def moved(smaller: Any) -> None:
    smaller.mid.weight = nn.Parameter(smaller.mid.weight.t().contiguous().t())


def buffered(model: Any) -> None:
    bias = model.up.bias.detach()
    del model.up.bias
    model.up.register_buffer("bias", bias)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m.register_buffer("new", X), "the pruned model has other tensors: new"),
        (lambda m: m._buffers.pop("unseen"), "the pruned model has other tensors: unseen"),
        (lambda m: setattr(m.up, "bias", m.down.bias), "up.bias: its values are not the kept ones"),
        (
            lambda m: setattr(m.up, "bias", nn.Parameter(torch.zeros(3))),
            "up.bias has shape (3,), pr",
        ),
        (buffered, "up.bias is a buffer, was a parameter"),
        (lambda m: m.up.bias.requires_grad_(False), "up.bias: requires_grad is False, was True"),
        (lambda m: m.up.bias.data.add_(1), "up.bias: its values are not the kept ones, in order"),
        (lambda m: m.up.bias.data.mul_(-1), "up.bias: its values are not the kept ones, in order"),
        (lambda m: m.double(), "dtype is torch.float64, was torch.float32"),
        (moved, "mid.weight: its memory format has changed, strides are "),
    ],
)
def test_a_tensor_that_is_not_the_kept_slice_is_named(
    edit: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(VerificationError) as caught:
        check_tensors(ANALYSIS, GONE, MODEL, edited(edit))
    assert words in str(caught.value)


def test_values_are_compared_by_their_bits() -> None:
    model = small()
    whole = planc.compile(model, X, ratio=0.0)
    with torch.no_grad():
        model.up.bias.copy_(torch.tensor([torch.nan, 0.0, -0.0, torch.inf]))
        model.register_buffer("unseen", torch.tensor([0.0, 1.0, 2.0])[::4])
    analysis = planc.analyze(run_of(model))
    gone = analysis.gone([group.removed for group in whole.groups])
    smaller = planc.apply(whole, model)
    check_tensors(analysis, gone, model, smaller)
    smaller.up.bias.data[1] = -0.0
    with pytest.raises(VerificationError, match=r"up\.bias: its values are not the kept ones"):
        check_tensors(analysis, gone, model, smaller)


def test_no_more_than_five_other_tensors_are_named() -> None:
    def more(smaller: Any) -> None:
        for number in range(7):
            smaller.register_buffer(f"new{number}", torch.zeros(1))

    with pytest.raises(VerificationError, match=r"other tensors: new0, new1, new2, new3, new4$"):
        check_tensors(ANALYSIS, GONE, MODEL, edited(more))


class Odd(nn.Module):
    """Has empty tensors, first and last, and a buffer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(0))
        self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("again", self.scale)
        self.register_buffer("last", torch.zeros(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.relu(self.up(x)) * self.scale * self.again)
        return y


def odd(device: str = "cpu") -> tuple[Any, Any, Callable[[], str]]:
    """A model, what is left of it, and the comparison of their tensors."""
    model = Odd().eval().to(device)
    x = X.to(device)
    plan = planc.compile(model, x, ratio=0.5, criterion="random")
    analysis = planc.analyze(run_of(model, x))
    gone = analysis.gone([group.removed for group in plan.groups])
    smaller = planc.apply(plan, model)
    return model, smaller, lambda: check_tensors(analysis, gone, model, smaller)


def test_empty_and_tied_tensors_are_compared_with_the_others() -> None:
    model, smaller, check = odd()
    assert smaller.scale is smaller.again
    assert check() == "7 tensors hold exactly the kept values"
    smaller.down.bias = nn.Parameter(model.down.bias.detach())
    with pytest.raises(VerificationError, match=r"down\.bias shares memory with the original's"):
        check()


def test_tensors_without_values_are_compared_but_for_their_values() -> None:
    _, smaller, check = odd("meta")
    assert check() == "8 tensors hold exactly the kept values"  # the copy there ties no buffers
    smaller.down.bias.requires_grad_(False)
    with pytest.raises(VerificationError, match=r"down\.bias: requires_grad is False, was True"):
        check()


def test_memory_is_shared_with_nothing_that_it_was_not_shared_with() -> None:
    def shared(smaller: Any) -> None:
        memory = torch.cat([smaller.up.bias.detach(), smaller.down.bias.detach()])
        smaller.up.bias = nn.Parameter(memory[:2])
        smaller.down.bias = nn.Parameter(memory[2:])

    with pytest.raises(
        VerificationError, match=r"down\.bias shares memory with up\.bias, which it did not before"
    ):
        check_tensors(ANALYSIS, GONE, MODEL, edited(shared))

    def original(smaller: Any) -> None:
        smaller.down.bias = nn.Parameter(MODEL.down.bias.detach())

    with pytest.raises(
        VerificationError, match=r"down\.bias shares memory with the original's down\.bias"
    ):
        check_tensors(ANALYSIS, GONE, MODEL, edited(original))
