"""Selection: scores and a policy become a plan."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from planc import fingerprint
from planc.analysis import Analysis
from planc.configuration import with_configuration
from planc.criteria.random import checked_seed
from planc.criteria.scores import Scores
from planc.equations import Equations, Key
from planc.errors import AnalysisError, PolicyError
from planc.groups import Group
from planc.ir import Graph, Module
from planc.layers import Derived, derived, quotients
from planc.plan import (
    AttributeChange,
    Fingerprints,
    ModuleSpec,
    Plan,
    PlanGroup,
    Provenance,
    TensorSpec,
    WidthConstraint,
    cuts,
)
from planc.policy.budget import Budget, within
from planc.policy.closure import closed
from planc.policy.ratio import Counts, Policy
from planc.widths import Variable

Target = Literal["module", "graph"]


def select(
    analysis: Analysis,
    scores: Scores,
    policy: Policy,
    target: Target = "module",
    seed: int = 0,
    budget: Budget | None = None,
) -> Plan:
    """Chooses the units to remove and writes them down.

    Args:
        policy: how many units each group keeps; the model's constraints are obeyed afterwards,
            by removing less.
        budget: goes as far in the policy's order of units as the budget takes, and no further.
        target: "module" obeys what the eager module computes itself, "graph" does not have to.
        seed: recorded in the plan.

    Raises:
        PolicyError: the request cannot be met; says which part.
        InfeasibleBudget: no plan of this policy is within the budget; names the closest figure.
    """
    if target not in ("module", "graph"):
        raise PolicyError(f'target {target!r}: choose "module" or "graph"')
    checked_seed(seed)
    equations = analysis.equations(target)
    if budget is None:
        counts, made_by = closed(analysis, equations, scores, policy), str(policy)
    else:
        counts = within(analysis, equations, scores, policy, budget)
        made_by = f"{policy} within {budget}"
    removed = tuple(
        lowest(group, scores.units[g], counts[g]) for g, group in enumerate(analysis.groups)
    )
    return write_plan(analysis, removed, target, scores.criterion, made_by, seed)


def lowest(group: Group, scores: np.ndarray, kept: int) -> tuple[int, ...]:
    """The units with the lowest scores, equally many in each row; the first ones among equals."""
    rows = scores.reshape(group.rows, group.cells)
    goes = np.argsort(rows, axis=1, kind="stable")[:, : group.cells - kept]
    return tuple(
        np.sort((goes + np.arange(group.rows)[:, None] * group.cells).reshape(-1)).tolist()
    )


def write_plan(
    analysis: Analysis,
    removed: tuple[tuple[int, ...], ...],
    target: Target,
    criterion: str,
    policy: str,
    seed: int = 0,
) -> Plan:
    """The plan that removes these units of each group.

    Raises:
        PolicyError: the model cannot run without them; names the constraint.
    """
    graph = analysis.graph
    if graph.frontend == "export":
        raise PolicyError(
            "an exported graph does not say where the module takes its numbers from, nor what the "
            'recorder would see: make plans of graphs traced with frontend="record"'
        )
    if target == "graph" and graph.data_dependent:
        raise PolicyError(
            'target "graph": the control flow of this model depends on the values of its inputs, '
            'and one graph cannot hold it; choose target "module"'
        )
    counts = tuple(
        (group.size - len(units)) // group.rows
        for group, units in zip(analysis.groups, removed, strict=True)
    )
    equations = analysis.equations(target)
    _check(analysis, equations, counts, removed)
    tensors, modules, source = _source(analysis)
    groups = tuple(
        PlanGroup(x.name, x.kind, x.size, x.rows, x.members, analysis.mixing(g, target), removed[g])
        for g, x in enumerate(analysis.groups)
    )
    cut = cuts(tensors, groups)
    after = fingerprint.tensors_after(tensors, cut)
    shapes = analysis.shapes(analysis.gone(removed))
    for tensor, spec in zip(graph.tensors, after, strict=True):
        if shapes[tensor.value] != spec.shape:
            raise AnalysisError(
                f"{tensor.name}: the labels predict {shapes[tensor.value]}, the members give "
                f"{spec.shape}; please report this model"
            )
    changes = _attributes(analysis, equations, counts, after)
    if target == "module":
        changes = with_configuration(graph, changes, after, cut, shapes)
    else:  # only modules that are not traced into are there with their attributes
        leaves = tuple(f"{node.module}." for node in graph.nodes if node.leaf)
        changes = tuple(change for change in changes if f"{change.module}.".startswith(leaves))
    result = Fingerprints(
        fingerprint.attributes_digest(fingerprint.modules_after(modules, changes)),
        _pruned_structure(source.structure, removed),
        fingerprint.tensors_digest(after),
    )
    full = tuple(group.cells for group in analysis.groups)
    return Plan(
        source=source,
        result=result,
        tensors=tensors,
        modules=modules,
        groups=groups,
        attributes=changes,
        inputs=graph.input_spec,
        target=target,
        provenance=(Provenance(criterion, policy, seed, versions()),),
        cost_before=analysis.cost.price(full),
        cost_after=analysis.cost.price(counts),
        shapes=predicted_digest(analysis, shapes),
        constraints=_constraints(analysis, target),
    )


def _constraints(analysis: Analysis, target: Target) -> tuple[WidthConstraint, ...]:
    """What binds the widths, with the names of files but no paths, which differ by machine."""
    graph = analysis.graph
    files = {node.source[0] for node in graph.nodes}
    files |= {comparison.source[0] for comparison in graph.comparisons}
    files.discard("")
    longest = sorted(files, key=lambda file: (-len(file), file))

    def short(text: str) -> str:
        for file in longest:
            text = text.replace(file, Path(file).name)
        packed = text.encode()
        return text if len(packed) <= _TEXT else packed[:_TEXT].decode(errors="ignore") + " ..."

    return tuple(
        WidthConstraint(short(bound.text), short(bound.reason)) for bound in analysis.bounds(target)
    )


_TEXT = 1000  # bytes of a text for people, below the limit on strings in files


_Source = tuple[tuple[TensorSpec, ...], tuple[ModuleSpec, ...], Fingerprints]
_SOURCES: WeakKeyDictionary[Analysis, _Source] = WeakKeyDictionary()


def _source(analysis: Analysis) -> _Source:
    """The tables of the model that was traced and their fingerprints, the same for every plan."""
    if analysis not in _SOURCES:
        graph = analysis.graph
        tensors = tuple(TensorSpec(t.names, t.shape, t.kind) for t in graph.tensors)
        modules = tuple(
            ModuleSpec(m.path, tuple(sorted(m.attributes.items()))) for m in graph.modules.values()
        )
        fingerprints = Fingerprints(
            fingerprint.attributes_digest(modules),
            fingerprint.structure_digest(analysis.groups),
            fingerprint.tensors_digest(tensors),
        )
        _SOURCES[analysis] = (tensors, modules, fingerprints)
    return _SOURCES[analysis]


def _pruned_structure(source: bytes, removed: tuple[tuple[int, ...], ...]) -> bytes:
    """Names the structure that removing these units leaves of the source's."""
    return sha256(source + fingerprint.canonical(removed)).digest()


