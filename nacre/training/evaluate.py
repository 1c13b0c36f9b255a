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
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.sampling.race_noise import noise_at
from nacre.training.lean_llama import Cache, LeanLlama
from nacre.training.parallel import Workers

CHILDREN = (1, 2, 4, 8)
DEPTHS = 8
LOSS_TOKENS = 65_536


def held_out_loss(model: LeanLlama, stream: Tensor, window: int, workers: Workers) -> float:
    """Mean nats per token over windows that share no context, spread evenly over `stream` (at most LOSS_TOKENS)."""
    apart = max(window, (len(stream) - window) // max(1, LOSS_TOKENS // window))
    starts = range(0, len(stream) - window, apart)
    assert len(starts) > 0, f"{len(stream)} tokens are less than one window of {window}"

    @torch.no_grad()
    def loss(start: int) -> float:
        piece = stream[start : start + window + 1]
        return float(F.cross_entropy(model.logits(model(piece[None, :-1]))[0], piece[1:]))

    return float(np.mean(workers.map(loss, starts)))


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
def continue_prompt(target: LeanLlama, prompt: Sequence[int], temperature: float, depth: int, key: int) -> Continuation:
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


def race_acceptance(
    target: LeanLlama,
    draft: LeanLlama,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    workers: Workers,
    *,
    depth: int = 96,
    children: Sequence[int] = CHILDREN,
    seed: int = 1,
) -> Acceptance:
    """Acceptance of the draft's best 1, 2, ... children at every place of the target's continuations.

    `by_children[k]` is the share of places where the target's token is among the draft's best k; `by_depth[d]`
    the share with one child at depth d + 1, given that all before were accepted; `overlap` is 1 - TV. Each of
    `prompts` is continued by `depth` tokens, at least DEPTHS.
    """
    assert depth >= DEPTHS
    read = partial(_read_continuation, target, draft, temperature, depth, seed)
    places = workers.map(read, enumerate(prompts))
    rank = torch.cat([place.rank for place in places])
    return Acceptance(
        temperature=temperature,
        positions=len(rank),
        by_children={k: float((rank < k).double().mean()) for k in children},
        by_depth=_by_depth(torch.stack([place.rank == 0 for place in places])),
        overlap=float(torch.cat([place.overlap for place in places]).double().mean()),
        race_temperature=_fit_race_temperature(places, workers),
        repeated_4grams=float(np.mean([_repeated_4grams(place.drawn.tolist()) for place in places])),
    )


@dataclass(frozen=True, slots=True)
class _Places:
    """What was seen at each place of one continuation."""

    scores: Tensor  # [depth, vocab], the draft's perturbed scores
    drawn: Tensor  # [depth], the target's tokens
    rank: Tensor  # [depth], how many tokens the draft preferred to the target's
    overlap: Tensor  # [depth], 1 - TV


@torch.no_grad()
def _read_continuation(
    target: LeanLlama,
    draft: LeanLlama,
    temperature: float,
    depth: int,
    seed: int,
    numbered: tuple[int, Sequence[int]],
) -> _Places:
    index, prompt = numbered
    text = continue_prompt(target, prompt, temperature, depth, seed * 1_000_003 + index)
    drawn = text.tokens[text.prompt_length :]
    here = slice(text.prompt_length - 1, -1)
    divide = temperature if temperature > 0 else 1.0
    log_q = draft.logits(draft(text.tokens[None]))[0, here].div(divide).log_softmax(-1)  # [depth, vocab]
    log_p = target.logits(target(text.tokens[None]))[0, here].div(divide).log_softmax(-1)
    scores = log_q if text.noise is None else log_q + text.noise
    return _Places(
        scores=scores,
        drawn=drawn,
        rank=(scores > scores.gather(1, drawn[:, None])).sum(-1),
        overlap=torch.minimum(log_p.exp(), log_q.exp()).sum(-1),
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


def _fit_race_temperature(places: Sequence[_Places], workers: Workers) -> float:
    """The tau that makes softmax(perturbed draft scores / tau) the likeliest guess of the target's choice."""

    @torch.no_grad()
    def mean_log_likelihood(tau: float) -> float:
        picked = [(p.scores / tau).log_softmax(-1).gather(1, p.drawn[:, None]) for p in places]
        return float(torch.cat(picked).double().mean())

    def best_of(taus: np.ndarray) -> int:
        return int(np.argmax(workers.map(mean_log_likelihood, taus.tolist())))

    coarse = np.geomspace(0.02, 4.0, 24)
    best = best_of(coarse)
    fine = np.linspace(coarse[max(0, best - 1)], coarse[min(len(coarse) - 1, best + 1)], 21)
    return float(fine[best_of(fine)])


def _repeated_4grams(tokens: list[int]) -> float:
    """Share of 4-grams that occurred earlier in the same text: a looping text is easy to draft."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return 1 - len(set(grams)) / len(grams)
