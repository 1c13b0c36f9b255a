"""Random rows for the sampler's tests: ordinary ones and ones chosen to be awkward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.sampling import History, RowContext, SamplingParams

KINDS = ("normal", "flat", "peaked", "ties", "one", "huge", "holes", "tiny steps")


@dataclass(frozen=True)
class Case:
    logits: np.ndarray
    row: RowContext
    prompt: list[int]
    output: list[int]


def random_logits(rng: np.random.Generator, vocab: int, kind: str) -> np.ndarray:
    values = rng.standard_normal(vocab)
    if kind == "normal":
        values *= 3
    elif kind == "flat":
        values[:] = rng.standard_normal()
    elif kind == "peaked":
        values *= 2
        values[rng.integers(vocab)] += 15
    elif kind == "ties":
        values = rng.integers(-2, 3, vocab).astype(float)
    elif kind == "one":
        values[:] = -np.inf
        values[rng.integers(vocab)] = rng.standard_normal()
    elif kind == "huge":
        values *= 1e6
    elif kind == "holes":
        values[rng.random(vocab) < 0.7] = -np.inf
        values[rng.integers(vocab)] = 0.0
    else:
        values = 10 + values * 1e-6
    return values.astype(np.float32)


def random_params(rng: np.random.Generator, vocab: int, logits: np.ndarray) -> SamplingParams:
    def sometimes(share: float) -> bool:
        return bool(rng.random() < share)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.choice(vocab, size=int(rng.integers(1, min(most, vocab) + 1)), replace=False).tolist())

    possible = int(np.argmax(logits))  # never banned, so that something is left
    return SamplingParams(
        temperature=float(rng.choice([0.0, 1e-6, 0.01, 0.3, 0.7, 1.0, 1.0, 1.5, 100.0, 1e6])),
        top_k=int(rng.choice([1, 2, 5, 50, 10**9])) if sometimes(0.3) else 0,
        top_p=float(rng.choice([1e-9, 0.1, 0.5, 0.9, 0.999999, 1 - 2**-53])) if sometimes(0.3) else 1.0,
        min_p=float(rng.choice([1e-12, 0.01, 0.2, 1.0])) if sometimes(0.2) else 0.0,
        repetition_penalty=float(rng.choice([0.5, 1.1, 1.3])) if sometimes(0.3) else 1.0,
        presence_penalty=float(rng.choice([-2.0, 0.5, 1.3])) if sometimes(0.2) else 0.0,
        frequency_penalty=float(rng.choice([-0.7, 0.1, 2.0])) if sometimes(0.2) else 0.0,
        logit_bias=tuple((t, float(b)) for t, b in zip(ids(5), rng.uniform(-100, 100, 5), strict=False))
        if sometimes(0.2)
        else (),
        allowed_ids=(*ids(20), possible) if sometimes(0.15) else None,
        banned_ids=tuple(t for t in ids(20) if t != possible) if sometimes(0.15) else (),
    )


def random_case(rng: np.random.Generator, vocab: int, top_logprobs: int = -1) -> Case:
    logits = random_logits(rng, vocab, str(rng.choice(KINDS)))
    prompt = rng.integers(0, vocab, int(rng.integers(0, 20))).tolist()
    output = rng.integers(0, vocab, int(rng.integers(0, 20))).tolist()
    row = RowContext(
        params=random_params(rng, vocab, logits),
        key=int(rng.integers(0, 2**64, dtype=np.uint64)),
        position=int(rng.choice([0, 1, int(rng.integers(0, 10**5)), 2**32 - 1, 2**33 + 5])),
        history=History(prompt, output),
        ancestors=tuple(rng.integers(0, vocab, int(rng.integers(0, 5))).tolist()),
        top_logprobs=top_logprobs,
    )
    return Case(logits, row, prompt, output)
