"""Mutants of Python source: a module's text in, small faults out, each as another syntax tree.

What is changed: comparisons (to their negation, and over their boundary), ``and`` and ``or``,
``not`` and conditions, integers by one, booleans, strings, arithmetic, the order of arguments,
keyword arguments, the exceptions that are caught, returned values; statements are left out, loops
left early or not. What people or type checkers read stays: docstrings, annotations, type variables,
strings with a space in them.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
# of zip, where lengths are equal; of msgspec, what the collector looks at
_WITHOUT_EFFECT = ("strict", "gc")
_WITHOUT_ORDER = ("min", "max", "suppress", "torch.equal")  # of their arguments
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: alternative ``choice`` at node ``node`` of the module's tree, in breadth-first
    order. ``function`` is the outermost one that holds it, "" where importing runs it.
    """

    path: str
    function: str
    line: int
    what: str
    number: int  # among those of the same words in the same place
    node: int
    choice: int
    first: int = 0  # line of that function, with its decorators

    @property
    def name(self) -> str:
        """What stays the same when lines move."""
        number = f" #{self.number}" if self.number else ""
        return f"{self.path}:{self.function}: {self.what}{number}"


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of a module."""
    tree = ast.parse(source)
    places = _places(tree)
    found: list[Mutant] = []
    seen: dict[tuple[str, str], int] = {}
    for number, node in enumerate(ast.walk(tree)):
        if node not in places:
            continue
        function, first = places[node]
        for choice, (what, _) in enumerate(_alternatives(node)):
            count = seen.get((function, what), 0)
            seen[function, what] = count + 1
            line = min(n.lineno for n in ast.walk(node) if isinstance(n, (ast.expr, ast.stmt)))
            found.append(Mutant(path, function, line, what, count, number, choice, first))
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The tree of the module with the fault; line numbers stay."""
    tree = ast.parse(source)
    old = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.node)
    new = list(_alternatives(old))[mutant.choice][1]
    ast.copy_location(new, old)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                setattr(parent, field, [new if item is old else item for item in value])
    return ast.fix_missing_locations(tree)


def _places(tree: ast.Module) -> dict[ast.AST, tuple[str, int]]:
    """The nodes that are mutated, each with the function that it is in."""
    places: dict[ast.AST, tuple[str, int]] = {}

    def visit(node: ast.AST, where: tuple[str, int], scope: str) -> None:
        places[node] = where
        for field, child in _children(node):
            inside, inner = where, scope
            if isinstance(node, _FUNCTIONS) and field == "body" and not where[0]:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                inside = (f"{scope}{node.name}", first)
            if isinstance(node, ast.ClassDef) and field == "body":
                inner = f"{scope}{node.name}."
            visit(child, inside, inner)

    visit(tree, ("", 0), "")
    return places


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        children = value if isinstance(value, list) else [value]
        if field == "body" and isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)):
            children = [c for c in children if not _is_words(c)]
        if isinstance(node, ast.If) and _is_name(node.test, "TYPE_CHECKING") and field != "orelse":
            continue
        if isinstance(node, ast.JoinedStr):
            children = [c for c in children if isinstance(c, ast.FormattedValue)]
        if isinstance(node, ast.FormattedValue) and field != "value":
            continue
        if isinstance(node, ast.Assign) and any(_is_name(t, "__all__") for t in node.targets):
            continue
        if isinstance(node, ast.Assign) and _is_type_variable(node.value):
            continue
        for child in children:
            if isinstance(child, ast.keyword) and child.arg in _WITHOUT_EFFECT:
                continue
            if isinstance(child, ast.AST):
                yield field, child


def _is_words(node: ast.AST) -> bool:
    """Whether a statement is a docstring, an ellipsis, or an import."""
    return isinstance(node, (ast.Import, ast.ImportFrom)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _is_type_variable(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _is_name(node.func, "TypeVar")


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _alternatives(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in the place of a node, with the change in words."""
    for new in _changes(node):
        yield f"{_text(node)} -> {_text(new)}", new


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.stmt) and hasattr(node, "body"):
        return ast.unparse(node).splitlines()[0]
    text = ast.unparse(node)
    return " ".join(text.split())


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for table in (_NEGATED, _BOUNDARY):
                    if type(op) in table:
                        new = copy.deepcopy(node)
                        new.ops[i] = table[type(op)]()
                        yield new
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OTHER_OPERATOR:
            yield ast.BinOp(left, _OTHER_OPERATOR[type(op)](), right)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=str(text)) if " " not in text:  # else words for people
            yield ast.Constant(text + "?")
        case ast.Constant(value=bytes(text)):
            yield ast.Constant(text + b"?")
        case ast.Call():
            yield from _other_calls(node)
        case ast.ExceptHandler(type=ast.Tuple(elts=kinds)):
            for i in range(len(kinds)):
                new_handler = copy.deepcopy(node)
                assert isinstance(new_handler.type, ast.Tuple)
                del new_handler.type.elts[i]
                yield new_handler
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if _is_bare(test):
            new = copy.deepcopy(node)
            new.test = ast.UnaryOp(ast.Not(), new.test)  # type: ignore[attr-defined]
            yield new
        case ast.comprehension(ifs=[_, *_]):
            for i in range(len(node.ifs)):
                new_part = copy.deepcopy(node)
                del new_part.ifs[i]
                yield new_part
        case ast.match_case(guard=ast.expr()):
            new_case = copy.deepcopy(node)
            new_case.guard = None
            yield new_case
        case ast.Return(value=ast.expr() as value):
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
            yield ast.Pass()
        case ast.Expr(value=ast.Yield() | ast.YieldFrom()):
            return
        case ast.Expr(value=value) if not isinstance(value, ast.Constant):
            yield _nothing(node)
        case ast.Raise() | ast.AugAssign() | ast.Delete() | ast.Assert():
            yield _nothing(node)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield _nothing(node)


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Name) and node.func.id in _OTHER_NAME:
        new = copy.deepcopy(node)
        new.func = ast.Name(_OTHER_NAME[node.func.id], ast.Load())
        yield new
    for i, _ in enumerate(pairwise(node.args)):
        if any(isinstance(arg, ast.Starred) for arg in node.args[i : i + 2]):
            continue
        if ast.unparse(node.func) in _WITHOUT_ORDER:
            continue
        if ast.dump(node.args[i]) != ast.dump(node.args[i + 1]):
            new = copy.deepcopy(node)
            new.args[i : i + 2] = reversed(new.args[i : i + 2])
            yield new
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _WITHOUT_EFFECT:
            new = copy.deepcopy(node)
            del new.keywords[i]
            yield new


def _is_bare(test: ast.expr) -> bool:
    """Whether a condition has nothing in it that is negated by itself."""
    if _is_name(test, "TYPE_CHECKING"):
        return False
    return not isinstance(test, (ast.Compare, ast.BoolOp)) and not (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def _nothing(node: ast.stmt) -> ast.stmt:
    """A statement that does nothing, and keeps what its function knows: ``super`` needs its class,
    a name that was assigned here stays local.
    """
    calls_super = any(_is_name(inner, "super") for inner in ast.walk(node))
    return ast.Expr(ast.Name("__class__", ast.Load())) if calls_super else ast.Pass()
