"""Literal bounds: source lines with an index spelt out in constants.

Given file and line of a call, the source itself tells if every input reads the same part.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
from collections.abc import Iterator, Mapping
from functools import lru_cache

_INDEXING = frozenset({"slice", "select", "index"})
_CALLED = {"constant_pad_nd": "pad", "split_with_sizes": "split"}  # their Python names
_ARITHMETIC = (ast.Constant, ast.Slice, ast.Tuple, ast.List, ast.UnaryOp, ast.BinOp)
_OPERATORS = (ast.operator, ast.unaryop, ast.expr_context)


def is_literal(source: tuple[str, int], operator: str, attributes: bool = False) -> bool:
    """Return True if a line gives an operator, such as ``slice``, constant indices only.

    With ``attributes``, attributes of objects may occur among them.
    """
    file, line = source
    found = list(_indices(file, line, _CALLED.get(operator, operator), operator in _INDEXING))
    return bool(found) and all(_spelt_out(index, attributes) for index in found)


def _indices(file: str, line: int, name: str, subscripts: bool) -> Iterator[ast.expr]:
    linecache.checkcache(file)
    for node in _by_line("".join(linecache.getlines(file))).get(line, ()):
        if isinstance(node, ast.Subscript):
            if subscripts:
                yield node.slice
        elif _name(node.func) == name:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield from arguments[_is_function(node.func) :]


@lru_cache(maxsize=64)
def _by_line(text: str) -> Mapping[int, list[ast.Subscript | ast.Call]]:
    """The subscripts and calls of a source text, listed under each line they span."""
    found: dict[int, list[ast.Subscript | ast.Call]] = {}
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Subscript | ast.Call):
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    found.setdefault(line, []).append(node)
    return found


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_function(called: ast.expr) -> bool:
    """True for a function of a module (``torch.narrow``), with the tensor as its first argument."""
    if isinstance(called, ast.Attribute):
        return ast.unparse(called.value) in {"F", "torch", "functional", "nn.functional"}
    return True


def _spelt_out(expression: ast.expr, attributes: bool) -> bool:
    if isinstance(expression, ast.Attribute):
        return attributes
    if isinstance(expression, _ARITHMETIC):
        parts = ast.iter_child_nodes(expression)
        return all(
            isinstance(part, _OPERATORS) or _spelt_out(part, attributes)  # type: ignore[arg-type]
            for part in parts
        )
    return False
