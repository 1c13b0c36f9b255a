"""Samples and what is read from them. Pure: no clock, no file, no process.

Definitions. A *message* is what brings tokens to the client at one moment. *tokens/s* is decoding speed: tokens after
the first message, over the time since it; sums over samples are divided, never averaged. *TTFT* is the time from the
request to the first message. *ITL* is the gap between two messages; *TPOT* is (last - first message) / (tokens - 1).
*Acceptance length* is committed tokens per verify pass, the verifier's own included; *acceptance rate* the share of
verified guesses that were right. *Rolled back* is the share of guesses sent that did not become text, *wasted rows* the
share of computed rows that did not. *Idle* is the share of the whole time, request to last message, in which the
verifier had no pass under way; for a drafter, in which its process used no processor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

#: What the parties counted over one sample; a key that nobody counted is missing.
COUNTS = (
    "passes",
    "rows",
    "verified",
    "accepted",
    "received",
    "draft_bytes",
    "commit_bytes",
    "wire_up_bytes",
    "wire_down_bytes",
    "verify_ms",
    "prefill_ms",
    "draft_steps",
    "draft_ms",
    "propose_ms",
    "drafter_busy_ms",
)
RESAMPLES = 2000
#: Interval that the bootstrap reports: 95 %.
TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt continued once. `arrivals_ms[i]` is when message i came, counted from the request.

    `pass_rows[i]` and `pass_ms[i]` are rows and duration of the passes that the client was told of.
    """

    scenario: str
    baseline: str
    rtt_ms: float
    temperature: float
    prompt: int
    seed: int
    tokens: tuple[int, ...]
    arrivals_ms: tuple[float, ...]
    arrival_tokens: tuple[int, ...]
    counts: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    pass_rows: tuple[int, ...] = ()
    pass_ms: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is a sample of; one result holds one of each."""
        return (self.scenario, self.baseline, self.rtt_ms, self.temperature, self.prompt, self.seed)

    @property
    def ttft_ms(self) -> float:
        return self.arrivals_ms[0]

    @property
    def decode_s(self) -> float:
        return (self.arrivals_ms[-1] - self.arrivals_ms[0]) / 1e3

    @property
    def decode_tokens(self) -> int:
        return sum(self.arrival_tokens[1:])

    def as_dict(self) -> dict[str, Any]:
        """What JSON takes. Not a deep copy: a run's samples are written many times."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Sample:
        lists = ("tokens", "arrivals_ms", "arrival_tokens", "pass_rows", "pass_ms")
        return Sample(**{**raw, **{name: tuple(raw[name]) for name in lists}})


def tokens_per_s(samples: Iterable[Sample]) -> float:
    tokens, seconds = 0, 0.0
    for sample in samples:
        tokens += sample.decode_tokens
        seconds += sample.decode_s
    return tokens / seconds if seconds > 0 else 0.0


def figures(samples: Sequence[Sample]) -> dict[str, float | None]:
    """The metrics of one baseline in one cell; None where what it needs was not counted."""
    tokens = sum(len(sample.tokens) for sample in samples)
    gaps = np.concatenate([np.diff(sample.arrivals_ms) for sample in samples] or [np.zeros(0)])

    def total(name: str) -> float | None:
        found = [sample.counts[name] for sample in samples if name in sample.counts]
        return sum(found) if len(found) == len(samples) and found else None

    def share(part: float | None, whole: float | None) -> float | None:
        return None if part is None or not whole else part / whole

    def per_token(name: str) -> float | None:
        return share(total(name), tokens)

    accepted, rows, received = total("accepted"), total("rows"), total("received")
    verify_ms, prefill_ms = total("verify_ms"), total("prefill_ms")
    whole_ms = sum(sample.arrivals_ms[-1] for sample in samples)

    def idle(busy_ms: float | None) -> float | None:
        return None if busy_ms is None or not whole_ms else max(0.0, 1 - busy_ms / whole_ms)

    return {
        "tokens_per_s": tokens_per_s(samples),
        "ttft_ms": float(np.median([sample.ttft_ms for sample in samples])),
        "itl_p50_ms": float(np.percentile(gaps, 50)) if len(gaps) else None,
        "itl_p99_ms": float(np.percentile(gaps, 99)) if len(gaps) else None,
        "tpot_ms": share(sum(s.decode_s for s in samples) * 1e3, sum(len(s.tokens) - 1 for s in samples)),
        "acceptance_length": share(tokens, total("passes")),
        "acceptance_rate": share(accepted, total("verified")),
        "verifier_s_per_token": None if verify_ms is None else share(verify_ms / 1e3, tokens),
        "verifier_idle_share": idle(None if verify_ms is None else verify_ms + (prefill_ms or 0.0)),
        "drafter_idle_share": idle(total("drafter_busy_ms")),
        "rows_per_token": per_token("rows"),
        "payload_up_bytes_per_token": per_token("draft_bytes"),
        "payload_down_bytes_per_token": per_token("commit_bytes"),
        "wire_up_bytes_per_token": per_token("wire_up_bytes"),
        "wire_down_bytes_per_token": per_token("wire_down_bytes"),
        "rolled_back_share": None if received is None or accepted is None else share(received - accepted, received),
        "wasted_rows_share": None if rows is None else share(max(0.0, rows - tokens), rows),
        "repeated_4gram_share": repeated_share(sample.tokens for sample in samples),
    }


