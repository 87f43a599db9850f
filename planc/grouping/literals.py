"""Literal bounds: places of the source where an index is spelt out in constants.

In: file and line of a call. Out: whether the code itself says which part is read, so that no other
input reads another one.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache

_INDEXING = frozenset({"slice", "select", "index"})
_CALLED = {"constant_pad_nd": "pad", "split_with_sizes": "split"}  # the names in Python
_ARITHMETIC = (ast.Constant, ast.Slice, ast.Tuple, ast.List, ast.UnaryOp, ast.BinOp)
_OPERATORS = (ast.operator, ast.unaryop, ast.expr_context)


def is_literal(source: tuple[str, int], operator: str, attributes: bool = False) -> bool:
    """Whether all indices that a line gives to an operator, such as ``slice``, are constants; with
    ``attributes``, attributes of objects may stand among them.
    """
    file, line = source
    found = list(_indices(file, line, _CALLED.get(operator, operator), operator in _INDEXING))
    return bool(found) and all(_spelt_out(index, attributes) for index in found)


def _indices(file: str, line: int, name: str, subscripts: bool) -> Iterator[ast.expr]:
    for node in _expressions(file):
        if not node.lineno <= line <= (node.end_lineno or node.lineno):
            continue
        if isinstance(node, ast.Subscript):
            if subscripts:
                yield node.slice
        elif _name(node.func) == name:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            operand = node.args and _of_function(node.func)
            yield from arguments[1 if operand else 0 :]


@lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[ast.Subscript | ast.Call, ...]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Call))


def _expressions(file: str) -> tuple[ast.Subscript | ast.Call, ...]:
    linecache.checkcache(file)
    return _parsed("".join(linecache.getlines(file)))


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _of_function(function: ast.expr) -> bool:
    """Whether it is a function of a module (``torch.narrow``), which has the tensor first."""
    if isinstance(function, ast.Name):
        return True
    assert isinstance(function, ast.Attribute)
    return ast.unparse(function.value) in {"F", "torch", "functional", "nn.functional"}


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
