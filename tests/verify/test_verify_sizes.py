"""Verification at other sizes than the planned ones: what it tries, and the faults that show only
there.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import VerificationError
from planc.verify.sizes import check_other_sizes, other_calls, sizes_of
from tests.support.proving import Net, randomise
from tests.zoo import torchvision as zoo

IMAGES = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))


def conv_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    randomise(net, seed=0)
    return net.eval()


def tokens(run: Any) -> nn.Module:
    net = Net(lambda m, x: m.b(run(m.a(x), x)), a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    randomise(net, seed=0)
    return net.eval()


def mixing() -> nn.Module:
    return tokens(lambda y, x: nn.functional.layer_norm(y, y.shape[-1:]))


def checks(model: nn.Module, args: Any, **options: Any) -> tuple[str, ...]:
    plan = planc.compile(model, args, ratio=0.5, **options)
    smaller = planc.apply(plan, model, args=args)
    return planc.verify(plan, model, smaller, args).checks


def last_check(model: nn.Module, args: Any, **options: Any) -> str:
    return checks(model, args, **options)[-1]


def tried(model: nn.Module, *args: Any, **kwargs: Any) -> str:
    return " and ".join(sizes_of(found) for found, _ in other_calls(model, (args, kwargs)))


# -- what is tried -----------------------------------------------------------------------------


def test_as_many_sizes_change_as_the_model_takes_at_once() -> None:
    assert tried(conv_net(), IMAGES) == "2x3x12x12 and 1x3x20x20"
    assert tried(tokens(lambda y, x: y), TOKENS) == "1x4x6 and 3x6x6"
    assert tried(tokens(lambda y, x: y.view(3, 5, -1)), TOKENS) == ""
    assert tried(tokens(lambda y, x: y.view(-1, 5, 8)), TOKENS) == "1x5x6"


def test_tensors_that_share_a_size_change_together() -> None:
    class Two(nn.Module):
        def forward(self, ids: Tensor, *, mask: dict[str, Tensor]) -> Tensor:
            return (ids * mask["m"]).float()

    ids, mask = torch.zeros(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.bool)
    assert tried(Two(), ids, mask={"m": mask}) == "1x6 and 2x11"


def test_sizes_that_only_go_one_at_a_time() -> None:
    def run(y: Tensor, x: Tensor) -> Tensor:
        return y if x.shape[0] == 3 or x.shape[1] == 5 else y.view(3, 5, 8)

    assert tried(tokens(run), TOKENS) == "1x5x6 and 3x6x6"


# -- what the report says ----------------------------------------------------------------------


def test_the_report_names_the_sizes_and_what_was_compared() -> None:
    check = last_check(conv_net(), IMAGES)
    assert check.startswith("outputs equal those of the masked original with inputs of 2x3x12x12")
    normed = mixing()
    assert "the rewritten graph with inputs of 1x4x6, too" in last_check(normed, TOKENS)
    fixed = tokens(lambda y, x: y.view(3, 5, y.shape[-1]))
    assert "the original takes none" in last_check(fixed, TOKENS)


def test_a_graph_is_compared_as_a_module_is() -> None:
    for model in (conv_net(), mixing()):
        args = IMAGES if isinstance(model, nn.Sequential) else TOKENS
        for target in ("module", "graph"):
            assert "with inputs of" in last_check(model, args, target=target)


def test_what_a_graph_refuses_is_said_and_the_rest_compared() -> None:
    model = tokens(lambda y, x: sum(y.roll(t, -1) for t in range(x.shape[1])))
    left, made = checks(model, TOKENS, target="graph")[-2:]
    assert left.startswith("with inputs of 1x4x6 the graph refuses, as it says: ")
    assert "has size 4 in dimension 1, traced with 5" in left
    assert "outputs equal those of the masked original with inputs of 1x5x6, too" in made
    alone = tokens(lambda y, x: sum(y.roll(t, -1) for t in range(x.shape[1])) + x.shape.numel())
    check = last_check(alone, TOKENS, target="graph")
    assert "the graph refuses" in check
    assert "outputs equal" not in check


def test_a_graph_that_gives_something_else_at_other_sizes_is_refused() -> None:
    model = tokens(lambda y, x: y / x.shape[0])
    plan = planc.compile(model, TOKENS, ratio=0.5, target="graph")
    smaller: Any = planc.apply(plan, model)
    (size,) = (node for node in smaller.graph.nodes if node.target == "size")
    size.replace_all_uses_with(3)
    smaller.graph.erase_node(size)
    smaller.recompile()
    with pytest.raises(VerificationError, match="the graph has call_function"):
        planc.verify(plan, model, smaller, TOKENS)
    with pytest.raises(VerificationError, match="of 1x4x6 by"):
        check_other_sizes(plan, model, smaller, planc.mask(plan, model), ((TOKENS,), {}), 1e-4)


def test_a_graph_is_proven_on_inputs_of_other_sizes_than_the_plans() -> None:
    model = tokens(lambda y, x: sum(y.roll(t, -1) for t in range(x.shape[1])))
    plan = planc.compile(model, TOKENS, ratio=0.5, target="graph")
    smaller: Any = planc.apply(plan, model)
    planc.verify(plan, model, smaller, TOKENS[:2])
    smaller.graph.call_function(torch.relu, (next(iter(smaller.graph.nodes)),))
    with pytest.raises(VerificationError, match="the graph has"):
        planc.verify(plan, model, smaller, TOKENS[:2])


def test_an_explicit_no_compares_nothing_else() -> None:
    model = conv_net()
    plan = planc.compile(model, IMAGES, ratio=0.5)
    report = planc.verify(plan, model, planc.apply(plan, model), IMAGES, other_sizes=False)
    assert "with inputs of" not in str(report)


def test_a_model_with_other_groups_at_other_sizes_is_not_compared_where_groups_mix() -> None:
    def run(y: Tensor, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(y, y.shape[-1:])
        return y if x.shape[1] == 5 else y.flip(-1)

    assert "with inputs of 1x4x6 the model has other groups" in last_check(tokens(run), TOKENS)


def test_what_the_pruned_model_does_where_groups_are_others_is_said_and_no_error() -> None:
    model = tokens(lambda y, x: y if x.shape[1] == 5 else y[..., [7, 6, 5, 4, 3, 2, 1, 0]])
    check = last_check(model, TOKENS)
    assert "for which this plan was not made and the pruned model fails: with inputs of" in check


def test_a_model_that_is_not_the_same_twice_at_other_sizes_is_not_compared_there() -> None:
    def run(y: Tensor, x: Tensor) -> Tensor:  # as what is read beyond the end of a tensor
        return y if x.shape[0] == 3 else y + torch.tensor(float(time.perf_counter_ns() % 997))

    model = tokens(run)
    left, made = checks(model, TOKENS)[-2:]
    check, _, _ = left.partition("; ")
    assert made.startswith("outputs equal")
    assert check == "not compared with inputs of 1x4x6: there the original is not the same twice"


def test_sizes_that_are_refused_are_refused_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    assert tried(conv_net(), IMAGES) == "2x3x12x12 and 1x3x20x20"
    assert not caplog.records


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"])
def test_models_of_the_zoo_work_at_other_resolutions(name: str) -> None:
    model, args = zoo.build(name), zoo.example_inputs(name)
    assert "the masked original with inputs of 2x3x168x168, too" in last_check(model, args)


# -- faults that show only there ---------------------------------------------------------------

FAULTS: dict[str, tuple[Any, str]] = {
    "a literal": (lambda y: y.view(-1, 4, 8), "the pruned model does not: RuntimeError: shape"),
    "a width as a number": (
        lambda y: y * float(str(y.shape[-1])),
        "differs from that of the masked",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_branch_that_was_not_planned_for_is_found_out(name: str) -> None:
    fault, message = FAULTS[name]
    model = tokens(lambda y, x: y if x.shape[1] == 5 else fault(y))
    plan = planc.compile(model, TOKENS, ratio=0.5)
    smaller = planc.apply(plan, model)
    assert planc.verify(plan, model, smaller, TOKENS, other_sizes=False).error is not None
    with pytest.raises(VerificationError, match=message) as found:
        planc.verify(plan, model, smaller, TOKENS)
    assert "with inputs of 1x4x6" in str(found.value)
