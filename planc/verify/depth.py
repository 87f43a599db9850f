"""Plans that remove blocks: derive the shallower model again, and compare it with the original run
without these blocks.

The widths of such a plan are those of the shallower model: :func:`split` gives the plan for it, to
be verified like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from planc.analysis import analyze
from planc.analysis.blocks import block_lists
from planc.analysis.outputs import freed
from planc.apply.renewal import storage_id
from planc.apply.rewrite import rewritten
from planc.apply.validate import Call, example_call, width_plan
from planc.compile.outline import outline
from planc.compile.shallow import Shallow, shallower
from planc.errors import PolicyError, VerificationError
from planc.modules.copies import clone
from planc.modules.tree import tensors_by_name
from planc.plan import fingerprint
from planc.plan.depth import REMOVED_BLOCKS, is_list, path_of
from planc.plan.plan import AttributeChange, Fingerprints, Plan
from planc.trace import trace
from planc.verify.outputs import difference, run, tolerance_of


@dataclass(frozen=True, eq=False)
class Split:
    """The shallower model, the plan for its widths, and the checks of the rest in words.

    ``not_shown`` are those of the ``checks`` that tell why something was not compared.
    """

    shallow: Shallow
    plan: Plan
    checks: tuple[str, ...]
    not_shown: tuple[str, ...]


def split(plan: Plan, model: nn.Module, call: Call, tolerance: float | None) -> Split:
    """Remove the blocks of ``plan`` again, and prove that the rest computes as before.

    Raises:
        VerificationError: the blocks cannot be removed, or the plan says something else about them.
    """
    graph = trace(model, *call)
    lists = block_lists(graph)
    groups = {path_of(group): group for group in plan.groups if is_list(group)}
    if list(groups) != [one.path for one in lists]:
        raise VerificationError(
            f"the plan has the lists of blocks {list(groups)}, the model {[x.path for x in lists]}"
        )
    removed = {path: frozenset(group.removed) for path, group in groups.items()}
    for one in lists:
        for unit in sorted(removed[one.path]):
            if unit not in one.blocks:
                reason = one.reasons.get(unit, "there is no such block")
                raise VerificationError(f"block {unit} of {one.path} cannot be removed: {reason}")
    try:
        shallow = shallower(model, *call, graph, lists, removed)
    except PolicyError as error:
        raise VerificationError(f"the plan breaks a constraint: {error}") from error
    inner = _inner(plan, shallow)
    _check_lists(plan, shallow, model)
    count = sum(map(len, removed.values()))
    text = f"{count} blocks removed: all other operators have the same arguments as before"
    _check_memory(shallow, model)
    left = _not_compared(shallow, model)
    compared = left or _compared(plan, shallow, model, call, tolerance)
    return Split(shallow, inner, (text, compared), (left,) if left else ())


def _check_memory(shallow: Shallow, model: nn.Module) -> None:
    """Check that every tensor of the shallower model is the original's of its old name."""
    before = tensors_by_name(model)
    for name, tensor in tensors_by_name(shallow.model).items():
        old = shallow.depth.original(name)
        if old not in before or storage_id(before[old]) != storage_id(tensor):
            raise VerificationError(f"{name}: is not {old} of the original")


def _not_compared(shallow: Shallow, model: nn.Module) -> str:
    """The reason why outputs without the blocks cannot be compared, empty if they can."""
    if any(tensor.is_meta for tensor in tensors_by_name(model).values()):
        return "blocks not compared by outputs: on the meta device there are no numbers"
    if shallow.graph.data_dependent:
        return "blocks not compared by outputs: without them, the model decides in another way"
    if shallow.graph.unwritable:
        return f"blocks not compared by outputs: {shallow.graph.unwritable}"
    return ""


