"""A draft model's step, measured: `python -m nacre.engine.draft_bench [MODEL] [--prefix 300] [--json]`.

Beside it, in the same run and on the same thread: transformers' forward of one token with its own cache, and the packed
pass through transformers that models take which cannot be fused. And what 8 bits cost: how often the best guess, and
how many of the best four, are those of the plain model under the same noise, on text that the bundled pair never saw.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from nacre_kernels import describe
from tokenizers import Tokenizer
from transformers import DynamicCache

from nacre.drafting import DraftContext, Expansion
from nacre.drafting.model import ModelProposer
from nacre.engine.engine import Engine
from nacre.engine.loading import LoadedModel, load_model
from nacre.engine.rows import TIP, RowBlock
from nacre.models import held_out_prompts, located
from nacre.sampling import History, RowContext, SamplingParams

NODES = (1, 4, 8)
_AGREEMENT_TEXTS = 16


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nacre.engine.draft_bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", nargs="?", default="demo-draft", help="directory, hub id or bundled name")
    parser.add_argument("--prefix", type=int, default=300, help="committed tokens before the step (default 300)")
    parser.add_argument("--steps", type=int, default=60, help="steps per figure (default 60)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(argv)
    result = measure(located(args.model), args.prefix, args.steps)
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("".join(f"{name:28} {value}\n" for name, value in result.items()))
    return 0


def measure(path: str, prefix: int, steps: int) -> dict[str, object]:
    """All figures; times are medians in milliseconds."""

    def load() -> LoadedModel:
        return load_model(path, dtype="float32", threads=1)

    plain, loaded = load(), load()
    tokenizer = Tokenizer.from_file(str(plain.tokenizer_path))
    texts = [tuple(tokenizer.encode(text).ids) for text in held_out_prompts(_AGREEMENT_TEXTS, characters=4000)]
    text = texts[0][:prefix]
    engine = Engine(loaded, kv_bytes=256 << 20, exact=False)
    result: dict[str, object] = {
        "kernels": describe(),
        "numerics": engine.info.numerics,
        "transformers_forward_ms": _transformers_forward(plain, text, steps),
    }
    packed = Engine(load(), kv_bytes=256 << 20, exact=False, fused=False)
    for name, one in (("packed", packed), ("engine", engine)):
        for nodes in NODES:
            result[f"{name}_step_{nodes}_ms"] = _engine_step(one, text, nodes, steps)
    for name, one in (("packed", packed), ("engine", engine)):
        for nodes in NODES:
            result[f"{name}_propose_{nodes}_ms"] = _propose(one, text, nodes, steps)
    top_1, top_4 = _agreement(plain, engine, [text[:256] for text in texts])
    return {**result, "same_best_guess": top_1, "same_of_best_four": top_4}


def _median_ms(run: Callable[[int], None], steps: int) -> float:
    taken = []
    for step in range(steps):
        start_s = time.perf_counter()
        run(step)
        taken.append(time.perf_counter() - start_s)
    return round(1e3 * statistics.median(taken), 3)


def _transformers_forward(plain: LoadedModel, text: Sequence[int], steps: int) -> float:
    with torch.inference_mode():
        cache = DynamicCache(config=plain.model.config)
        plain.model(input_ids=torch.tensor([text]), past_key_values=cache)
        token = torch.tensor([[text[-1]]])
        return _median_ms(lambda _: plain.model(input_ids=token, past_key_values=cache), steps)


def _engine_step(engine: Engine, text: tuple[int, ...], nodes: int, steps: int) -> float:
    """A step of rivals below the tip; the time to free them again is in it."""
    sequence = engine.open("bench", ())
    engine.step([RowBlock(sequence, text, logits_from=len(text), commit=True)])
    block = RowBlock(sequence, text[:nodes], (TIP,) * nodes)

    def run(_: int) -> None:
        engine.step([block])
        engine.advance(sequence, ())

    taken = _median_ms(run, steps)
    engine.close(sequence)
    return taken


def _propose(engine: Engine, text: tuple[int, ...], nodes: int, steps: int) -> float:
    """What a drafter's thread does per step: rivals below the path so far, their logits, noise and guesses."""
    proposer = ModelProposer(engine, RowBlock, batch=nodes)
    proposer.open(0, DraftContext(text, len(text), SamplingParams(), 1))
    tokens: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    proposer.propose([Expansion(0, 0, (), ())])

    def run(step: int) -> None:
        nonlocal tokens, ids
        fresh = range(1 + step * nodes, 1 + (step + 1) * nodes)
        wanted = [Expansion(0, node, (*tokens, 5 + node % 90), (*ids, node)) for node in fresh]
        proposer.propose(wanted)
        tokens, ids = wanted[0].path_tokens[-8:], wanted[0].path_ids[-8:]
        if len(tokens) == 8:
            proposer.committed(0, tokens, ids)
            tokens, ids = (), ()

    taken = _median_ms(run, steps)
    proposer.close(0)
    return taken


def _agreement(plain: LoadedModel, engine: Engine, texts: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    same_best = same_four = rows = 0
    for key, text in enumerate(texts):
        sequence = engine.open(str(key), ())
        fused = engine.step([RowBlock(sequence, text, commit=True)]).logits
        engine.close(sequence)
        with torch.inference_mode():
            exact = plain.model(input_ids=torch.tensor([text]), use_cache=False).logits[0]
        contexts = [
            RowContext(params=SamplingParams(), key=key, position=position + 1, history=History())
            for position in range(len(text))
        ]
        mine, theirs = (engine.draft_scores(np.ascontiguousarray(x.numpy()), contexts, 4)[0] for x in (fused, exact))
        same_best += int((mine[:, 0] == theirs[:, 0]).sum())
        same_four += int((mine[:, :, None] == theirs[:, None, :]).any(axis=2).sum())
        rows += len(text)
    return round(same_best / rows, 4), round(same_four / (4 * rows), 4)


if __name__ == "__main__":
    sys.exit(main())
