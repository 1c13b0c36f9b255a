"""What a request may ask of the sampler, and what one row of logits needs to choose its next token.

Rule: everything a choice depends on, besides the logits, is in one `RowContext`; nothing depends on the other rows
of the call. Values from outside are checked once, by `SamplingParams.validate`; the sampler itself trusts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nacre.errors import Internal, InvalidArgument, NacreError

# Temperatures below it are served as 0. The race at such temperatures is an argmax but for ties, and its fp32 scores
# would no longer resolve the noise.
MIN_TEMPERATURE = 1e-5
MAX_TEMPERATURE = 1e6
MAX_PENALTY = 2.0
MAX_BIAS = 100.0
MIN_REPETITION_PENALTY = 1e-3
MAX_REPETITION_PENALTY = 1e3
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The sampling parameters of one request. The defaults sample from the target's plain distribution.

    `repetition_penalty` looks at prompt and output, `presence_penalty` and `frequency_penalty` at the output only.
    `logit_bias` is (id, bias) pairs, each id once. `allowed_ids`, if not None, are the only ids that may be chosen.
    """

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_ids: tuple[int, ...] | None = None
    banned_ids: tuple[int, ...] = ()

    @property
    def greedy(self) -> bool:
        return self.temperature < MIN_TEMPERATURE

    def validate(self, vocab_size: int) -> None:
        """Raise InvalidArgument, naming the field, for the first value that can never be right."""
        _check_number(
            "temperature", self.temperature, 0.0, MAX_TEMPERATURE, "use 0 for greedy decoding, 1 for plain sampling"
        )
        _check_top_k(self.top_k)
        _check_number("top_p", self.top_p, 0.0, 1.0, "use 1 to switch it off", above_low=True)
        _check_number("min_p", self.min_p, 0.0, 1.0, "use 0 to switch it off")
        _check_number(
            "repetition_penalty",
            self.repetition_penalty,
            MIN_REPETITION_PENALTY,
            MAX_REPETITION_PENALTY,
            "use 1 to switch it off",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            _check_number(name, getattr(self, name), -MAX_PENALTY, MAX_PENALTY, "use 0 to switch it off")
        self._check_ids(vocab_size)

    def _check_ids(self, vocab_size: int) -> None:
        for token, bias in self.logit_bias:
            _check_id("logit_bias", token, vocab_size)
            _check_number(
                f"logit_bias of token {token}", bias, -MAX_BIAS, MAX_BIAS, "bring it into range", "logit_bias"
            )
        biased = sorted(token for token, _ in self.logit_bias)
        for token, following in itertools.pairwise(biased):
            if token == following:
                raise InvalidArgument(f"logit_bias names token {token} twice; give each token once", param="logit_bias")
        for token in self.banned_ids:
            _check_id("banned_ids", token, vocab_size)
        banned = set(self.banned_ids)
        if self.allowed_ids is None:
            if len(banned) == vocab_size:
                raise InvalidArgument(
                    f"banned_ids bans all {vocab_size} tokens; leave at least one", param="banned_ids"
                )
            return
        for token in self.allowed_ids:
            _check_id("allowed_ids", token, vocab_size)
        if banned.issuperset(self.allowed_ids):
            raise InvalidArgument(
                f"allowed_ids leaves 0 tokens to choose from after {len(banned)} banned ones; leave at least one",
                param="allowed_ids",
            )


def check_top_logprobs(count: int, param: str = "top_logprobs") -> None:
    """Raise InvalidArgument unless `count` alternatives per token may be asked for."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_TOP_LOGPROBS:
        raise InvalidArgument(
            f"{param} is {shown(count)}; it must be a whole number from 0 to {MAX_TOP_LOGPROBS}: ask for fewer",
            param=param,
        )


class History:
    """The tokens of one sequence as the penalties see them: which occurred, and how often in the output.

    One object per sequence, appended to as tokens are committed; rows refer to it and add their guessed ancestors.
    Its size is bounded by the number of distinct tokens.
    """

    __slots__ = ("_index", "_output_counts", "_size", "_tokens")

    def __init__(self, prompt: Iterable[int] = (), output: Iterable[int] = ()) -> None:
        distinct = dict.fromkeys(prompt)
        self._index = {token: slot for slot, token in enumerate(distinct)}
        self._size = len(distinct)
        self._tokens = np.array([*distinct, *[0] * 16], dtype=np.int64)
        self._output_counts = np.zeros(len(self._tokens), dtype=np.float32)
        for token in output:
            self.append(token)

    def __len__(self) -> int:
        """The number of distinct tokens."""
        return self._size

    def append(self, token: int) -> None:
        """Count one more token of the output."""
        slot = self._index.get(token)
        if slot is None:
            slot = self._new_slot(token)
        self._output_counts[slot] += 1.0

    def fork(self) -> History:
        """An independent copy (a second completion of the same prompt)."""
        other = History()
        other._index = dict(self._index)
        other._size = self._size
        other._tokens = self._tokens.copy()
        other._output_counts = self._output_counts.copy()
        return other

    def counts(self, ancestors: Sequence[int] = ()) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """(distinct tokens, how often each is in the output), with `ancestors` taken as further output.

        The arrays may be views: read them before the next append.
        """
        tokens, counts = self._tokens[: self._size], self._output_counts[: self._size]
        if not ancestors:
            return tokens, counts
        counts = counts.copy()
        unseen: dict[int, float] = {}
        for token in ancestors:
            slot = self._index.get(token)
            if slot is None:
                unseen[token] = unseen.get(token, 0.0) + 1.0
            else:
                counts[slot] += 1.0
        if not unseen:
            return tokens, counts
        return (
            np.concatenate([tokens, np.array(list(unseen), dtype=np.int64)]),
            np.concatenate([counts, np.array(list(unseen.values()), dtype=np.float32)]),
        )

    def _new_slot(self, token: int) -> int:
        slot = self._size
        if slot == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._output_counts = np.concatenate([self._output_counts, np.zeros_like(self._output_counts)])
        self._tokens[slot] = token
        self._index[token] = slot
        self._size += 1
        return slot


@dataclass(frozen=True, slots=True)
class RowContext:
    """All that one row of logits needs to choose its next token."""

    params: SamplingParams
    key: int  # noise key, u64
    position: int  # absolute index of the token to choose; the prompt counts
    history: History = field(default_factory=History)
    ancestors: tuple[int, ...] = ()  # guessed tokens from the committed tip to this row, root first, its own last
    top_logprobs: int = -1  # -1: no log-probability; 0: that of the chosen token; k: also the k best


@dataclass(frozen=True, slots=True)
class Choice:
    """The token a row chose. Log-probabilities are those of the target's raw logits (see `logprobs.py`)."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # (id, logprob), best first; ids of probability 0 are left out


class UnusableLogits(Internal):
    """Some rows have no token to choose: NaN, an infinity, or minus infinity everywhere.

    The other rows are not harmed: `choices` holds theirs, and None for the rows in `errors`.
    """

    def __init__(self, choices: Sequence[Choice | None], errors: dict[int, NacreError]) -> None:
        super().__init__("; ".join(error.message for error in errors.values()))
        self.choices = list(choices)
        self.errors = errors


def shown(value: object) -> str:
    """A value as an error message shows it: short, on one line."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _check_number(
    name: str,
    value: object,
    low: float,
    high: float,
    remedy: str,
    param: str | None = None,
    *,
    above_low: bool = False,
) -> None:
    # A comparison with NaN is false, so NaN and the infinities fail the range test.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (low < value if above_low else low <= value) and value <= high:  # type: ignore[operator]
        return
    bound = f"above {low:g} and at most {high:g}" if above_low else f"a number from {low:g} to {high:g}"
    raise InvalidArgument(f"{name} is {shown(value)}; it must be {bound}: {remedy}", param=param or name)


def _check_top_k(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidArgument(
            f"top_k is {shown(value)}; it must be a whole number of at least 0: use 0 to switch it off", param="top_k"
        )


def _check_id(param: str, token: object, vocab_size: int) -> None:
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
        raise InvalidArgument(
            f"{param} names token {shown(token)}; token ids run from 0 to {vocab_size - 1}: use an id of this model",
            param=param,
        )
