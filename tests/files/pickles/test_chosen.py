"""Claims of finding a model's state dict in a training checkpoint: the dict that has most of the
model's names; two that fit alike are refused, and so is what is no tensor in it.
"""

from __future__ import annotations

import pytest

from planc.errors import MalformedFile, PlancError
from planc.files.pickles.chosen import Path, state_dict_in
from tests.support.strategies import example_plan

PLAN = example_plan()
NAMES = [name for spec in PLAN.tensors for name in spec.names]


def tensors(*outer: str, names: list[str] = NAMES) -> list[tuple[Path, str]]:
    return [((*outer, name), "tensor") for name in names]


STEP = [(("step",), "int")]
LOSSES = [(("losses", "first"), "float"), (("losses", "last"), "float")]


@pytest.mark.parametrize(
    ("entries", "best", "outside"),
    [
        ([], (), ()),
        (tensors(), (), ()),
        ([*tensors("model"), *STEP], ("model",), ("step",)),
        ([*STEP, *tensors("a", "model"), *LOSSES], ("a", "model"), ("losses", "step")),
        ([*tensors("a", "model"), (("a", "lr"), "float")], ("a", "model"), ("a.lr",)),
        ([*tensors("model"), *tensors("ema", names=NAMES[1:])], ("model",), ("ema",)),
        ([*tensors("ema", names=NAMES[1:]), *tensors("model")], ("model",), ("ema",)),
        ([*tensors(), *LOSSES], (), ("losses",)),
        ([*tensors("m"), *tensors("o", names=[*"abcdefghi"])], ("m",), ("o",)),
        ([*tensors("m"), (("m", "state", "x"), "int")], ("m",), ("m.state",)),
        (tensors(names=["other", "names"]), (), ()),
        (tensors("m", names=NAMES[:1]), ("m",), ()),
        ([((), "tensor"), *tensors("m")], ("m",), ("",)),
    ],
)
def test_the_dict_with_most_of_the_names_is_the_models(
    entries: list[tuple[Path, str]], best: Path, outside: tuple[str, ...]
) -> None:
    assert state_dict_in(entries, PLAN.tensors, "here") == (best, outside)
    assert state_dict_in(iter(entries), PLAN.tensors, "here") == (best, outside)


@pytest.mark.parametrize(
    ("entries", "kind", "words"),
    [
        ([*tensors("a"), *tensors("b")], PlancError, "here: holds .* under 'a' and under 'b'; s"),
        (
            [*tensors("a"), *tensors("b"), *tensors("c", "d")],
            PlancError,
            r"tensors under 'a' and under 'b' and under 'c\.d'; save one of them alone",
        ),
        ([*tensors(), *tensors("b")], PlancError, "under no name and under 'b'"),
        ([*tensors("m"), (("m", "step"), "int")], MalformedFile, r"here: 'm\.step' is a int; a st"),
        ([*tensors(), *STEP], MalformedFile, "'step' is a int"),
        (STEP, MalformedFile, "'step' is a int; .* save the model's state_dict"),
        ([((), "Linear")], MalformedFile, "here: no name is a Linear"),
        ([((), "tensor")], MalformedFile, "here: no name is a tensor; a state dict holds names"),
    ],
)
def test_what_is_no_choice_is_refused(
    entries: list[tuple[Path, str]], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        state_dict_in(entries, PLAN.tensors, "here")
