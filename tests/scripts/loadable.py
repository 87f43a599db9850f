"""Loadable plans over families of transformers: compiled, pruned, saved and loaded again.

    python -m tests.scripts.loadable                      # the table of the families below
    python -m tests.scripts.loadable llama t5 --ratio 0.5

For each small random model and ratio: the parameters left, the fields changed, and the outcome of
``save_pretrained`` and plain ``from_pretrained``. "equal" stands for outputs equal bit for bit, and
for generation with a cache that equals generation without, where the model generates.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from typing import Any

import torch
from torch import nn

import planc
from planc.verify.outputs import run
from tests.zoo import transformers as zoo

FAMILIES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox", "gptj"),
    *("opt", "bloom", "falcon", "stablelm", "olmo2", "starcoder2", "cohere", "mpt"),
    *("mixtral", "olmoe", "deepseek_v3", "t5", "bart", "whisper", "marian"),
    *("bert", "roberta", "distilbert", "electra", "vit", "deit", "clip", "llava"),
)


def main() -> None:
    """Print a row for each family and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--ratio", type=float, action="append")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    _quiet()
    print(f"{'family':<16} {'ratio':>5} {'parameters':>10} {'seconds':>7}  outcome")
    good = 0
    for family in given.families:
        told = [_row(family, ratio) for ratio in given.ratio or (0.25, 0.5)]
        good += all(row.split("  ")[-1].startswith("equal") for row in told)
        print("\n".join(told), flush=True)
    print(f"{good} of {len(given.families)} families loaded equal at every ratio")


def _row(family: str, ratio: float) -> str:
    started = time.monotonic()
    kept, outcome = 1.0, f"no {family} in the table of models"
    if family in zoo.TABLE:
        try:
            kept, outcome = loaded(family, ratio)
        except Exception as error:  # a row says what failed
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:220]}"
    took = time.monotonic() - started
    return f"{family:<16} {ratio:>5.2f} {kept:>10.0%} {took:>7.1f}  {outcome}"


def loaded(family: str, ratio: float) -> tuple[float, str]:
    """The share of parameters kept, and the outcome of saving and loading."""
    model, inputs = zoo.build(family), zoo.example_inputs(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = planc.compile(model, (), inputs, ratio=ratio, loadable=True)
    smaller: Any = planc.apply(plan, model)
    with tempfile.TemporaryDirectory() as folder:
        smaller.save_pretrained(folder)
        again = type(smaller).from_pretrained(folder).eval()
    with torch.no_grad():
        same = all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
            for a, b in zip(run(again, ((), inputs)), run(smaller, ((), inputs)), strict=True)
        )
        outcome = ("equal" if same else "DIFFERENT outputs") + _generates(again, inputs)
    fields = [str(c) for c in plan.attributes if c.name.startswith("config.")]
    kept = plan.cost_after.params / plan.cost_before.params
    return kept, f"{outcome}; {', '.join(fields)}"


def _generates(model: nn.Module, inputs: dict[str, torch.Tensor]) -> str:
    """Compare generation with a cache and without."""
    generate = getattr(model, "generate", None)
    if generate is None or not model.can_generate():  # type: ignore[operator]
        return ""
    given = {name: value for name, value in inputs.items() if not name.startswith("decoder_")}
    options = {"max_new_tokens": 6, "do_sample": False}
    with_cache = generate(**given, **options, use_cache=True)
    without = generate(**given, **options, use_cache=False)
    return ", cache equal" if with_cache.equal(without) else ", CACHE DIFFERS"


def _quiet() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
