"""Plans on traced graphs: a plan and a model in, the model's rewritten graph over its kept
coordinates out, a trainable ``torch.fx.GraphModule`` (:mod:`planc.apply.rewrite`).
"""

from __future__ import annotations

from torch import fx, nn

from planc.analysis import analyze
from planc.apply.matching import check_model
from planc.apply.renewal import Removed, collect_removed
from planc.apply.rewrite import rewritten
from planc.apply.tensors import copy_tensor, cut_tensor
from planc.apply.trials import bindings
from planc.apply.validate import Call, check_structure, compare_shapes
from planc.modules.tree import owned_tensors
from planc.plan.plan import Plan
from planc.trace import trace


def apply_graph(
    plan: Plan, model: nn.Module, call: Call, keep_removed: bool = False, validate: bool = True
) -> fx.GraphModule | tuple[fx.GraphModule, Removed]:
    """The traced graph of ``model`` without what the plan removes; with ``keep_removed`` also what
    was removed.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the model is what the plan makes of its source.
        VerificationError: a shape is not the predicted one.
    """
    check_model(plan, model)
    analysis = analyze(trace(model, *call))
    check_structure(plan, analysis)
    owned = owned_tensors(model)
    tensors = {}
    for entry in owned:
        name, old = entry.names[0], entry.tensor.detach()
        cut = plan.cuts.get(name)
        new = copy_tensor(old) if cut is None else cut_tensor(old, cut)
        if entry.kind == "parameter":
            new = nn.Parameter(new, requires_grad=entry.tensor.requires_grad)
        tensors[name] = new
    gone = analysis.gone([group.removed for group in plan.groups])
    bound = bindings(analysis.graph, model, call)
    smaller = rewritten(plan, analysis, gone, tensors, model, bound)
    for name in (name for entry in owned for name in entry.names):
        path, _, last = name.rpartition(".")
        if last in model.get_submodule(path)._non_persistent_buffers_set:
            smaller.get_submodule(path)._non_persistent_buffers_set.add(last)
    if validate:
        compare_shapes(plan, analysis, trace(smaller, *call))
    if not keep_removed:
        return smaller
    named = [(name, entry.tensor) for entry in owned for name in entry.names]
    return smaller, collect_removed(plan, named)
