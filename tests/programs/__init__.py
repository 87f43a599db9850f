"""Random small models, each the text of a module that a seed writes: convolutions, norms,
attention, recurrent layers, splits, reshapes and what else networks are made of, in random wiring.
Sizes come from shapes and attributes as often as from literals, and tensors are used more than
once. With borders (:mod:`tests.programs.borders`), programs also keep state, share it, and return
their results in containers of many kinds.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass

import torch
from torch import nn

from tests.programs import borders
from tests.programs.borders import KEYWORD
from tests.programs.draft import NAMESPACE, Draft
from tests.programs.images import IMAGE_STEPS
from tests.programs.oddities import RARE_IMAGE_STEPS, RARE_TOKEN_STEPS
from tests.programs.tokens import TOKEN_STEPS

_STEPS = {  # by the rank of what they work on
    4: (*IMAGE_STEPS, *RARE_IMAGE_STEPS),
    3: (*TOKEN_STEPS, *RARE_TOKEN_STEPS),
}
_WORDS = 11  # size of the vocabulary of programs that read words


@dataclass(frozen=True)
class Program:
    """The model that ``seed`` writes in ``length`` steps: its text, and the names of the steps."""

    seed: int
    length: int
    text: str
    steps: tuple[str, ...]
    words: bool
    bordered: bool = False
    keywords: bool = False

    def model(self) -> nn.Module:
        """The model, in eval mode."""
        name = f"<program {self.seed}>"
        linecache.cache[name] = (len(self.text), None, self.text.splitlines(True), name)
        namespace = NAMESPACE | borders.NAMESPACE | {"__name__": __name__}
        exec(compile(self.text, name, "exec"), namespace)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = namespace["Model"]()  # type: ignore[operator]
        assert isinstance(model, nn.Module)
        return model.eval()

    def inputs(self) -> tuple[torch.Tensor]:
        """Two images, or two rows of words."""
        generator = torch.Generator().manual_seed(self.seed)
        return (_inputs(self.words, generator),)

    def named(self) -> dict[str, torch.Tensor]:
        """The inputs that are taken by their names."""
        return {KEYWORD: borders.keyword()} if self.keywords else {}


def _inputs(words: bool, generator: torch.Generator) -> torch.Tensor:
    if words:
        return torch.randint(_WORDS, (2, 4), generator=generator)
    return torch.randn(2, 3, 4, 4, generator=generator)


def write(seed: int, length: int, with_borders: bool = False) -> Program:
    """The program of a seed: the same one on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _write(seed, length, with_borders)


def _write(seed: int, length: int, with_borders: bool) -> Program:
    draft = Draft(seed)
    draft.values |= borders.NAMESPACE
    words = bool(draft.rng.random() < 0.2)
    draft.values["x"] = _inputs(words, torch.Generator().manual_seed(seed))
    stem = f"nn.Embedding({_WORDS}, 8)" if words else "nn.Conv2d(3, 8, 1)"
    draft.give(f"{draft.layer(stem)}(x)")
    steps: list[str] = []
    while len(steps) < length:
        x = draft.recent()
        step = draft.choice(_STEPS[len(draft.shape(x))])
        before = len(draft.finished)
        step(draft, x, draft.channels(x))
        steps += [f"{step.__module__.rpartition('.')[2]}.{step.__name__}"] * (
            len(draft.finished) > before
        )
    around = borders.surround(draft, seed) if with_borders else []
    steps += [f"borders.{name}" for name in around]
    read = [draft.finished[-1], *(draft.choice(draft.finished) for _ in range(2))]
    outputs = [_head(draft, name) for name in dict.fromkeys(read)]
    result = borders.contained(outputs, seed) if with_borders else ", ".join(outputs)
    keywords = borders.scaled.__name__ in around
    lines = [
        "class Model(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        *(f"        {line}" for line in draft.setup),
        "",
        f"    def forward(self, x{f', *, {KEYWORD}' * keywords}):",
        *(f"        {line}" for line in draft.lines),
        f"        return {result}",
    ]
    return Program(
        seed, length, "\n".join(lines) + "\n", tuple(steps), words, with_borders, keywords
    )


def _head(draft: Draft, name: str) -> str:
    c = draft.channels(name)
    kind = "Conv2d({}, 2, 1)" if len(draft.shape(name)) == 4 else "Linear({}, 2)"
    return draft.let(f"{draft.layer('nn.' + kind.format(c))}({name})")
