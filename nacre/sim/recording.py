"""Records what a proposer guesses along a known text: the places of an acceptance trace.

At every position the proposer is asked as a drafter asks it, and noted are the survivals of its guesses, best first,
and which of them was right. With the noise key of the text the record is what happened in that very generation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nacre.drafting import DraftContext, Expansion, Guess, Proposer
from nacre.sampling import SamplingParams
from nacre.sim.acceptance import MISSED

#: Survivals of the guesses at one position, and the rank of the right one or MISSED.
Place = tuple[tuple[float, ...], int]

#: The session's number at the proposer.
_SESSION = 0


def record_places(
    proposer: Proposer,
    prompt: Sequence[int],
    output: Sequence[int],
    params: SamplingParams,
    key: int,
    *,
    guessed: Callable[[Sequence[Guess]], None] = lambda guesses: None,
) -> tuple[Place, ...]:
    """A place per token of `output`, which the target wrote after `prompt` with that noise. Raises NacreError.

    `guessed` is told of each position's guesses before the proposer learns the token.
    """
    proposer.open(_SESSION, DraftContext(tuple(prompt), len(prompt), params, key))
    try:
        places: list[Place] = []
        for token in output:
            (guesses,) = proposer.propose([Expansion(_SESSION, 0, (), ())])
            guessed(guesses)
            offered = [guess.token for guess in guesses]
            rank = offered.index(token) if token in offered else MISSED
            places.append((tuple(guess.survival for guess in guesses), rank))
            proposer.committed(_SESSION, (token,), ())
        return tuple(places)
    finally:
        proposer.close(_SESSION)
