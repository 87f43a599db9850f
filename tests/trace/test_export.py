"""Exported graphs, and graphs that users give: where torch can export a model, both graphs lead to
the same groups. An exported program or a graph module is planned, applied to and verified like any
model.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

import planc
from planc.errors import TraceError
from planc.modules.nesting import leaves
from tests.exported import export
from tests.programs import write
from tests.scripts.frontends import both, difference
from tests.support.proving import Net, prove, prunable, randomise
from tests.support.small import MODELS, build
from tests.zoo import torchvision as zoo

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block with heads, all of whose sizes come from attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim = 4, 4
        self.qk, self.out = nn.Linear(8, 32), nn.Linear(16, 8)
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
        self.last = nn.Linear(8, 3)
        self.scale = nn.Buffer(torch.full((32,), 2.0), persistent=False)

    def forward(self, x: Tensor, gate: bool = True) -> Any:
        with torch.no_grad():
            q, k = (self.qk(x) * self.scale).chunk(2, -1)
        shape = (x.shape[0], x.shape[1], self.heads, self.dim)
        q, k = (t.view(shape).transpose(1, 2) for t in (q, k))
        x = x + self.out((q + k.softmax(2)).transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm(x))
        return {"y": self.last(x), "size": 3, "rest": (x.sum(), None)}


class OneInput(Net):
    """As torch.fx wants it: a forward whose arguments have names."""

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def block() -> Block:
    model = Block().eval()
    randomise(model, seed=0)
    return model


def exported(model: nn.Module, *args: Any, **named: Any) -> torch.export.ExportedProgram:
    return torch.export.export(model, args, named, strict=False)


# -- the differential test ---------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(MODELS))
def test_both_front_ends_find_the_groups_of_small_models(name: str) -> None:
    model, args = build(name)
    recorded, found = both(model.eval(), args)
    assert (recorded.frontend, found.frontend) == ("record (meta tensors)", "export")
    assert difference(recorded, found) == ""


@pytest.mark.parametrize("seed", range(100, 112))
def test_both_front_ends_find_the_groups_of_random_programs(seed: int) -> None:
    program = write(seed, length=5)
    assert difference(*both(program.model(), program.inputs())) == "", program.text


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "raft_small"])
def test_both_front_ends_find_the_groups_of_the_zoo(name: str) -> None:
    recorded, found = both(zoo.unweighted(name).eval(), zoo.example_inputs(name))
    assert difference(recorded, found) == ""
    assert found.groups


def test_training_mode_writes_to_statistics_in_both() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Dropout(), nn.Conv2d(6, 2, 1))
    assert difference(*both(net.train(), torch.randn(2, 3, 4, 4))) == ""


def test_the_differential_test_finds_a_group_that_differs() -> None:
    recorded, _ = both(block(), X)
    _, other = both(Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(8, 6), b=nn.Linear(6, 2)), X)
    assert difference(recorded, other).startswith("qk.weight:0")


# -- the exported graph ------------------------------------------------------------------------


def test_wrapped_regions_are_inlined_and_calls_know_their_place() -> None:
    graph = export(block(), X)
    assert [node.op for node in graph.nodes[:3]] == [
        "aten.linear.default",
        "aten.mul.Tensor",
        "aten.chunk.default",
    ]
    assert graph.nodes[0].module == "qk"
    assert graph.nodes[1].where.startswith(__file__)
    assert {module.path for module in graph.modules.values()} >= {"", "mlp.1", "norm"}


def test_inputs_and_outputs_are_those_of_a_recorded_run() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor, *, b: dict[str, Tensor], a: Tensor) -> Any:
            return {"first": (a, x + b["k"]), "none": None}, [b["k"] * a]

    kwargs = {"a": torch.ones(3, 1), "b": {"k": torch.ones(1, 4)}}
    one = planc.trace(Nested(), torch.ones(3, 4), kwargs)
    two = export(Nested(), torch.ones(3, 4), kwargs)
    for refs in ("inputs", "outputs"):
        shapes = [[g.values[ref.id].shape for ref in getattr(g, refs)] for g in (one, two)]
        assert shapes[0] == shapes[1]
    assert list(map(type, leaves(one.output_spec))) == list(map(type, leaves(two.output_spec)))
    assert one.input_spec == two.input_spec


def test_what_follows_from_integer_buffers_is_known() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Buffer(torch.tensor([2, 0, 1]))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, (self.at + torch.tensor(1)).flip(0)]

    graphs = [trace(Indexed(), torch.ones(2, 5)) for trace in (planc.trace, export)]
    known = [[tuple(c.reshape(-1).tolist()) for c in g.constants.values()] for g in graphs]
    assert (2, 1, 3) in known[0]
    assert (2, 1, 3) in known[1]


def test_a_model_that_cannot_be_exported_says_so() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(TraceError, match="Deciding could not be exported: "):
        export(Deciding(), X)


# -- given graphs ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["module", "graph", None])
def test_an_exported_program_is_planned_applied_and_verified(target: Any) -> None:
    program = exported(block(), X, gate=True)
    plan = planc.compile(program, ratio=0.5, target=target)
    assert plan.target == (target or "graph")  # its sizes are literals, which only a graph can lose
    removed = {group.name: len(group.removed) for group in plan.groups}
    assert removed["mlp.0.weight:0"] == 6
    assert any(removed[name] for name in removed if name.startswith("qk")) == (target != "module")
    smaller = planc.apply(plan, program)
    assert isinstance(smaller, torch.fx.GraphModule)
    report = planc.verify(plan, program, smaller)
    assert report.error is not None or report.mixing
    assert sum(p.numel() for p in smaller.parameters()) == plan.cost_after.params
    assert smaller(X, gate=True)["size"] == 3


def test_the_weights_of_a_program_are_left_as_they_are() -> None:
    program = exported(block(), X)
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    planc.apply(planc.compile(program, ratio=0.5), program)
    masked = planc.mask(planc.compile(program, ratio=0.5), program)
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.state_dict.items())
    assert (masked.get_parameter("mlp.0.weight") == 0).all(1).sum() == 6


def test_dynamic_sizes_of_a_program_are_followed() -> None:
    net = OneInput(
        lambda m, x: m.b(m.a(x).view(x.shape[0] * x.shape[1], m.n)).view(x.shape[0], -1, 2),
        a=nn.Linear(8, 6),
        b=nn.Linear(6, 2),
        n=6,
    )
    program = torch.export.export(
        net, (X,), strict=False, dynamic_shapes=({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    )
    plan = planc.compile(program, ratio=0.5)
    smaller = planc.apply(plan, program)
    planc.verify(plan, program, smaller)
    graph = planc.trace(program)
    view = next(node for node in graph.nodes if node.op == "aten.view.default")
    (x,) = (ref.id for ref in graph.inputs)
    assert str(view.args[1][0].expr) == f"(size(%{x}, 0) * size(%{x}, 1))"


def test_a_symbolic_trace_is_proved_for_both_targets() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(functional.relu(m.b(m.a(x))) + m.p)  # type: ignore[no-any-return]

    parts = {"a": nn.Linear(8, 6), "b": nn.Linear(6, 4), "c": nn.Linear(4, 2)}
    net = OneInput(run, **parts, p=torch.ones(4), unused=torch.ones(3))
    found = prove(torch.fx.symbolic_trace(net), X)
    assert prunable(found, "module") == {"a.weight:0", "p:0"}


def test_a_pruned_graph_module_keeps_what_its_code_does_not_use() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 2))).eval()
    graph.extra = nn.Parameter(torch.ones(3))
    graph.number, graph.part = 3, nn.Dropout()
    graph.register_buffer("table", torch.ones(2), persistent=False)
    graph.register_forward_pre_hook(lambda module, args: None)
    plan = planc.compile(graph, X, ratio=0.5)
    smaller = planc.apply(plan, graph)
    planc.verify(plan, graph, smaller, X)
    assert list(dict(smaller.named_parameters())) == list(dict(graph.named_parameters()))
    assert (smaller.number, smaller.part.training) == (3, True)
    assert smaller._non_persistent_buffers_set == {"table"}
    assert len(smaller._forward_pre_hooks) == 1
    assert smaller.extra is not graph.extra


def test_a_literal_in_a_graph_binds_the_module_and_not_the_graph() -> None:
    net = OneInput(lambda m, x: m.b(m.a(x).view(10, 6)), a=nn.Linear(8, 6), b=nn.Linear(6, 2))
    found = prove(torch.fx.symbolic_trace(net), X)
    assert prunable(found, "module") == set()
    assert prunable(found, "graph") == {"a.weight:0"}
    (constraint,) = found.equations("module").constraints
    assert "size of aten.view.default" in constraint.reason


# -- what the recorder sees of given graphs ------------------------------------------------------


def test_a_tensor_that_is_a_plain_attribute_keeps_its_content_in_the_graph() -> None:
    net = Net(lambda m, x: m.b(m.a(x) + m.held[0] * m.c), a=nn.Linear(8, 6), b=nn.Linear(6, 2))
    net.held = [torch.randn(6)]
    vars(net)["c"] = torch.randn(6)
    prove(net, X, double=False)


def test_autocast_inside_a_model_is_seen() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = m.a(x)
        return m.b(y.float())  # type: ignore[no-any-return]

    net = Net(run, a=nn.Linear(8, 6), b=nn.Linear(6, 2)).eval()
    graph = planc.trace(net, X)
    assert graph.frontend == "record (fake tensors)"
    assert "bfloat16" in {value.dtype for value in graph.values}
    plan = planc.compile(net, X, ratio=0.5)
    report = planc.verify(plan, net, planc.apply(plan, net), X, tolerance=2e-2)
    assert report.graph_error < 1e-6
