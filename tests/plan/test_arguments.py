"""Wrong arguments end in a PlancError that names them, whatever function they are given to."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planc
import planc.criteria
import planc.masks
import planc.policy
from planc.errors import PlancError
from tests.support.small import build

WRONG: tuple[Any, ...] = (
    None,
    True,
    3,
    -1,
    2.5,
    float("nan"),
    "no such thing",
    b"bytes",
    (),
    [3, None],
    {},
    {"a": 1},
    {3: 4},
    object(),
    len,
    int,
    nn.Linear,
    Path("no/such/path"),
    np.zeros((2, 3)),
    torch.zeros(2, 3),
)


@cache
def valid() -> dict[str, Any]:
    """One good value for each kind of argument."""
    model, inputs = build("residual")
    graph = planc.trace(model, inputs)
    analysis = planc.analyze(graph)
    plan = planc.compile(model, inputs, ratio=0.5)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    masks = planc.masks.select(model, planc.masks.PerTensor(0.5))
    masked, gone = planc.masks.apply(masks, model, keep_removed=True)
    loss: Callable[..., Any] = lambda model, batch: model(*batch).square().mean()  # noqa: E731
    return {
        "model": model,
        "inputs": inputs,
        "graph": graph,
        "analysis": analysis,
        "plan": plan,
        "smaller": smaller,
        "removed": removed,
        "masks": masks,
        "masked": masked,
        "gone": gone,
        "loss": loss,
        "scores": planc.score(analysis, model, "l2"),
        "statistics": planc.calibrate(model, [inputs], "taylor", loss, progress=False),
        "table": planc.measure_latency(analysis, timed=lambda calls: [1000] * len(calls)),
    }


@dataclass(frozen=True)
class Call:
    """A function with good arguments, by the names of its parameters."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


