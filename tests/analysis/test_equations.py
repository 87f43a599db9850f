"""Size equations: solved by themselves, by an attribute, as a constraint, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.analysis import Analysis
from planc.analysis.equations import Constraint, Operation, operation
from planc.analysis.polynomials import Poly
from planc.compile.select import write_plan
from tests.support.proving import Net, prove, prunable, removal

TOKENS = torch.randn(2, 3, 6)


def tokens(run: Any, **parts: Any) -> Net:
    return Net(lambda m, x: m.b(run(m, m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 2), **parts)


def attributes(found: Analysis) -> dict[str, str]:
    """The attributes that are solved for, by name, as text."""
    return {
        key[1] + "".join(f"[{i}]" for i in key[2]): poly.text(lambda v: found.groups[v].name)  # type: ignore[index]
        for key, poly in found.equations("module").attributes.items()
    }


SOLVED: dict[str, tuple[Net, dict[str, str]]] = {
    "a size of itself": (tokens(lambda m, y: y.view(6, y.shape[2])), {}),
    "an attribute": (tokens(lambda m, y: y.view(6, m.width), width=8), {"width": "a.weight:0"}),
    "an item of a tuple": (
        tokens(lambda m, y: y.view(m.shape), shape=(6, 8)),
        {"shape[0]": "6", "shape[1]": "a.weight:0"},
    ),
    "twice an attribute": (
        tokens(lambda m, y: y.view(6, 2 * m.half), half=4),
        {},
    ),
    "a sum": (
        Net(
            lambda m, x: m.b(torch.cat([m.a(x), x], -1).view(6, m.width + 6)),
            a=nn.Linear(6, 8),
            b=nn.Linear(14, 2),
            width=8,
        ),
        {"width": "a.weight:0"},
    ),
    "two attributes": (
        Net(
            lambda m, x: m.b(m.a(x).view(2, 3, m.heads, m.dim).tanh().view(2, 3, m.heads * m.dim)),
            a=nn.Linear(6, 8),
            b=nn.Linear(8, 2),
            heads=2,
            dim=4,
        ),
        {"dim": "a.weight:0", "heads": "a.weight:0/rows"},
    ),
}


@pytest.mark.parametrize("name", SOLVED)
def test_what_an_attribute_can_say(name: str) -> None:
    net, expected = SOLVED[name]
    found = prove(net, TOKENS)
    assert attributes(found) == expected
    if name != "twice an attribute":
        assert prunable(found, "module") == {group.name for group in found.groups}


def test_an_attribute_that_must_be_even_leaves_the_width_even() -> None:
    net = tokens(lambda m, y: y.view(6, 2 * m.half).view(2, 3, -1), half=4)
    found = prove(net, TOKENS)
    counts = {len(removal(found, (n,), "module", 0).groups[0].removed) for n in range(1, 9)}
    assert counts <= {0, 2, 4, 6}


@pytest.mark.parametrize("most", [50, -50])
def test_a_bound_beyond_the_end_is_a_number_that_stays(most: int) -> None:
    def run(m: Any, y: Tensor) -> Tensor:
        return y[..., : m.most] if m.most > 0 else y[..., m.most :]

    found = prove(tokens(run, most=most), TOKENS)
    assert attributes(found) in ({}, {"most": str(most)})
    for target in ("module", "graph"):
        assert prunable(found, target) == {"a.weight:0"}


def test_private_attributes_are_never_rewritten() -> None:
    net = tokens(lambda m, y: y.view(6, m._width))
    net._width = 8
    found = prove(net, TOKENS)
    assert not attributes(found)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}


def test_an_attribute_in_two_roles_stays() -> None:
    """The number of heads cannot also be a number of positions."""
    net = tokens(lambda m, y: y[:, : m.n].reshape(2 * m.n, m.n, -1).flatten(1), n=2)
    found = prove(net, TOKENS)
    rows = "a.weight:0/rows"
    assert rows in prunable(found, "graph") - prunable(found, "module")


def test_impossible_equations_name_file_and_line() -> None:
    found = prove(tokens(lambda m, y: y.view(6, 8)), TOKENS)
    (constraint,) = found.equations("module").constraints
    assert "size of aten.view.default" in constraint.reason
    assert "test_equations.py:" in constraint.reason
    assert not found.equations("graph").constraints
    with pytest.raises(planc.PolicyError, match=r"8 = 8 must equal kept a\.weight:0 = 7.*\.py:"):
        write_plan(found, ((3,),), "module", "", "")


def test_constraints_of_the_operator_bind_the_graph_too() -> None:
    net = Net(
        lambda m, x: m.b(nn.functional.glu(m.a(x)) + nn.functional.glu(m.c(x))[..., :4]),
        a=nn.Linear(6, 8),
        c=nn.Linear(6, 8),
        b=nn.Linear(4, 2),
    )
    prove(net, TOKENS)
    net = Net(
        lambda m, x: m.c(m.a(x).view_as(m.b(x))),
        a=nn.Linear(6, 8),
        b=nn.Linear(6, 8),
        c=nn.Linear(8, 2),
    )
    found = prove(net, TOKENS)
    assert not found.groups or found.equations("graph").constraints or len(found.groups) == 1


def test_uneven_rows_bind_each_other() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.stack([m.a(x), m.c(x)], 1)
        return (y @ m.w).sum(1)

    net = Net(run, a=nn.Linear(6, 4), c=nn.Linear(6, 4), w=torch.ones(2, 4, 2))
    found = prove(net, TOKENS)
    assert prunable(found, "graph") == {group.name for group in found.groups} != set()


NUMBERS: dict[str, Any] = {
    "a quotient": lambda m, y: y / y.shape[-1],
    "a sum": lambda m, y: m.width + y,
    "a power": lambda m, y: y.abs() ** y.shape[-1],
    "a bound": lambda m, y: y.clamp(max=y.shape[-1]),
    "what is filled in": lambda m, y: y.masked_fill(y > 0, y.size(2)),
    "a product of numbers": lambda m, y: y.sin().mul_(y.shape[-1] * y.shape[1]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_size_to_compute_with_mixes_what_it_measures(name: str) -> None:
    found = prove(tokens(NUMBERS[name], width=8), TOKENS)
    assert [group.size for group in found.groups] == [8]
    if name != "a sum":  # of an attribute that nothing else binds
        assert found.mixing(0, "module") == "its width is used as a number"
        assert found.mixing(0, "graph") == ""


def test_a_size_to_count_with_stays_what_it_is() -> None:
    found = prove(tokens(lambda m, y: y * (y.argmax(1) * y.shape[-1] > 3)[:, None]), TOKENS)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}


def test_a_width_that_must_stay_above_one() -> None:
    net = Net(lambda m, x: m.b(m.a(x[:, :1]).squeeze()), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    for target in ("module", "graph"):
        (constraint,) = found.equations(target).constraints
        assert constraint.holds(lambda _: 2)
        assert not constraint.holds(lambda _: 1)
        assert constraint.holds(lambda _: 4)
        assert "more than one coordinate" in constraint.reason


def checked(check: Any, **parts: Any) -> Net:
    """A model that raises, or takes another branch, where ``check`` gives another answer."""

    def run(m: Net, y: Tensor) -> Tensor:
        return y.tanh() if check(m, y) else y.sigmoid()

    return tokens(run, **parts)


def width(m: Net, y: Tensor) -> bool:
    return bool(y.shape[-1] == m.width)


def no_other_width(m: Net, y: Tensor) -> bool:
    if y.shape[-1] != m.width:
        raise ValueError("not the width that was promised")
    return False


def shape(m: Net, y: Tensor) -> bool:
    return list(y.shape) == [2, 3, m.width]


def heads(m: Net, y: Tensor) -> bool:
    assert m.dim * m.heads == y.shape[2]
    return y.view(2, 3, m.heads, m.dim).shape[2] != m.heads


COMPARED: dict[str, tuple[Net, dict[str, str]]] = {
    "is equal to": (checked(width, width=8), {"width": "a.weight:0"}),
    "is not unequal to": (checked(no_other_width, width=8), {"width": "a.weight:0"}),
    "in a list of sizes": (checked(shape, width=8), {"width": "a.weight:0"}),
    "a product": (
        checked(heads, heads=2, dim=4),
        {"dim": "a.weight:0", "heads": "a.weight:0/rows"},
    ),
    "with itself": (checked(lambda m, y: y.shape == y.relu().shape), {}),
}


@pytest.mark.parametrize("name", COMPARED)
def test_an_attribute_that_a_size_is_compared_with_follows_it(name: str) -> None:
    net, expected = COMPARED[name]
    found = prove(net, TOKENS)
    assert attributes(found) == expected
    assert prunable(found, "module") == {group.name for group in found.groups} != set()


BOUNDS: dict[str, tuple[Any, set[int]]] = {
    "above a number": (lambda m, y: y.shape[-1] > 5, {6, 7, 8}),
    "not above a number": (lambda m, y: y.shape[-1] <= 5, {6, 7, 8}),
    "at least a number": (lambda m, y: m.half * 2 <= y.shape[-1], {6, 7, 8}),
    "below a number": (lambda m, y: y.shape[-1] < 9, set(range(1, 9))),
    "other than a number": (lambda m, y: y.shape[-1] == 3, {4, 5, 6, 7, 8}),
    "a multiple": (lambda m, y: y.shape[-1] % 4 == 0, {4, 8}),
    "no multiple": (lambda m, y: y.shape[-1] % 3 != 0, {1, 2, 4, 5, 7, 8}),
    "the smaller": (lambda m, y: min(y.shape[-1], 6) == 6, {7, 8}),
    "one of several": (lambda m, y: y.shape[-1] in (6, 8), {8}),
    "a number": (lambda m, y: y.shape[1] == 3 and len(y) == 2, set(range(1, 9))),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BOUNDS)
def test_control_flow_that_asks_for_a_width_keeps_its_answer(name: str) -> None:
    check, allowed = BOUNDS[name]
    found = prove(checked(check, half=3), TOKENS)
    constraints = found.equations("module").constraints
    assert {n for n in range(1, 9) if all(c.holds(lambda _, n=n: n) for c in constraints)} == (  # type: ignore[misc]
        allowed
    )
    assert all("sizes compared" in constraint.reason for constraint in constraints)
    assert not found.equations("graph").constraints


def test_quantities_stay_polynomials_where_they_are() -> None:
    g, h, two = Poly.variable(0), Poly.variable(1), Poly.const(2)
    assert operation("+", (g, h)) == g + h
    assert operation("neg", (g,)) == -g
    assert operation("//", (g.scaled(4), two)) == g.scaled(2)
    assert operation("//", (g * h, h)) == g
    assert operation("%", (Poly.const(7), two)) == Poly.const(1)
    floor = operation("//", (g, two))
    assert isinstance(floor, Operation)
    assert floor.value(lambda _: 7) == 3
    assert floor.variables == {0}
    assert floor.substituted({0: Poly.const(9)}) == Poly.const(4)
    assert floor.text(lambda v: f"g{v}") == "(g0) // (2)"
    assert Constraint(floor, g, "why").groups == {0}


class Fields(nn.Module):
    """Embeddings of several fields, flattened to a size that is a product of attributes."""

    def __init__(self, form: str, fields: int, width: int) -> None:
        super().__init__()
        self.form, self.fields, self.width, self.both = form, fields, width, (fields, width)
        self.table = nn.Embedding(50, width)
        self.one, self.two = nn.Linear(fields * width, 12), nn.Linear(12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.table(x)
        if self.form == "product":
            y = y.view(-1, self.fields * self.width)
        elif self.form == "turned round":
            y = y.reshape(y.shape[0], self.width * self.fields)
        elif self.form == "of a tuple":
            y = y.view(-1, self.both[0] * self.both[1])
        elif self.form == "with a loop over one":
            y = torch.cat([y[:, i] for i in range(self.fields)], 1)
            y = y.view(-1, self.fields * self.width)
        elif self.form == "with a quotient":
            y = y.view(-1, self.fields, 2, self.width // 2).flatten(1)
        return self.two(self.one(y).relu())


@pytest.mark.parametrize("width", [4, 6, 16])
@pytest.mark.parametrize(
    "form", ["product", "turned round", "of a tuple", "with a loop over one", "with a quotient"]
)
def test_a_product_of_attributes_changes_by_one_of_them(form: str, width: int) -> None:
    model, x = Fields(form, 5, width).eval(), torch.randint(0, 50, (3, 5))
    plan = planc.compile(model, x, ratio=0.5)
    assert plan.cost_after.params < 0.55 * plan.cost_before.params
    planc.verify(plan, model, planc.apply(plan, model), x)
    changed = [c for c in plan.attributes if not c.module]
    assert len(changed) == 1
    assert form == "of a tuple" or changed[0].name == "width"


def test_of_two_factors_of_one_value_neither_changes() -> None:
    model, x = Fields("product", 5, 5).eval(), torch.randint(0, 50, (3, 5))
    plan = planc.compile(model, x, ratio=0.5)
    assert [c for c in plan.attributes if not c.module] == []
    assert [c.text for c in plan.constraints] == ["25 = 5 * kept table.weight:1"]
