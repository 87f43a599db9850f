"""Plans on traced graphs: build the pruned, trainable ``torch.fx.GraphModule`` of a model
(:mod:`planc.apply.rewrite`).
"""

from __future__ import annotations

from torch import fx, nn

from planc.analysis import analyze
from planc.analysis.outputs import freed
from planc.apply.matching import check_model
from planc.apply.rewrite import rewritten
from planc.apply.tensors import copy_tensor, cut_tensor
from planc.apply.trials import bindings
from planc.apply.validate import Call, check_structure, compare_shapes
from planc.modules.tree import owned_tensors
from planc.plan.plan import Plan
from planc.trace import trace


def apply_graph(plan: Plan, model: nn.Module, call: Call, validate: bool = True) -> fx.GraphModule:
    """Return the pruned graph of ``model``.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the model is already the result of the plan.
        VerificationError: a shape differs from the prediction.
    """
    check_model(plan, model)
    analysis = analyze(freed(trace(model, *call), plan))
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
    return smaller
