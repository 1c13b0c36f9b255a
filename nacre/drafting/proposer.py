"""What every source of guesses looks like, whatever its method.

A proposer follows the committed text of its sessions and, when asked, extends nodes of their draft trees. It never
sees a socket or a clock, and nothing it does can change the text: a guess stands only if the target samples it too.

Machines dispatch on declared traits, never on a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nacre.drafting.rows import Row
from nacre.sampling import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: As `Guess.parent`: the guess hangs below the node that was to be extended.
TIP = -1


@dataclass(frozen=True, slots=True)
class ProposerTraits:
    """What the machines need to know about a method.

    `shape`: "tree" if it offers rival guesses, "chain" if one line. `batch` is how many nodes one call should be
    given at most (a model evaluates several for little more than one). `reach` is the number of tokens a single
    extension looks ahead. `exact` states that the method leaves the target's distribution untouched: under the race
    rule every proposer is exact. `learns`: it wants `observed` to be called. `costly`: an extension takes a forward
    pass of a model, not microseconds. `encodes`: it wants the target's hidden states, through `encoded`: only a
    verifier has them. `teachable`: it wants `taught` to be called.
    """

    name: str
    shape: str
    batch: int
    reach: int
    exact: bool = True
    learns: bool = False
    costly: bool = False
    encodes: bool = False
    teachable: bool = False


@dataclass(frozen=True, slots=True)
class DraftContext:
    """What a proposer is told when a session opens: committed tokens, how the target samples, and the noise key.

    `prompt_length` of the committed tokens are prompt; of a long one `tokens` may be the beginning, and `committed`
    tells the rest. `key` is None where the session does not share its noise.
    `prediction` is what the client expects the answer to be, empty where it did not say. `tenant` is equal for
    sessions of one tenant and says nothing else. Ids of the target's tokens are below `vocab_size` (0: not known).
    `domain` is what the text is like, in a word ("": not known): what is right in one kind may be wrong in another.
    """

    tokens: tuple[int, ...]
    prompt_length: int
    params: SamplingParams
    key: int | None
    prediction: tuple[int, ...] = ()
    tenant: int = 0
    vocab_size: int = 0
    domain: str = ""


#: Most tokens of a prediction, whatever the context of the model.
MOST_PREDICTED = 1 << 17
#: Most tokens of an observation's context, and of its tokens.
CONTEXT_TOKENS = 4
OBSERVED_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Observation:
    """What the target thought after `context`: its best tokens, best first, and their log-probabilities in nats.

    `context` are up to 4 tokens, the last one the node's own; `tokens` at most 32. `walked` is false for a node that
    was verified and then contradicted: what the target said there is true all the same.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    walked: bool


@dataclass(frozen=True, slots=True, eq=False)
class HiddenStates:
    """What the target's head was given at the rows that chose the tokens from `position` on.  [tokens, hidden]"""

    position: int
    states: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Expansion:
    """A node to extend: its id, the guessed tokens from the tip down to it (empty: the tip itself), their node ids."""

    session: int
    node_id: int
    path_tokens: tuple[int, ...]
    path_ids: tuple[int, ...]
    path_survival: float = 1.0


@dataclass(frozen=True, slots=True)
class GuessFeatures:
    """What a model knew when it guessed; policies of `nacre.pacing` may ask for it.

    `q` is the model's probability of the token after penalties, temperature and truncation; `gap` the token's perturbed
    score minus the best other one, in nats. `entropy` (nats) and `top` (the largest probabilities, falling, at most
    10) describe the whole distribution, so siblings share them.
    """

    q: float
    gap: float
    entropy: float
    top: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """One guessed token below the extended node (`parent` = TIP) or below an earlier guess of the same list."""

    token: int
    survival: float
    parent: int = TIP
    features: GuessFeatures | None = None


def of_vocabulary(guesses: Sequence[Guess], vocab_size: int) -> list[Guess]:
    """The guesses that are tokens of the target, without what hangs below others; all of them for a size of 0.

    What a table knows may have come from afar.
    """
    if not vocab_size or all(guess.token < vocab_size for guess in guesses):
        return list(guesses)
    kept: list[Guess] = []
    places: dict[int, int] = {TIP: TIP}
    for place, guess in enumerate(guesses):
        if guess.token < vocab_size and guess.parent in places:
            places[place] = len(kept)
            kept.append(replace(guess, parent=places[guess.parent]))
    return kept


class Proposer(Protocol):
    """A source of guesses. Calls come from one thread, in order; sessions are known by the caller's numbers.

    A class that needs a draft model says so with an attribute `needs_model = True`; it is then built with an engine.
    One that needs a corpus on disk says `needs_datastore = True`; it is then built with an open one. One whose memory
    of all tenants may be larger than others' says so with `most_bytes`.
    """

    @property
    def traits(self) -> ProposerTraits: ...

    def open(self, session: int, context: DraftContext) -> None:
        """A session begins. Raises InvalidArgument if the proposer cannot serve it."""

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        """`tokens` follow the committed text; `trunk` are the ids of the nodes that guessed the first of them.

        The node ids of an extension become known to the proposer through later `Expansion.path_ids`.
        """

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        """What the target said at nodes it verified, walked or not; only for methods whose traits say `learns`."""

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        """Guesses for each wanted node, most likely first; an empty list where it has none."""

    def close(self, session: int) -> None:
        """The session is over; everything kept for it is freed. Unknown sessions are ignored."""


@runtime_checkable
class Encoder(Proposer, Protocol):
    """A proposer that wants the target's hidden states, if its traits say `encodes`."""

    def encoded(self, session: int, states: HiddenStates) -> None:
        """The states behind the last commit, which it has been told of before."""


@runtime_checkable
class Teachable(Proposer, Protocol):
    """A proposer whose tables can be told what other sessions have seen, if its traits say `teachable`."""

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """From a store: rows, and finished texts.

        Rows of a context that comes again replace or correct what came before; a text comes once.
        """


@runtime_checkable
class TeachableByTenant(Proposer, Protocol):
    """One that keeps the tables of tenants apart."""

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """As `taught`, for the tables of one tenant."""
