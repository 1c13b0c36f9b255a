"""The demo's yardstick, in a process of its own: transformers' `generate` on the same model, core and prompts.

`python -m nacre.cli.reference --job FILE --target DIR …` announces itself as a service does, then prints one line
`result {json}` per prompt. Timed is plain sampling (greedy at temperature 0); its text is another one, because its
noise is. In fp32 a second, untimed pass draws with the race rule over transformers' own logits: those tokens must be
equal.

Rule: nothing of the engine takes part but the loading of the weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nacre.bench.yardsticks import never_ending, write
from nacre.engine import load_model
from nacre.errors import NacreError
from nacre.runtime.service import announce_ready
from nacre.sampling import History, RowContext, SamplingParams, choose_rows

WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What to write: `seeds[i]` belongs to `prompts[i]`. `check` asks for the race rule's tokens too."""

    prompts: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    max_tokens: int
    temperature: float
    check: bool

    @staticmethod
    def load(path: Path) -> Job:
        raw = json.loads(path.read_text())
        return Job(**{**raw, "prompts": tuple(map(tuple, raw["prompts"])), "seeds": tuple(raw["seeds"])})


@torch.inference_mode()
def race_tokens(model: Any, prompt: Sequence[int], tokens: int, temperature: float, seed: int) -> list[int]:
    """The race rule over transformers' logits, one token at a time: what every run of Nacre must have written."""
    params = SamplingParams(temperature=temperature)
    history = History(prompt)
    written: list[int] = []
    cache, pending = None, list(prompt)
    while len(written) < tokens:
        answer = model(torch.tensor([pending], device=model.device), past_key_values=cache, use_cache=True)
        logits = answer.logits[0, -1:].float().cpu().numpy()  # [1, vocab]
        row = RowContext(params, key=seed, position=len(prompt) + len(written), history=history)
        token = choose_rows(logits, [row])[0].token
        written.append(token)
        history.append(token)
        cache, pending = answer.past_key_values, [token]
    return written


def main() -> int:
    parser = argparse.ArgumentParser(prog="nacre reference")
    for flag in ("--job", "--target", "--dtype", "--device"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--threads", type=int, required=True)
    flags = parser.parse_args()
    try:
        loaded = load_model(flags.target, dtype=flags.dtype, device=flags.device, threads=flags.threads)
    except NacreError as error:
        print(f"nacre reference: {error.message}", file=sys.stderr)
        return 2
    model, job = never_ending(loaded.model), Job.load(Path(flags.job))
    write(model, job.prompts[0], WARM_UP_TOKENS, job.temperature, 0)
    announce_ready(service="reference")
    for prompt, seed in zip(job.prompts, job.seeds, strict=True):
        tokens, times, _ = write(model, prompt, job.max_tokens, job.temperature, seed)
        result = {
            "tokens": len(tokens),
            "first_s": times[0],
            "total_s": times[-1],
            "expected": race_tokens(model, prompt, job.max_tokens, job.temperature, seed) if job.check else None,
        }
        print("result " + json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
