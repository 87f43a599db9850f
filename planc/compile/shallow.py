"""The model without some of its blocks, and the proof that it runs as if they were skipped.

Attributes that count or number the blocks change along: those that the model's class sets from a
shorter configuration, or, without one, integers that equal the position in every block. The
shallower model is traced, and its run compared with the original's without the blocks, operator by
operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from planc.analysis.blocks import Block, BlockList, bypassed, run_difference
from planc.apply.depth import take_out
from planc.apply.module import named_tensors, rebuilt
from planc.apply.renewal import GONE, Change, Renewal
from planc.compile.description import describe
from planc.errors import PolicyError, StalePlan, TraceError
from planc.ir.construction import NAME, Construction, Tables
from planc.ir.graph import Graph, attributes_read
from planc.ir.groups import joined
from planc.modules.attributes import set_attributes
from planc.modules.held import held_objects, object_attributes, public
from planc.modules.tree import plain, structural_attributes
from planc.plan.depth import BLOCKS, ROOT, Depth, below
from planc.plan.plan import AttributeChange, PlanGroup, TensorSpec
from planc.trace import trace
from planc.trace.decisions import Replay

Removed = Mapping[str, frozenset[int]]
"""The positions of the removed blocks of each list, by its path."""
Changes = tuple[AttributeChange, ...]
_SHARED = Change("shared", lambda tensor: tensor.detach())


@dataclass(frozen=True, eq=False)
class Shallow:
    """A model without some of its blocks.

    Attributes:
        groups: the lists of blocks as groups of a plan.
        depth: the new names.
        changes: the attributes that change, under the original's paths.
        model: the shallower model, on the memory of the original.
        graph: the original's graph without the blocks.
    """

    groups: tuple[PlanGroup, ...]
    depth: Depth
    changes: Changes
    model: nn.Module
    graph: Graph


def shallower(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    graph: Graph,
    lists: Sequence[BlockList],
    removed: Removed,
) -> Shallow:
    """Remove blocks, and prove that the rest runs as the original without them.

    Args:
        graph: the original's run on these inputs.
        lists: the lists of blocks in it.
        removed: the blocks to remove.

    Raises:
        PolicyError: the model without these blocks computes something else, or does not run; names
            the first difference.
    """
    blocks = [one.blocks[unit] for one in lists for unit in sorted(removed.get(one.path, ()))]
    groups = tuple(_group(one, removed.get(one.path, frozenset())) for one in lists)
    depth = Depth(graph.modules, groups)
    expected, reason = bypassed(graph, blocks), ""
    for changes in _candidates(model, graph, depth):
        found = None
        try:
            found = reduced(model, depth, changes)
            difference = run_difference(
                expected, _run(found, args, kwargs, expected), depth.renamed
            )
        except (TraceError, StalePlan) as error:
            difference = str(error)
        if not difference and found is not None:
            return Shallow(groups, depth, changes, found, expected)
        reason = reason or difference
    named = ", ".join(block.path for block in blocks)
    raise PolicyError(
        f"{named}: without them the model does not compute the rest as before: {reason}; keep "
        "those blocks (keep=), or choose others (remove=)"
    )


def _run(model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None, expected: Graph) -> Graph:
    """A run under the decisions of the expected one, if control flow depends on values."""
    if not expected.data_dependent:
        return trace(model, args, kwargs)
    replay = Replay(expected, lambda _, tensor: tensor, lambda _, tensor: tensor)
    found = trace(model, args, kwargs, replay=replay)
    replay.finish()
    return found


def _group(one: BlockList, removed: frozenset[int]) -> PlanGroup:
    gone: list[Block] = [one.blocks[unit] for unit in sorted(removed)]
    mixing = joined(sorted({block.mixing for block in gone if block.mixing}))
    size = len(one.names)
    return PlanGroup(one.path or ROOT, BLOCKS, size, 1, (), mixing, tuple(sorted(removed)))


def reduced(model: nn.Module, depth: Depth, changes: Changes) -> nn.Module:
    """The model without the blocks and with the changes, on the memory of the original."""
    tensors = tuple(
        TensorSpec((name,), tuple(tensor.shape), "") for name, tensor in named_tensors(model)
    )

    def change(name: str, spec: TensorSpec) -> Change:
        return GONE if depth.renamed(spec.name) is None else _SHARED

    copied = rebuilt(model, Renewal(tensors, named_tensors(model), change))
    set_attributes(copied, changes, depth.shortened)
    take_out(copied, depth)
    return copied


def _candidates(model: nn.Module, graph: Graph, depth: Depth) -> Iterator[Changes]:
    """The attribute changes to try, most likely first."""
    described = _described(model, graph, depth)
    if described is not None:
        yield described
    read = attributes_read(graph.nodes, graph.numbers.values(), graph.comparisons)
    positions = tuple(_positions(model, depth, read))
    counts = tuple(_counts(model, depth))
    # a count that no operator needs cannot be told from another number of the same value
    some = (positions, *((*positions, count) for count in counts), (*positions, *counts), ())
    yield from dict.fromkeys(
        tuple(sorted(found, key=lambda change: (change.module, change.name))) for found in some
    )


def _positions(
    model: nn.Module, depth: Depth, read: set[tuple[str, str]]
) -> Iterator[AttributeChange]:
    """Integers that equal the position of a block, up to a constant, in every block of a list."""
    attributes = {path: structural_attributes(m) for path, m in model.named_modules()}
    for path, names in depth.names.items():
        inside = {
            (other[len(below(path, names[0])) :], name)
            for other, found in attributes.items()
            if f"{other}.".startswith(f"{below(path, names[0])}.")
            for name, value in found.items()
            if type(value) is int
        }
        for relative, name in sorted(inside):
            places = [below(path, child) + relative for child in names]
            values = [attributes.get(place, {}).get(name) for place in places]
            first = values[0]
            if first is None or values != [first + i for i in range(len(names))]:
                continue
            if any((place, name) in read for place in places):
                continue
            kept = [place for place in places if depth.renamed(place) is not None]
            for k, place in enumerate(kept):
                before = attributes[place][name]
                if before != first + k:
                    yield AttributeChange(place, name, before, first + k)


def _counts(model: nn.Module, depth: Depth) -> Iterator[AttributeChange]:
    """Integers of the modules around a list that equal its length."""
    held = object_attributes(model)
    for group in depth.lists:
        after = group.size - len(group.removed)
        path = "" if group.name == ROOT else group.name
        while path:
            path = path.rpartition(".")[0]
            found = {**structural_attributes(model.get_submodule(path)), **held.get(path, {})}
            for name, value in found.items():
                if type(value) is int and value == group.size:
                    yield AttributeChange(path, name, value, after)


def _described(model: nn.Module, graph: Graph, depth: Depth) -> Changes | None:
    """The changes by which the model's class makes the shallower model from its configuration; None
    if it makes none.
    """
    construction = next((c for c in graph.constructions if c.path == ""), None)
    if construction is None or construction.original is None:
        return None
    fields = _fields(construction, model, graph, depth)
    base, fresh = (_model_of(construction, given) for given in ({}, fields))
    if fields is None or base is None or fresh is None:
        return None
    made = dict(fresh.named_modules())
    fields_changes = [
        AttributeChange("", f"{NAME}.{field}", before, after)
        for field, after in fields.items()
        if (before := _held(model, field)) != after
    ]
    known = {change.name for change in fields_changes}
    before, after, own = (object_attributes(one) for one in (base, fresh, model))
    found = list(fields_changes)
    modules = dict(model.named_modules())
    for path, module in base.named_modules():
        new = depth.renamed(path)
        if new is None or new not in made or path not in modules:
            continue
        was = {**structural_attributes(module), **before.get(path, {})}
        now = {**structural_attributes(made[new]), **after.get(new, {})}
        have = {**structural_attributes(modules[path]), **own.get(path, {})}
        for name, value in was.items():
            changed = name in now and now[name] != value and have.get(name) == value
            if changed and (path or name not in known):
                found.append(AttributeChange(path, name, value, now[name]))
    return tuple(sorted(found, key=lambda change: (change.module, change.name)))


def _model_of(construction: Any, fields: Mapping[str, Any] | None) -> nn.Module | None:
    if fields is None:
        return None
    made: nn.Module | None = construction.model(fields)
    return made


def _fields(
    construction: Construction, model: nn.Module, graph: Graph, depth: Depth
) -> Mapping[str, Any] | None:
    """The fields of the configuration of the shallower model, None if there are none."""
    sizes: dict[int, frozenset[int]] = {}
    for group in depth.lists:
        after = group.size - len(group.removed)
        sizes[group.size] = sizes.get(group.size, frozenset()) | {after}
    specs = depth.tensors(TensorSpec(t.names, t.shape, t.kind) for t in graph.tensors)
    wanted = Tables({name: spec.shape for spec in specs for name in spec.names}, {})
    lists, shorter = dict(_lists(model, depth)), _with_buffers(construction, depth)
    for given in (lists, {}) if lists else ({},):
        found = describe(shorter, wanted, {}, given, frozenset(), sizes)
        counted = any(type(value) is int for value in found.fields.values())
        if not found.difference and (counted or not given):
            return found.fields
    return None


def _with_buffers(construction: Any, depth: Depth) -> Construction:
    """The construction with the computed buffers of the shallower model to compare with."""
    computed = construction.computed
    if any(buffer.is_meta for buffer in computed.values()):
        base = construction.model({})
        computed = {**computed, **({} if base is None else dict(base.named_buffers()))}
    names = {name: depth.renamed(name) for name in construction.computed}
    left = {new: computed[name] for name, new in names.items() if new is not None}
    renamed: Construction = replace(construction, computed=left)
    return renamed


def _lists(model: nn.Module, depth: Depth) -> Iterator[tuple[str, Any]]:
    """The fields of the configuration with one entry for each block, without those removed."""
    for path, name, held in held_objects(model):
        if path or name.split(".")[0] != NAME:
            continue
        for field, value in public(held):
            entries = plain(value, (int, bool, str, float))
            if not isinstance(entries, tuple):
                continue
            for group in depth.lists:
                if len(entries) == group.size:
                    kept = [e for i, e in enumerate(entries) if i not in set(group.removed)]
                    yield f"{name}.{field}".removeprefix(f"{NAME}."), tuple(kept)
                    break


def _held(model: nn.Module, field: str) -> Any:
    held: Any = vars(model)[NAME]
    for part in field.split("."):
        held = vars(held).get(part)
    return plain(held, (int, bool, str, float))