def calls(place: Path) -> Iterator[Call]:
    v = valid()
    plan, model, inputs, analysis = v["plan"], v["model"], v["inputs"], v["analysis"]
    planc.save_plan(plan, place / "p.planc")
    planc.save_masks(v["masks"], place / "m.masks")
    planc.save_latency(v["table"], place / "t.latency")
    planc.save_statistics(v["statistics"], place / "s.statistics")
    planc.save(place / "w.safetensors", v["smaller"], plan)
    from safetensors.torch import save_file

    save_file(dict(model.state_dict()), place / "o.safetensors")
    out = place / "out"
    given: dict[str, dict[str, Any]] = {
        "analyze": {"graph": v["graph"]},
        "apply": {"plan": plan, "target": model, "args": inputs, "kwargs": {}},
        "apply_files": {"plan": plan, "source": place / "o.safetensors", "target": out,
                        "workers": 1, "overwrite": True, "keep_removed": place / "removed"},
        "bake": {"model": model},
        "calibrate": {"model": model, "batches": [inputs], "criterion": "taylor",
                      "loss": v["loss"]},
        "compile": {"model": model, "args": inputs, "kwargs": {}, "ratio": 0.5,
                    "criterion": "l2", "seed": 0},
        "compose": {"first": plan, "second": planc.compile(v["smaller"], inputs)},
        "diff": {"plan_a": plan, "plan_b": plan},
        "edit": {"plan": plan, "model": model, "args": inputs, "kwargs": {}, "keep": (),
                 "remove": {}, "ratios": {}, "criterion": "l2", "weights": None},
        "explain": {"model": model, "args": inputs, "name": "stem.0", "kwargs": {}},
        "fold": {"model": model, "args": inputs, "kwargs": {}},
        "from_history": {"model": model, "args": inputs, "history": [["stem.0", True, [0]]]},
        "from_masks": {"model": model, "args": inputs, "masks": v["masks"]},
        "inspect": {"path": place / "w.safetensors"},
        "load": {"path": place / "w.safetensors", "model": model, "mode": "replay", "plan": plan},
        "load_latency": {"path": place / "t.latency"},
        "load_masks": {"path": place / "m.masks"},
        "load_optimizer": {"path": place / "w.safetensors"},
        "load_plan": {"path": place / "p.planc"},
        "load_statistics": {"path": place / "s.statistics"},
        "lossless": {"model": model, "args": inputs},
        "mask": {"plan": plan, "target": model},
        "measure_latency": {"analysis": analysis, "timed": lambda calls: [1000] * len(calls)},
        "next_step": {"schedule": planc.Schedule(macs=0.5), "model": model, "args": inputs},
        "recover": {"original": model, "pruned": v["smaller"], "args": inputs, "weights": None},
        "restore": {"plan": plan, "smaller": v["smaller"], "removed": v["removed"]},
        "restore_files": {"smaller": out, "removed": place / "removed", "target": place / "back",
                          "overwrite": True},
        "save": {"path": place / "again.safetensors", "model": v["smaller"], "plan": plan},
        "save_latency": {"table": v["table"], "path": place / "t2"},
        "save_masks": {"masks": v["masks"], "path": place / "m2"},
        "report": {"plan": plan, "other": plan, "third": None, "analysis": v["analysis"],
                   "out": place / "page.html", "names": ["a", "b"]},
        "save_plan": {"plan": plan, "path": place / "p2"},
        "save_statistics": {"statistics": v["statistics"], "path": place / "s2"},
        "score": {"analysis": analysis, "weights": model, "criterion": "l2"},
        "select": {"analysis": analysis, "scores": v["scores"],
                   "policy": planc.policy.Uniform(0.5)},
        "trace": {"model": model, "args": inputs, "kwargs": {}},
        "verify": {"plan": plan, "model": model, "smaller": v["smaller"], "args": inputs},
        "StoredWeights": {"path": place / "o.safetensors"},
        "masks.after": {"plan": plan, "masks": v["masks"]},
        "masks.apply": {"masks": v["masks"], "target": model, "form": "zeros"},
        "masks.attach": {"masks": v["masks"], "model": model},
        "masks.read": {"model": model},
        "masks.restore": {"masks": v["masks"], "masked": v["masked"], "removed": v["gone"]},
        "masks.select": {"model": model, "policy": planc.masks.PerTensor(0.5)},
        "criteria.named": {"name": "l2", "seed": 0},
    }  # fmt: skip
    for name, arguments in given.items():
        module, _, last = name.rpartition(".")
        home = getattr(planc, module) if module else planc
        yield Call(name, getattr(home, last), arguments)


NOT_CALLED = {"job", "rule"}  # a context without arguments; a decorator
RECORDS = {"Budget", "LatencyTable", "Limits", "MaskPlan", "Plan", "Schedule", "Step"}


def failure(call: Call, changed: dict[str, Any]) -> str:
    """What a call with other arguments raises, unless it is a PlancError with a message."""
    try:
        call.function(**{**call.arguments, **changed})
    except PlancError as error:
        return "" if str(error) else "no message"
    except OSError:  # of paths that do not exist
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.80}"
    return ""


def leaks(call: Call) -> Iterator[str]:
    """The wrong arguments that end in anything but a PlancError."""
    for name in inspect.signature(call.function).parameters:
        if name in ("options", "progress", "other_sizes", "limits", "timed", "run", "replay"):
            continue
        for wrong in (*WRONG, valid()["model"], valid()["plan"], valid()["inputs"]):
            if told := failure(call, {name: wrong}):
                yield f"{call.name}({name}={wrong!r:.60}): {told}"


@pytest.mark.long
def test_no_wrong_argument_ends_in_a_bare_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = [leak for call in calls(tmp_path) for leak in leaks(call)]
    assert not found, "\n" + "\n".join(found)
    assert not list(tmp_path.joinpath("here").glob("*.*"))


def test_every_public_function_is_in_the_table(tmp_path: Path) -> None:
    listed = {call.name for call in calls(tmp_path)}
    public = {name: getattr(planc, name) for name in planc.__all__}
    functions = {
        name
        for name, value in public.items()
        if not (isinstance(value, type) and issubclass(value, Exception))
    }
    assert functions - listed == NOT_CALLED | RECORDS


