"""Throughput by formula, where one can be written: one session, one chain, independent acceptance.

`a` is the chance that a guess is right given that the one before it is, `g` the guesses of a message, `d` the seconds
of a draft step, `rtt` the round trip, `pass_s(rows)` the seconds of a verify pass. The token that the target samples
after the last right guess always comes for free. The simulator must agree where its world is the formula's; the tests
hold it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nacre.pacing.expected import expected_tokens

PassSeconds = Callable[[int], float]

#: Chunk lengths that `fastest_pipelined` looks at: the best is about V/d, and near it little is lost.
_CHUNKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def stop_and_wait(a: float, g: int, d: float, rtt: float, pass_s: PassSeconds) -> float:
    """Tokens per second when each round drafts g guesses, sends them, and waits for the verdict.

    A round's guesses, its round trip and its pass follow one another; nothing overlaps.
    """
    return expected_tokens(a, g) / (g * d + rtt + pass_s(g + 1))


def best_stop_and_wait(
    a: float, d: float, rtt: float, pass_s: PassSeconds, lengths: Iterable[int] = range(1, 33)
) -> int:
    """The chain length with the highest `stop_and_wait`: it grows with the round trip."""
    return max(lengths, key=lambda g: stop_and_wait(a, g, d, rtt, pass_s))


def pipelined(a: float, g: int, d: float, rtt: float, pass_s: PassSeconds, window: float = float("inf")) -> float:
    """Tokens per second when chunks of g guesses are streamed without waiting, until one turns out wrong.

    Between two misses lie 1/(1 - a) tokens. The first chunk after a miss takes its drafting, the round trip and its
    pass. It, and the free token behind it, hold with chance a^(g+1), and every further chunk with a^g, since its first
    guess has been checked by the free token before it: so a^(g+1)/(1 - a^g) more chunks follow, one per spacing. The
    spacing is the slowest of drafting g guesses, verifying them, and waiting for room in a window of unverified ones.
    """
    if a >= 1.0:
        raise ValueError("with a = 1 there is never a miss: throughput is g per spacing")
    verify = pass_s(g)
    around = g * d + rtt + verify
    spacing = max(g * d, verify, g * around / window)
    return (1 / (1 - a)) / (around + spacing * a ** (g + 1) / (1 - a**g))


def fastest_pipelined(a: float, d: float, rtt: float, pass_s: PassSeconds) -> float:
    """`pipelined` at the best chunk length."""
    return max(pipelined(a, g, d, rtt, pass_s) for g in _CHUNKS)
