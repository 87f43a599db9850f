"""Constraints of a plan for review: without those true for all widths, repeated ones as one.

The texts are those of :class:`planc.plan.plan.WidthConstraint`: arithmetic over ``kept GROUP``.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planc.plan.plan import Plan, PlanGroup, WidthConstraint
from planc.plan.review.rows import Row

_PLACE = re.compile(r" in \S*( \([^()]*\))?$")
_KEPT = re.compile(r"kept (\S+?)(?=\)*(?:\s|$))|^(\S+)(?= stays whole$)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A constraint in the labels of a table's rows, the reason without its place, and its count."""

    text: str
    reason: str
    count: int

    def __str__(self) -> str:
        return f"{self.text}: {self.reason}" + (f", {self.count}×" if self.count > 1 else "")


def binding(plan: Plan) -> tuple[WidthConstraint, ...]:
    """The constraints that some widths of the plan's groups violate, or that are not understood."""
    sizes = {group.name: group.size for group in plan.groups}
    return tuple(c for c in plan.constraints if not _always(c.text, sizes))


def statements(constraints: Sequence[WidthConstraint], rows: Sequence[Row]) -> list[Statement]:
    """The constraints in the labels of ``rows``; equal ones are counted."""
    inner = Counter(row.inner for row in rows)
    label = {
        group.name: row.inner if inner[row.inner] == 1 else row.label
        for row in rows
        for group in row.groups
    }

    def named(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return label.get(name, name)

    found: Counter[tuple[str, str]] = Counter()
    for constraint in constraints:
        text = _solved(_KEPT.sub(named, constraint.text))
        found[text, _PLACE.sub("", constraint.reason)] += 1
    return [Statement(*key, count) for key, count in found.items()]


def _solved(text: str) -> str:
    """An inequality over one width, solved for it; an equation of like layers in words.

    >>> _solved("-2 + conv1 >= 0"), _solved("256 + -1 * conv1 >= 0"), _solved("0–3.fc = 0–3.fc")
    ('conv1 >= 2', 'conv1 <= 256', '0–3.fc alike in these layers')
    """
    if found := re.fullmatch(r"-(\d+) \+ (\S+) >= 0", text):
        return f"{found[2]} >= {found[1]}"
    if found := re.fullmatch(r"(\d+) \+ -1 \* (\S+) >= 0", text):
        return f"{found[2]} <= {found[1]}"
    if found := re.fullmatch(r"(\S+) = (\S+)", text):
        return f"{found[1]} alike in these layers" if found[1] == found[2] else text
    return text


def concerning(
    constraints: Sequence[WidthConstraint], group: PlanGroup
) -> tuple[WidthConstraint, ...]:
    """The constraints that name ``group``."""
    return tuple(
        constraint
        for constraint in constraints
        if any(group.name in match.groups() for match in _KEPT.finditer(constraint.text))
    )


def _always(text: str, sizes: Mapping[str, int]) -> bool:
    """True for an inequality that holds for all numbers of kept units."""
    left, sign, right = text.partition(" >= ")
    if not sign or right != "0":
        return False
    bounds: list[tuple[int, int]] = []

    def numbered(match: re.Match[str]) -> str:
        bounds.append((0, sizes[match[1]]))
        return f"_{len(bounds) - 1}"

    try:
        found = _range(ast.parse(_KEPT.sub(numbered, left), mode="eval").body, bounds)
    except (KeyError, SyntaxError, ValueError, RecursionError):
        return False
    return found is not None and found[0] >= 0


def _range(node: ast.expr, bounds: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The least and greatest value of an expression of sums and products, None if not one."""
    match node:
        case ast.Constant(value=int(number)):
            return number, number
        case ast.Name(id=name) if name[1:].isdecimal() and int(name[1:]) < len(bounds):
            return bounds[int(name[1:])]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _range(operand, bounds)
            return None if inner is None else (-inner[1], -inner[0])
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            a, b = _range(left, bounds), _range(right, bounds)
            if a is None or b is None:
                return None
            if isinstance(op, ast.Mult):
                products = [x * y for x in a for y in b]
                return min(products), max(products)
            return (
                (a[0] + b[0], a[1] + b[1])
                if isinstance(op, ast.Add)
                else (
                    a[0] - b[1],
                    a[1] - b[0],
                )
            )
    return None