@pytest.mark.parametrize("wrong", ["x", None, -1, 2.5, [1], {}, object(), torch.zeros(2), int])
def test_parts_of_policies_and_criteria_that_make_no_sense_are_refused(wrong: Any) -> None:
    model, inputs = build("residual")
    uniform, norm = planc.policy.Uniform(0.5), planc.criteria.Magnitude(2)
    policies: tuple[Callable[[], Any], ...] = (
        lambda: planc.policy.Uniform(wrong),
        lambda: planc.policy.Global(wrong),
        lambda: planc.policy.PerCost(wrong),
        lambda: planc.policy.Capped(uniform, wrong),
        lambda: planc.policy.Floor(uniform, wrong),
        lambda: planc.policy.Rounded(uniform, wrong),
        lambda: planc.policy.Ratios(uniform, (("stem*", wrong),)),
    )
    criteria: tuple[Callable[[], Any], ...] = (
        lambda: planc.criteria.Random(wrong),
        lambda: planc.criteria.Magnitude(wrong),
        lambda: planc.criteria.Normalized(norm, wrong),
    )
    masks: tuple[Callable[[], Any], ...] = (
        lambda: planc.masks.PerTensor(wrong),
        lambda: planc.masks.GlobalElements(wrong),
        lambda: planc.masks.NofM(wrong, 4),
    )
    for make in policies:
        allowed(lambda make=make: planc.compile(model, inputs, policy=make()))  # type: ignore[misc]
    for make in criteria:
        allowed(lambda make=make: planc.compile(model, inputs, criterion=make()))  # type: ignore[misc]
    for make in masks:
        allowed(lambda make=make: planc.masks.select(model, make()))  # type: ignore[misc]


def allowed(call: Callable[[], Any]) -> None:
    """A call that works or is refused by a PlancError."""
    with contextlib.suppress(PlancError):
        call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda v: planc.apply("p.planc", v["model"]), "plan: .* str; read it with planc.load_pl"),
        (lambda v: planc.apply(v["model"], v["plan"]), "plan: .* Residual; the plan comes before"),
        (lambda v: planc.apply(v["masks"], v["model"]), "plan: .* MaskPlan; for mask plans there"),
        (lambda v: planc.save_plan("p", v["plan"]), "plan: .*planc.load_plan"),
        (lambda v: planc.load_plan(v["plan"]), "path: expected a path, got an object of type Plan"),
        (
            lambda v: planc.compile(*v["inputs"], v["model"]),
            "model: expected an nn.Module, got Ten",
        ),
        (lambda v: planc.score(v["analysis"], v["model"], "l3"), "unknown criterion 'l3': choose"),
        (
            lambda v: planc.masks.select(v["model"], planc.masks.NofM(), "wanda"),
            "needs statistics of inputs",
        ),
        (lambda v: planc.masks.select(v["model"], planc.masks.NofM(), "fpgm"), "measures units"),
        (lambda v: planc.masks.select(v["model"], planc.masks.NofM(), "rando"), "mean random"),
        (lambda v: planc.trace(v["model"], v["inputs"], 3), "kwargs is of type int"),
    ],
)
def test_messages_name_the_argument_and_the_remedy(call: Any, said: str) -> None:
    with pytest.raises(PlancError, match=said):
        call(valid())


def test_names_and_holders_of_plans_are_taken() -> None:
    v = valid()
    policy = planc.masks.PerTensor(0.25)
    for name in ("magnitude", "l1", "l2", "random"):
        assert planc.masks.select(v["model"], policy, name).removed
    found = planc.from_masks(v["model"], v["inputs"], masks=v["masks"])
    assert planc.apply(found, v["model"]).state_dict().keys() == v["model"].state_dict().keys()
    scores = planc.score(v["analysis"], v["model"], "random")
    assert scores.criterion == str(planc.criteria.Random(0))
