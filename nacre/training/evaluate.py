"""Measure a pair on held-out text: the target's loss, and how often the race accepts the draft's guesses.

Rule: acceptance is counted on the target's own continuations, drawn with the very noise that serving uses;
a guess is accepted if and only if it equals the token the target drew there. No acceptance probability is
estimated.

Both models are read along the continuation once (teacher-forced). At each place the draft ranks tokens by
log q / T + noise; its first k are its children. Depth d counts the places reached by d - 1 accepted guesses
in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.sampling.race_noise import noise_at
from nacre.training.lean_llama import Cache, LeanLlama

CHILDREN = (1, 2, 4, 8)
DEPTHS = 8


@torch.no_grad()
def held_out_loss(model: LeanLlama, stream: Tensor, window: int) -> float:
    """Mean nats per token over `stream`, cut into windows that share no context."""
    window = min(window, len(stream) - 1)
    starts = range(0, len(stream) - window, window)
    assert len(starts) > 0, "the stream is shorter than one window"
    total = 0.0
    for start in starts:
        piece = stream[start : start + window + 1]
        logits = model.logits(model(piece[None, :-1]))[0]
        total += float(F.cross_entropy(logits, piece[1:]))
    return total / len(starts)


@torch.no_grad()
def race_noise(vocab: int, key: int, first: int, positions: int) -> Tensor:
    """Gumbel noise -ln S of consecutive positions, [positions, vocab]."""
    ids = np.arange(vocab, dtype=np.int64)
    rows = [noise_at(ids, key, position) for position in range(first, first + positions)]
    return torch.from_numpy(-np.log(np.stack(rows)))


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the target wrote after a prompt, and the noise it wrote it with."""

    tokens: Tensor  # [prompt + depth]
    prompt_length: int
    noise: Tensor | None  # [depth, vocab]; None when greedy


@torch.no_grad()
def continue_prompt(
    target: LeanLlama, prompt: Sequence[int], temperature: float, depth: int, key: int
) -> Continuation:
    """The target's own race-sampled text, exactly as it would be served from these weights in fp32."""
    noise = None if temperature == 0 else race_noise(target.shape.vocab, key, len(prompt), depth)
    cache = Cache(target.shape, 1, len(prompt) + depth)
    tokens = torch.tensor(prompt)[None]
    last = tokens
    for step in range(depth):
        scores = target.logits(target(last, cache)[:, -1])  # [1, vocab]
        if noise is not None:
            scores = scores / temperature + noise[step]
        last = scores.argmax(-1, keepdim=True)
        tokens = torch.cat((tokens, last), dim=1)
    return Continuation(tokens[0], len(prompt), noise)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Measured acceptance at one temperature."""

    temperature: float
    positions: int
    by_children: dict[int, float]
    by_depth: tuple[float, ...]
    overlap: float
    race_temperature: float
    repeated_4grams: float


@torch.no_grad()
def race_acceptance(
    target: LeanLlama,
    draft: LeanLlama,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    *,
    depth: int = 96,
    children: Sequence[int] = CHILDREN,
    seed: int = 1,
) -> Acceptance:
    """Acceptance of the draft's best 1, 2, ... children at every place of the target's continuations of
    `prompts`.

    `by_children[k]` is the share of places where the target's token is among the draft's best k;
    `by_depth[d]` the share with one child at depth d + 1, given that all before were accepted; `overlap` is
    1 - TV.
    """
    ranks, overlaps, runs, scores, grams = [], [], [], [], []
    for index, prompt in enumerate(prompts):
        text = continue_prompt(target, prompt, temperature, depth, seed * 1_000_003 + index)
        drawn = text.tokens[text.prompt_length :]
        here = slice(text.prompt_length - 1, -1)
        log_q = draft.logits(draft(text.tokens[None]))[0, here].log_softmax(-1)  # [depth, vocab]
        log_p = target.logits(target(text.tokens[None]))[0, here].log_softmax(-1)
        divide = temperature if temperature > 0 else 1.0
        guess = log_q / divide if text.noise is None else log_q / divide + text.noise
        rank = (guess > guess.gather(1, drawn[:, None])).sum(-1)
        p, q = (log_p / divide).softmax(-1), (log_q / divide).softmax(-1)
        ranks.append(rank)
        overlaps.append(torch.minimum(p, q).sum(-1))
        runs.append(rank == 0)
        scores.append((guess, drawn))
        grams.append(_repeated_4grams(drawn.tolist()))
    rank = torch.cat(ranks)
    return Acceptance(
        temperature=temperature,
        positions=len(rank),
        by_children={k: float((rank < k).float().mean()) for k in children},
        by_depth=_by_depth(torch.stack(runs)),
        overlap=float(torch.cat(overlaps).mean()),
        race_temperature=_fit_race_temperature(scores),
        repeated_4grams=float(np.mean(grams)),
    )


def _by_depth(accepted: Tensor) -> tuple[float, ...]:
    """Acceptance at depth 1, 2, ... over all starting places of `accepted` [prompts, places]."""
    places = accepted.shape[1]
    alive = torch.ones(accepted.shape[0], places - DEPTHS + 1, dtype=torch.bool)
    rates = []
    for depth in range(DEPTHS):
        now = accepted[:, depth : places - DEPTHS + 1 + depth]
        rates.append(float((now & alive).sum() / alive.sum().clamp(min=1)))
        alive &= now
    return tuple(rates)


def _fit_race_temperature(scores: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The tau that makes softmax(perturbed draft scores / tau) the likeliest guess of the target's choice."""

    def mean_log_likelihood(tau: float) -> float:
        picked = [(guess / tau).log_softmax(-1).gather(1, drawn[:, None])[:, 0] for guess, drawn in scores]
        return float(torch.cat(picked).double().mean())

    grid = np.exp(np.linspace(np.log(0.02), np.log(4.0), 40))
    best = int(np.argmax([mean_log_likelihood(tau) for tau in grid]))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    fine = np.linspace(low, high, 21)
    return float(fine[int(np.argmax([mean_log_likelihood(tau) for tau in fine]))])


def _repeated_4grams(tokens: list[int]) -> float:
    """Share of 4-grams that occurred earlier in the same text: a looping text is easy to draft."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams)