def repeated_share(texts: Iterable[Sequence[int]], n: int = 4) -> float:
    """Share of n-grams that occurred before in the same text: how much a model loops."""
    repeated = whole = 0
    for text in texts:
        grams = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        whole += sum(grams.values())
        repeated += sum(grams.values()) - len(grams)
    return repeated / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure over another one with its 95 % interval, and from how many prompts."""

    value: float
    low: float
    high: float
    prompts: int


def ratio(samples: Sequence[Sample], against: Sequence[Sample], seed: int = 0) -> Ratio | None:
    """How many times faster `samples` decode than `against`, over the prompts both have; None without such prompts.

    The interval is a percentile bootstrap over prompts: all samples of a prompt are drawn together.
    """
    prompts = sorted({s.prompt for s in samples} & {s.prompt for s in against})
    if not prompts:
        return None
    fast, slow = _by_prompt(samples, prompts), _by_prompt(against, prompts)
    picks = np.random.default_rng(seed).integers(0, len(prompts), (RESAMPLES, len(prompts)))

    def of(chosen: np.ndarray) -> np.ndarray:
        """Ratio per row of `chosen` [n, prompts], indices into `prompts`."""
        a, b = fast[chosen].sum(axis=1), slow[chosen].sum(axis=1)  # [n, 2] each: tokens, seconds
        return np.asarray((a[:, 0] / a[:, 1]) / (b[:, 0] / b[:, 1]))

    value = float(of(np.arange(len(prompts))[None, :])[0])
    low, high = np.quantile(of(picks), [TAIL, 1 - TAIL])
    return Ratio(value, float(low), float(high), len(prompts))


def ttft_ratio(samples: Sequence[Sample], against: Sequence[Sample], seed: int = 0) -> Ratio | None:
    """Median TTFT of `samples` over that of `against`, over the texts both have; None without such texts.

    The interval is a percentile bootstrap over prompts, as that of `ratio`: a prompt's length decides its TTFT.
    """
    ours, theirs = ({_text(sample): sample.ttft_ms for sample in some} for some in (samples, against))
    by_prompt: dict[int, list[tuple[float, float]]] = {}
    for text in sorted(ours.keys() & theirs.keys()):
        by_prompt.setdefault(text[0], []).append((ours[text], theirs[text]))
    if not by_prompt:
        return None
    tables = [np.array(pairs) for pairs in by_prompt.values()]  # [texts of the prompt, 2] each

    def of(chosen: Iterable[int]) -> float:
        mine, other = np.median(np.concatenate([tables[index] for index in chosen]), axis=0)
        return float(mine / other)

    picks = np.random.default_rng(seed).integers(0, len(tables), (RESAMPLES, len(tables)))
    low, high = np.quantile([of(chosen) for chosen in picks], [TAIL, 1 - TAIL])
    return Ratio(of(range(len(tables))), float(low), float(high), len(tables))


def _text(sample: Sample) -> tuple[int, int, float]:
    """Prompt, seed and temperature: what makes two samples continue the same prompt with the same noise."""
    return (sample.prompt, sample.seed, sample.temperature)


def _by_prompt(samples: Sequence[Sample], prompts: Sequence[int]) -> np.ndarray:
    """[prompts, 2]: decoded tokens and decoding seconds of each prompt."""
    place = {prompt: index for index, prompt in enumerate(prompts)}
    table = np.zeros((len(prompts), 2))
    for sample in samples:
        if sample.prompt in place:
            table[place[sample.prompt]] += (sample.decode_tokens, sample.decode_s)
    return table
