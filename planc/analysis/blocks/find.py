"""Lists of residual blocks, found in a traced run by the scopes of its operators.

A child of a ``ModuleList`` or ``Sequential`` is a block if one value enters it and one value of the
same shape and type leaves it, and the second is the first plus something: a *stream*. Values shared
by all children (masks, positions, rotary tables) may enter as well. Nothing else of a block may be
read outside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from planc.analysis.blocks.zeros import not_zeroed
from planc.ir.graph import Graph, Node, refs
from planc.plan.depth import below, children

CONTAINERS = ("ModuleList", "Sequential")
_JOINS = ("add", "add_", "sub", "sub_", "__iadd__", "__isub__")
_SCALES = ("mul", "mul_", "div", "div_")
_MIX_NAMES = """
    linear addmm addbmm baddbmm bmm mm mv matmul einsum conv1d conv2d conv3d convolution
    conv_transpose1d conv_transpose2d conv_transpose3d scaled_dot_product_attention cat stack
    gather index index_select embedding bilinear
"""
_MIX = frozenset(_MIX_NAMES.split())


@dataclass(frozen=True, slots=True)
class Block:
    """A removable block: its path, and the values that enter and leave it.

    ``mixing`` is the reason why zero weights differ from a removal, empty if they do not.
    """

    path: str
    entry: int
    exit: int
    mixing: str = ""


@dataclass(frozen=True, slots=True)
class BlockList:
    """A list of blocks.

    Attributes:
        path: of the container.
        names: of its children, in order.
        blocks: those that can be removed, by their position.
        reasons: why the others stay, by their position.
    """

    path: str
    names: tuple[str, ...]
    blocks: Mapping[int, Block]
    reasons: Mapping[int, str]


def block_lists(graph: Graph) -> tuple[BlockList, ...]:
    """The lists of a model that have a removable block, in the order of its modules.

    Of nested lists, the outer one counts if most of its children can be removed, else the inner.
    """
    scopes = _Scopes(graph)
    found = []
    for path, module in graph.modules.items():
        if any(kind in CONTAINERS for kind in module.types):
            listed = scopes.listed(path)
            if listed.blocks:
                found.append(listed)
    return tuple(_one_level(found))


def _one_level(found: list[BlockList]) -> Iterator[BlockList]:
    outer = [one for one in found if 2 * len(one.blocks) > len(one.names)]
    for one in found:
        inside = any(_under(other.path, one.path) for other in outer if other is not one)
        holds = any(_under(one.path, other.path) for other in found if other is not one)
        if not inside and (one in outer or not holds):
            yield one


class _Scopes:
    """The nodes of a graph by the modules that run them, and the readers of its values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, list[int]] = {}
        for number, node in enumerate(graph.nodes):
            path = ""
            for part in node.module.split(".") if node.module else ():
                path = below(path, part)
                self.nodes.setdefault(path, []).append(number)
        self.readers: dict[int, list[int]] = {}
        for number, node in enumerate(graph.nodes):
            for ref in refs((node.args, node.kwargs_values)):
                self.readers.setdefault(ref.id, []).append(number)
        self.known = {t.value for t in graph.tensors} | set(graph.constants) | set(graph.captured)
        self.left = {
            *(ref.id for ref in graph.outputs),
            *(departure.value for departure in graph.departures),
            *graph.returned,
        }
        self.owners: dict[str, list[tuple[str, ...]]] = {}
        for tensor in graph.tensors:
            if len(tensor.names) > 1:
                for name in tensor.names:
                    self.owners.setdefault(name, []).append(tensor.names)

    def listed(self, path: str) -> BlockList:
        names = children(path, self.graph.modules)
        blocks: dict[int, Block] = {}
        reasons: dict[int, str] = {}
        for i, name in enumerate(names):
            found = self.block(below(path, name))
            if isinstance(found, Block):
                blocks[i] = found
            else:
                reasons[i] = found
        return BlockList(path, names, blocks, reasons)

    def block(self, path: str) -> Block | str:
        """The block at ``path``, or the reason why it stays."""
        numbers = self.nodes.get(path, [])
        if not numbers:
            return "not run by the traced run"
        if self.graph.modules[path].types[0] in CONTAINERS:
            return "a container of other modules"
        for name, owners in self.owners.items():
            tied = next((n for names in owners for n in names if not _under(path, n)), None)
            if _under(path, name) and tied is not None:
                return f"its tensor {name} is tied to {tied}"
        nodes = [self.graph.nodes[number] for number in numbers]
        made = {ref.id for node in nodes for ref in node.outputs if ref is not None}
        own = set(numbers)
        read = [
            value
            for value in sorted(made)
            if value in self.left or not own.issuperset(self.readers.get(value, ()))
        ]
        if len(read) != 1:
            return f"{len(read)} of its values are read outside it, not one"
        return self._residual(path, nodes, made, read[0])

    def _residual(self, path: str, nodes: list[Node], made: set[int], leaves: int) -> Block | str:
        values = self.graph.values
        if leaves in self.left - {ref.id for ref in self.graph.outputs}:
            return "its result is kept outside the model"
        entering = dict.fromkeys(
            ref.id
            for node in nodes
            for ref in node.operands
            if ref.id not in made and ref.id not in self.known
        )
        alike = [
            value
            for value in entering
            if (values[value].shape, values[value].dtype)
            == (values[leaves].shape, values[leaves].dtype)
        ]
        streams = [value for value in alike if leaves in self._stream(nodes, value)]
        if len(streams) != 1:
            return (
                f"its result {list(values[leaves].shape)} is not a value that enters it, plus "
                "something"
            )
        block = Block(path, streams[0], leaves)
        return Block(path, streams[0], leaves, not_zeroed(self.graph, nodes, block.path, *streams))

    def _stream(self, nodes: Iterable[Node], entry: int) -> set[int]:
        """The values that are the entering one plus something, by way of elementwise steps."""
        values = self.graph.values
        straight, joined, depends = {entry}, set[int](), {entry}
        for node in nodes:
            given = [ref.id for ref in node.operands]
            if depends.isdisjoint(given):
                continue
            made = [ref.id for ref in node.outputs if ref is not None]
            depends.update(made)
            on = [value for value in given if value in straight]
            if not on or len(made) != 1 or node.leaf:
                continue
            name, size = node.op.split(".")[1], prod(values[made[0]].shape)
            others = [value for value in given if value in depends and value not in straight]
            if name in _MIX or any(prod(values[value].shape) != size for value in on):
                continue
            small = all(prod(values[value].shape) < size for value in others)
            if others and name not in _JOINS and not (name in _SCALES and small):
                continue
            straight.add(made[0])
            if (others and name in _JOINS) or joined.intersection(on):
                joined.add(made[0])
        return joined


def _under(path: str, name: str) -> bool:
    return name.startswith(f"{path}.") if path else True
