"""Making a mutant take effect: in a process that has imported the module, its function gets the
code of the mutated one, wherever the function is known already; in one that has not, the import
gives the mutated module.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tests.mutation.mutants import Mutant, mutated

Place = tuple[str, int]  # the name of a function and the line that it begins at


def functions_of(file: Path) -> dict[Place, FunctionType]:
    """The functions that a file defines outside of others, also where something wraps them."""
    known = [item for item in gc.get_objects() if type(item) is FunctionType]
    return {
        (function.__name__, function.__code__.co_firstlineno): function
        for function in known
        if function.__code__.co_filename == str(file) and "<locals>" not in function.__qualname__
    }


def exchange(mutant: Mutant, source: str, file: Path, functions: dict[Place, FunctionType]) -> None:
    """Gives the function of a mutant its other code, in this process."""
    place = mutant.function.rpartition(".")[2], mutant.first
    code = dict(_codes(compile(mutated(source, mutant), str(file), "exec")))[place]
    functions[place].__code__ = code


def _codes(code: CodeType) -> Iterator[tuple[Place, CodeType]]:
    """The codes of functions that are outside of others, by their places."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & 0x2:  # of a function; a class body has no fast locals
                yield (part.co_name, part.co_firstlineno), part
            else:
                yield from _codes(part)


class MutatedImport:
    """A finder of the one module that is imported with a fault in it."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self.name, self.file, self.tree = name, file, tree

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        loader = _Loader(name, str(self.file), compile(self.tree, str(self.file), "exec"))
        return importlib.util.spec_from_file_location(name, self.file, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> Any:
        return self.code


def import_mutated(mutant: Mutant, source: str, file: Path) -> None:
    """From now on, in this process, the module is imported with the fault."""
    name = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert name not in sys.modules
    sys.meta_path.insert(0, MutatedImport(name, file, mutated(source, mutant)))  # type: ignore[arg-type]
