"""What a plan file cannot say and JSON can: the same checks refuse it by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from planc.cli.report.plain import plan_from_json, plan_json
from planc.errors import FileError
from tests.files.formats.test_codec import set_in
from tests.support.strategies import example_plan

PLAN = example_plan()


def run(**changes: int) -> dict[str, int]:
    whole = {"unit": 0, "count": 6, "start": 0, "step": 1, "span": 1, "repeats": 1, "stride": 0}
    return whole | changes


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_in("groups.0.removed", [4, 1]), "groups[0].removed: not distinct units below 6"),
        (set_in("groups.0.removed", [1, 1]), "groups[0].removed: not distinct units below 6"),
        (set_in("groups.0.removed", [-1, 1]), "groups[0].removed: not distinct units below 6"),
        (set_in("groups.0.removed", [1, 6]), "groups[0].removed: not distinct units below 6"),
        (set_in("groups.0.removed", [1 << 70]), "groups[0].removed: not distinct units below 6"),
        (
            set_in("groups.0.removed", [0, 1, 2, 3, 4, 5]),
            "groups[0].removed: all 6 units, at least",
        ),
        (set_in("groups.2.removed", [0]), "groups[2].removed: rows of 3 lose [0, 1] units"),
        (set_in("groups.2.removed", [0, 1, 2]), "groups[2].removed: rows of 3 lose [0, 3] units"),
        (set_in("groups.0.size", 0), "groups[0].removed: 0 units in 1 rows"),
        (set_in("groups.0.rows", 0), "groups[0].removed: 6 units in 0 rows"),
        (set_in("groups.0.rows", 4), "groups[0].removed: 6 units in 4 rows"),
        (set_in("groups.0.members.0.tensor", "zz"), "members[0].tensor: 'zz' is no tensor's name"),
        (set_in("groups.0.members.0.tensor", "tied.weight"), "'tied.weight' is no tensor's name"),
        (set_in("groups.0.members.0.dim", -1), "members[0].dim: -1, a.weight has shape (6, 1)"),
        (set_in("groups.0.members.0.runs.0", run(count=0)), "is empty or runs backwards"),
        (set_in("groups.0.members.0.runs.0", run(span=0)), "is empty or runs backwards"),
        (set_in("groups.0.members.0.runs.0", run(repeats=0)), "is empty or runs backwards"),
        (set_in("groups.0.members.0.runs.0", run(stride=-1)), "is empty or runs backwards"),
        (set_in("groups.0.members.0.runs.0", run(unit=-1)), "units -1 to 4, the group has 6"),
        (
            set_in("groups.2.members.2.over", [0, -1, 2]),
            "members[2].over: 0[-1:2] is no range of another dimension of d.weight of shape (4, 3)",
        ),
        (
            set_in("groups.2.members.2.over", [-1, 0, 2]),
            "members[2].over: -1[0:2] is no range of another dimension",
        ),
        (
            set_in("groups.2.members.2.over", [2, 0, 2]),
            "members[2].over: 2[0:2] is no range of another dimension",
        ),
        (
            set_in("inputs.1.2.1", ["value", -(1 << 63) - 1]),
            "inputs[0][1][0]: ('value', -9223372036854775809) does not specify an input",
        ),
        (
            set_in("modules.1.attributes.2.1", -(1 << 63) - 1),
            "modules[1].attributes.out_features: -9223372036854775809 has more than 64 bits",
        ),
        (set_in("tensors.0.shape", [6, -1]), "MalformedFile"),
        (set_in("provenance.0.seed", -(1 << 63) - 1), "provenance[0].seed: -9223372036854775809"),
    ],
)
def test_a_field_that_contradicts_another_is_named(edit: Callable[[Any], None], words: str) -> None:
    plain = json.loads(json.dumps(plan_json(PLAN)))
    assert plan_from_json(plain) == PLAN
    edit(plain)
    with pytest.raises(FileError) as caught:
        plan_from_json(plain)
    assert words in f"{type(caught.value).__name__}: {caught.value}"