def _compared(
    plan: Plan, shallow: Shallow, model: nn.Module, call: Call, tolerance: float | None
) -> str:
    """Compare the outputs of the shallower model with those of the original run without blocks."""
    analysis = analyze(shallow.graph)
    nothing = analysis.gone([()] * len(analysis.groups))
    whole = width_plan(plan).replace(attributes=())
    own = tensors_by_name(model)
    tensors = {t.name: _copy(own[t.name]) for t in shallow.graph.tensors}
    reference = rewritten(whole, analysis, nothing, tensors, model)
    allowed = tolerance or tolerance_of(model)
    found = run(shallow.model, call)
    error = difference(found, run(reference, call), allowed, "the original without these blocks")
    text = f"without other changes, outputs equal the original's with them skipped: {error:.1e}"
    if any(group.mixing for group in shallow.depth.lists):
        return text
    error = difference(found, run(_zeroed(model, shallow), call), allowed, "the masked original")
    return f"{text}, and with them zero: {error:.1e}"


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    copied = tensor.detach().clone()
    parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copied, requires_grad=False) if parameter else copied


def _zeroed(model: nn.Module, shallow: Shallow) -> nn.Module:
    """The original with zero parameters in the removed blocks."""
    paths = tuple(f"{path}." for path in shallow.depth.removed_paths())
    gone = {id(p) for name, p in model.named_parameters() if name.startswith(paths)}

    def replaced(tensor: torch.Tensor) -> torch.Tensor:
        new = tensor.detach().clone()
        new = new.zero_() if id(tensor) in gone else new
        parameter = isinstance(tensor, nn.Parameter)
        return nn.Parameter(new, requires_grad=tensor.requires_grad) if parameter else new

    return clone(model, replaced)


def _check_lists(plan: Plan, shallow: Shallow, model: nn.Module) -> None:
    """Compare the lists of blocks and the cost of the original with those of the plan."""
    for group, expected in zip(plan.groups, shallow.groups, strict=False):
        if group != replace(expected, removed=group.removed, scores=group.scores):
            raise VerificationError(
                f"{group.name}: the plan's list of blocks is {replace(group, scores=None)}, the "
                f"model's {expected}"
            )
    graph = trace(model, *example_call(plan, model))
    cost, listed = outline(analyze(freed(graph, plan)), "module").cost, plan.cost_before
    if (cost.macs, cost.params) != (listed.macs, listed.params):
        raise VerificationError(
            f"the plan's cost before is {listed}, that of the model {cost}; compile the plan again"
        )


def _renamed(shallow: Shallow, name: str) -> str:
    """The new name of a tensor or group; the old one if it goes with a block."""
    tensor, dim, rest = name.partition(":")
    return (shallow.depth.renamed(tensor) or tensor) + dim + rest


def _inner(plan: Plan, shallow: Shallow) -> Plan:
    """The plan for the shallower model."""
    depth = shallow.depth
    groups = tuple(
        replace(
            group,
            name=_renamed(shallow, group.name),
            members=tuple(replace(m, tensor=_renamed(shallow, m.tensor)) for m in group.members),
        )
        for group in plan.groups
        if not is_list(group)
    )
    first = {(change.module, change.name): change for change in shallow.changes}
    second = {(change.module, change.name): change for change in plan.attributes}
    changes = []
    for key in sorted(first.keys() | second.keys()):
        before = first[key].after if key in first else second[key].before
        after = second[key].after if key in second else first[key].before
        path = depth.renamed(key[0])
        if before != after and path is not None:
            changes.append(AttributeChange(path, key[1], before, after))
    modules = depth.modules(fingerprint.modules_after(plan.modules, shallow.changes))
    tensors = depth.tensors(plan.tensors)
    source = Fingerprints(
        fingerprint.attributes_digest(modules),
        fingerprint.structure_digest(groups),
        fingerprint.tensors_digest(tensors),
    )
    structure = fingerprint.pruned_structure(
        source.structure, tuple(tuple(group.removed) for group in groups)
    )
    return plan.replace(
        source=source,
        result=replace(plan.result, structure=structure),
        tensors=tensors,
        modules=modules,
        groups=groups,
        attributes=tuple(changes),
        requires=tuple(name for name in plan.requires if name != REMOVED_BLOCKS),
        provenance=tuple(replace(entry, weights=None) for entry in plan.provenance),
    )
