"""Two parts of the hot path beside what transformers takes for the same: a packed forward pass, a draft step.

Both sides run in turns in one process on one core, and the medians are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from nacre.drafting import TIP, DraftContext, Expansion
from nacre.engine import Engine, RowBlock, load_model
from nacre.models import located
from nacre.runtime.proposers import build_proposer
from nacre.runtime.settings import DrafterSettings
from nacre.sampling import SamplingParams

VOCABULARY_USED = 1000  # token ids of the made-up text; any will do


@torch.inference_mode()
def engine_overhead(
    target: str, dtype: str, threads: int, *, rows: int, context: int = 256, repeats: int = 40
) -> dict[str, Any]:
    """One session's pass of `rows` rows through the engine, over the plain model with its own cache: seconds each.

    Both compute the same rows of the same text; sampling belongs to neither.
    """
    plain, engine = _both(target, dtype, threads)
    random = np.random.default_rng(1)
    text = random.integers(1, VOCABULARY_USED, context + rows).tolist()
    sequence = engine.open("micro", text[:context])
    engine.step([RowBlock(sequence, tuple(text[:context]), logits_from=context, commit=True)])
    cache = DynamicCache(config=plain.config)
    plain(torch.tensor([text[:context]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    block_tokens, ids = tuple(text[context:]), torch.tensor([text[context:]])

    def ours() -> None:
        engine.step([RowBlock(sequence, block_tokens, logits_from=0)])

    def theirs() -> None:
        plain(ids, past_key_values=cache, use_cache=True)

    def undo() -> None:
        engine.advance(sequence, ())
        cache.crop(-rows)

    figures = _in_turns(ours, theirs, undo, repeats) | {"rows": rows, "context": context}
    engine.close(sequence)
    return figures


@cache
def _both(target: str, dtype: str, threads: int) -> tuple[Any, Engine]:
    """The plain model and the engine; loaded once, for the engine changes the model that it is given."""
    plain = load_model(located(target), dtype=dtype, device="cpu", threads=threads).model
    return plain, Engine(load_model(located(target), dtype=dtype, device="cpu", threads=threads))


@torch.inference_mode()
def draft_step(draft: str, *, context: int = 256, repeats: int = 60) -> dict[str, Any]:
    """One token of a chain, drafted as a drafter does it, over one forward pass of transformers on that model."""
    settings = DrafterSettings(draft=draft, children=1, threads=1)
    proposer = build_proposer(settings).proposer
    plain = load_model(located(draft), dtype="float32", device="cpu", threads=1).model
    random = np.random.default_rng(1)
    text = random.integers(1, VOCABULARY_USED, context).tolist()
    proposer.open(1, DraftContext(tuple(text), len(text), SamplingParams(), 1))
    path: list[int] = []
    cache = DynamicCache(config=plain.config)
    plain(torch.tensor([text]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    one = torch.tensor([[text[-1]]])

    def ours() -> None:
        ids = tuple(range(1, len(path) + 1))
        node = ids[-1] if ids else TIP
        guesses = proposer.propose([Expansion(1, node, tuple(path), ids)])[0]
        path.append(guesses[0].token)

    def theirs() -> None:
        plain(one, past_key_values=cache, use_cache=True)

    ours()  # reads the text
    return _in_turns(ours, theirs, lambda: None, repeats) | {"context": context}


def _in_turns(
    ours: Callable[[], None], theirs: Callable[[], None], undo: Callable[[], None], repeats: int
) -> dict[str, Any]:
    """Medians and quartiles of the pairwise ratio; the first tenth warms up."""
    pairs = []
    for turn in range(repeats):
        seconds = []
        for work in (ours, theirs):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        undo()
        if turn >= repeats // 10:
            pairs.append(seconds)
    mine, other = zip(*pairs, strict=True)
    draws = np.random.default_rng(1).integers(0, len(pairs), (1000, len(pairs)))
    table = np.array(pairs)
    ratios = np.median(table[draws, 0], axis=1) / np.median(table[draws, 1], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "ours_s": median(mine),
        "theirs_s": median(other),
        "ratio": median(mine) / median(other),
        "low": float(low),
        "high": float(high),
    }
