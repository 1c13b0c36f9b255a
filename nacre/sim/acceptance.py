"""What a drafter guesses in a simulation without models: by dial, or as recorded from a real pair.

The text of a simulation is a line: a state is the position reached on it, and token 0 is always right. Off the line a
state is a hash of how it was left, so that a guess below a wrong one is a definite thing, too.

    DialledAcceptance    each position independent: the right token has rank k with a dialled chance
    RecordedAcceptance   position by position what the bundled (or your) pair did on held-out text: the rank of the
                         target's token among the draft's guesses and the survival it gave each of them

Along the line a replayed drafter guesses exactly as the real one did. Off the line nobody recorded anything; there it
draws survivals from positions of the same record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.errors import InvalidArgument
from nacre.sampling import Choice
from nacre.sim.dice import mix, unit

#: Rank of the right token where it is not among the guesses.
MISSED = -1

#: First line of a trace file's JSON object: what it is and which version of it.
FORMAT = "nacre-acceptance-1"


@dataclass(frozen=True, slots=True)
class LineTarget:
    """A target whose text is token 0 for ever. State n >= 0: n tokens of it; below 0: off the line."""

    vocab_size: int = 1 << 15

    def start(self) -> int:
        return 0

    def advance(self, state: int, token: int) -> int:
        if state >= 0 and token == 0:
            return state + 1
        return -1 - (mix(state & 0xFFFFFFFF, token) >> 1)

    def choose(self, state: int) -> Choice:
        return _RIGHT

    def read(self, tokens: Sequence[int]) -> int:
        return len(tokens)


_RIGHT = Choice(0)


class Acceptance(Protocol):
    """Guesses for a position: the survivals of rival guesses, best first, and the rank of the right one or MISSED."""

    @property
    def children(self) -> int:
        """Most rivals at one position."""

    def on_line(self, text: int, position: int) -> tuple[tuple[float, ...], int]:
        """At output position `position` (from 0) of text number `text`."""

    def off_line(self, word: int) -> tuple[float, ...]:
        """Survivals at a place that `word`, a well-mixed number of either sign, stands for."""


@dataclass(frozen=True, slots=True)
class DialledAcceptance:
    """`reached[k]`: chance that the right token is among the best k + 1 guesses. Survivals claim just that."""

    reached: tuple[float, ...]
    key: int = 1
    survivals: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        chances = (after - before for before, after in zip((0.0, *self.reached), self.reached, strict=False))
        object.__setattr__(self, "survivals", tuple(chances))

    @property
    def children(self) -> int:
        return len(self.reached)

    def on_line(self, text: int, position: int) -> tuple[tuple[float, ...], int]:
        luck = unit(mix(self.key, text, position))
        rank = next((rank for rank, reached in enumerate(self.reached) if luck < reached), MISSED)
        return self.survivals, rank

    def off_line(self, word: int) -> tuple[float, ...]:
        return self.survivals


@dataclass(frozen=True, slots=True)
class RecordedAcceptance:
    """`texts[i][p]`: survivals and rank at output position p of text i. Text numbers and positions wrap around.

    `about` says what was recorded: models, prompts, temperature, seed.
    """

    texts: tuple[tuple[tuple[tuple[float, ...], int], ...], ...]
    about: dict[str, Any]

    @property
    def children(self) -> int:
        return max(len(survivals) for text in self.texts for survivals, _ in text)

    @property
    def places(self) -> int:
        return sum(len(text) for text in self.texts)

    def reached(self, count: int) -> float:
        """Share of places where the right token is among the best `count` guesses."""
        return sum(0 <= rank < count for text in self.texts for _, rank in text) / self.places

    def on_line(self, text: int, position: int) -> tuple[tuple[float, ...], int]:
        places = self.texts[text % len(self.texts)]
        # A text longer than its record goes on with the next one.
        while position >= len(places):
            position -= len(places)
            text += 1
            places = self.texts[text % len(self.texts)]
        return places[position]

    def off_line(self, word: int) -> tuple[float, ...]:
        places = self.texts[word % len(self.texts)]
        return places[(word >> 32) % len(places)][0]

    def to_json(self) -> str:
        texts = [
            {"rank": [rank for _, rank in text], "survival": [[round(s, 4) for s in chances] for chances, _ in text]}
            for text in self.texts
        ]
        return json.dumps({"format": FORMAT, "about": self.about, "texts": texts}, separators=(",", ":"))


def load_acceptance(path: Path) -> RecordedAcceptance:
    """Reads a file that `nacre simulate --record-trace` wrote. Raises InvalidArgument naming what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidArgument(
            f"there is no acceptance trace {path}; record one: nacre simulate --record-trace {path}", param="trace"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read as an acceptance trace: {error}", param="trace") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InvalidArgument(f"{path} is not an acceptance trace of format {FORMAT}", param="trace")
    try:
        texts = tuple(_text(text) for text in content["texts"])
        about = dict(content.get("about", {}))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{path} is a damaged acceptance trace ({error}); record it again", param="trace"
        ) from None
    if not texts or not all(texts):
        raise InvalidArgument(f"{path} is an acceptance trace without a single place; record it again", param="trace")
    return RecordedAcceptance(texts, about)


def _text(text: dict[str, Any]) -> tuple[tuple[tuple[float, ...], int], ...]:
    places = []
    for rank, chances in zip(text["rank"], text["survival"], strict=True):
        survivals = tuple(float(chance) for chance in chances)
        if not MISSED <= int(rank) < len(survivals) or not all(0 <= chance <= 1 for chance in survivals):
            raise ValueError(f"rank {rank} with survivals {chances}")
        places.append((survivals, int(rank)))
    return tuple(places)


class LineProposer:
    """A drafter along the line of a LineTarget: at most `rivals` guesses a position.

    Drafters of one acceptance guess alike, as processes that run one draft model do. `sure` claims that every guess is
    right: for methods that decide themselves what is worth sending.
    """

    def __init__(self, acceptance: Acceptance, *, batch: int, rivals: int | None = None, sure: bool = False) -> None:
        self._acceptance = acceptance
        self._batch = batch
        self._rivals = min(rivals or acceptance.children, acceptance.children)
        self._sure = sure
        self._texts: dict[int, tuple[int, int]] = {}  # text number, and the length of the prompt
        self._tips: dict[int, int] = {}  # length of the committed text

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits("line", "tree" if self._rivals > 1 else "chain", self._batch, 1)

    def writes(self, session: int, text: int) -> None:
        """Tells the number of the text, before the session is opened."""
        self._texts[session] = (text, 0)

    def open(self, session: int, context: DraftContext) -> None:
        text, _ = self._texts.get(session, (session, 0))
        self._texts[session] = (text, context.prompt_length)
        self._tips[session] = len(context.tokens)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._tips[session] += len(tokens)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [self._guess(item) for item in wanted]

    def close(self, session: int) -> None:
        self._tips.pop(session, None)

    def _guess(self, item: Expansion) -> list[Guess]:
        path = item.path_tokens
        text, prompt_length = self._texts[item.session]
        if any(path):
            right = MISSED
            # Python's hash of a tuple of integers is the same in every process.
            survivals = self._acceptance.off_line(hash((text, self._tips[item.session], path)))
        else:
            position = self._tips[item.session] + len(path) - prompt_length
            survivals, right = self._acceptance.on_line(text, position)
        return [
            Guess(0 if rank == right else 1 + rank, 1.0 if self._sure else chance, TIP)
            for rank, chance in enumerate(survivals[: self._rivals])
        ]
