"""A toy target and guessers with dialled acceptance.

The toy's next token is a pure hash of all tokens before it, so its plain autoregressive text is known without any
session, drafter or network: that is the reference. `ToyEngine` plays the engine: it keeps what a KV cache would keep,
computes the rows of a plan, and moves on along the path it is told, never by looking at the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.rows import Row
from nacre.sampling import Choice
from nacre.session import VerifyPlan
from nacre.sim.dice import mix, unit


class Target(Protocol):
    """What a simulated engine computes. A state is an int that stands for all the model knows of a prefix."""

    @property
    def vocab_size(self) -> int: ...

    def start(self) -> int: ...

    def advance(self, state: int, token: int) -> int: ...

    def choose(self, state: int) -> Choice: ...

    def read(self, tokens: Sequence[int]) -> int: ...


@dataclass(frozen=True, slots=True)
class ToyTarget:
    """`state` stands for everything the model knows of a prefix."""

    key: int
    vocab_size: int

    def start(self) -> int:
        return mix(self.key)

    def advance(self, state: int, token: int) -> int:
        return mix(state, token)

    def choose(self, state: int) -> Choice:
        word = mix(state, self.key)
        return Choice(word % self.vocab_size, logprob=-unit(word))

    def read(self, tokens: Sequence[int]) -> int:
        state = self.start()
        for token in tokens:
            state = self.advance(state, token)
        return state

    def reference(self, prompt: Sequence[int], max_tokens: int, stop_ids: frozenset[int]) -> tuple[Choice, ...]:
        """Plain autoregressive decoding: what every session must produce."""
        state = self.read(prompt)
        choices: list[Choice] = []
        while len(choices) < max_tokens:
            choice = self.choose(state)
            choices.append(choice)
            if choice.token in stop_ids:
                break
            state = self.advance(state, choice.token)
        return tuple(choices)


class ToyEngine:
    """One sequence's cache: the state before the tip. A pass computes rows; `advance` commits some of them."""

    def __init__(self, target: Target, tokens: Sequence[int]) -> None:
        self._target = target
        self._before_tip = target.read(tokens[:-1])
        self._rows: list[int] = []

    def compute(self, plan: VerifyPlan) -> list[Choice]:
        self._rows = []
        for token, parent in zip(plan.tokens, plan.parents, strict=True):
            state = self._before_tip if parent < 0 else self._rows[parent]
            self._rows.append(self._target.advance(state, token))
        return [self._target.choose(state) for state in self._rows]

    def advance(self, path: Sequence[int]) -> None:
        self._before_tip = self._rows[path[-1]]


class DialledProposer:
    """A guesser whose chance to name the right token is dialled.

    `acceptance[k]` is the chance that the right token is among its best k + 1 guesses; it offers that many rivals, and
    goes on below the best one until it has looked `reach` tokens ahead. Luck is a hash of (key, prefix): two guessers
    of one key are one model. Guarantee: exact (a guess never decides).
    """

    def __init__(
        self, target: ToyTarget, *, key: int, acceptance: Sequence[float], batch: int = 1, reach: int = 1
    ) -> None:
        self._target = target
        self._key = key
        self._acceptance = tuple(acceptance)[: target.vocab_size - 1]
        self._batch = batch
        self._reach = reach
        self._states: dict[int, int] = {}

    @property
    def traits(self) -> ProposerTraits:
        shape = "tree" if len(self._acceptance) > 1 else "chain"
        return ProposerTraits(name="dialled", shape=shape, batch=self._batch, reach=self._reach)

    def open(self, session: int, context: DraftContext) -> None:
        self._states[session] = self._target.read(context.tokens)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        for token in tokens:
            self._states[session] = self._target.advance(self._states[session], token)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [self._guess(item) for item in wanted]

    def close(self, session: int) -> None:
        self._states.pop(session, None)

    def _guess(self, item: Expansion) -> list[Guess]:
        state = self._states[item.session]
        for token in item.path_tokens:
            state = self._target.advance(state, token)
        guesses: list[Guess] = []
        parent = TIP
        for _ in range(self._reach):
            best = len(guesses)
            guesses.extend(Guess(token, survival, parent) for token, survival in self._rivals(state))
            state = self._target.advance(state, guesses[best].token)
            parent = best
        return guesses

    def _rivals(self, state: int) -> list[tuple[int, float]]:
        right = self._target.choose(state).token
        luck = unit(mix(self._key, state))
        rivals: list[tuple[int, float]] = []
        below = 0.0
        for rank, reached in enumerate(self._acceptance):
            token = right if below <= luck < reached else (right + 1 + rank) % self._target.vocab_size
            rivals.append((token, reached - below))
            below = reached
        return rivals