def predicted_digest(analysis: Analysis, shapes: list[tuple[int, ...]]) -> bytes:
    """Digest of each operator with the shapes that its results will have."""
    return fingerprint.shapes_digest(
        (node.op, [shapes[ref.id] for ref in node.outputs if ref is not None], node.literals)
        for node in analysis.graph.nodes
        if not node.idle
    )


def _check(
    analysis: Analysis,
    equations: Equations,
    counts: Counts,
    removed: tuple[tuple[int, ...], ...],
) -> None:
    for g, group in enumerate(analysis.groups):
        per_row = np.bincount(
            np.asarray(removed[g], dtype=np.int64) // group.cells, minlength=group.rows
        )
        if counts[g] < 1 or (per_row != group.cells - counts[g]).any():
            raise PolicyError(
                f"group {group}: {sorted(set((group.cells - per_row).tolist()))} units would stay "
                "in its rows; equally many, and at least one, must stay in each"
            )
    for g, reason in equations.whole.items():
        if removed[g]:
            raise PolicyError(f"group {analysis.groups[g]} must stay whole: {reason}")

    def value(variable: Variable) -> int:
        assert isinstance(variable, int)
        return counts[variable]

    def name(variable: Variable) -> str:
        assert isinstance(variable, int)
        return f"kept {analysis.groups[variable].name}"

    for constraint in equations.constraints:
        if not constraint.holds(value):
            raise PolicyError(
                f"{constraint.left.text(name)} = {constraint.left.value(value)} must equal "
                f"{constraint.right.text(name)} = {constraint.right.value(value)}: "
                f"{constraint.reason}"
            )


_Entries = tuple[tuple[str, Module, tuple[tuple[Derived, str], ...]], ...]
_ENTRIES: WeakKeyDictionary[Graph, _Entries] = WeakKeyDictionary()


def _derived(graph: Graph) -> _Entries:
    """The modules with attributes that the table of layers knows, each with its tensor."""
    if graph not in _ENTRIES:
        _ENTRIES[graph] = tuple(
            (
                path,
                module,
                tuple(
                    (entry, source)
                    for entry in derived(module)
                    for source in [entry.source(module, graph.shapes)]
                    if source is not None
                ),
            )
            for path, module in graph.modules.items()
        )
    return _ENTRIES[graph]


def _attributes(
    analysis: Analysis, equations: Equations, counts: Counts, after: tuple[TensorSpec, ...]
) -> tuple[AttributeChange, ...]:
    """The structural attributes that change: by the table of layers, and by the equations."""
    graph = analysis.graph
    shapes = {name: spec.shape for spec in after for name in spec.names}
    new: dict[tuple[str, str], Any] = {}

    def current(path: str, name: str) -> Any:
        return new.get((path, name), graph.modules[path].attributes[name])

    def of(variable: Variable) -> int:
        assert isinstance(variable, int)
        return counts[variable]

    for key, poly in equations.attributes.items():
        path, name, index = key
        new[path, name] = _replaced(current(path, name), index, poly.value(of))
    for path, module, entries in _derived(graph):
        for entry, source in entries:
            times = current(path, entry.times) if entry.times else 1
            new[path, entry.name] = shapes[source][entry.dim] * times
        for name, dividend, divisor in quotients(module):
            new[path, name] = current(path, dividend) // current(path, divisor)
    return tuple(
        AttributeChange(path, name, before, value)
        for (path, name), value in sorted(new.items())
        for before in [graph.modules[path].attributes[name]]
        if value != before
    )


def _replaced(value: Any, index: Key | tuple[int, ...], leaf: int) -> Any:
    """A nested tuple with one leaf replaced."""
    if not index:
        return leaf
    return tuple(
        _replaced(item, index[1:], leaf) if i == index[0] else item for i, item in enumerate(value)
    )


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Of what a plan is made with."""
    return (("planc", _version("planc")), ("torch", _version("torch").split("+")[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
