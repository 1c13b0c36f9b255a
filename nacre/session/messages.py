"""What the two ends of a session say to each other, as plain values.

    drafter  ──Draft──▶  verifier        guesses, each naming its parent
    drafter  ◀─Commit──  verifier        what has become true (also goes to the owner)
    drafter  ◀─Reanchor─ gateway         the session moved to another verifier: start numbering afresh

Positions are absolute indices into the sequence; prompt tokens count. Token ids are the target's.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from nacre.sampling import Choice
from nacre.session.observed import Observed

#: Steps per bit of the one-byte confidence: survival = 2 ** (-byte / 16), so a byte spans 1 down to 2**-15.9.
CONFIDENCE_STEPS_PER_BIT = 16

#: What a guess without a confidence is taken to be worth, given that its parent is right.
DEFAULT_SURVIVAL = 0.7


class SpeculationMode(enum.Enum):
    LATENCY = "latency"  # wait only where waiting is faster, else decode the tip alone at once
    THROUGHPUT = "throughput"  # a session without guesses lets others go first when a pass is full
    OFF = "off"  # plain decoding; drafters may not join


class FinishReason(enum.Enum):
    STOP = "stop"  # an end-of-sequence or stop token was committed
    LENGTH = "length"  # max_tokens or the model's context was reached
    CANCELLED = "cancelled"  # the owner asked for it, or stayed away too long


@dataclass(frozen=True, slots=True)
class Draft:
    """Guesses of one stream: nodes `first_node`, `first_node + 1`, … in order; 0 stands for the stream's next number.

    `parents[i]` is 0 for a node that hangs below the committed position `anchor - 1` (it guesses position `anchor`),
    and k ≥ 1 for one that hangs below the node numbered k less than itself. An empty `parents` means a chain: each
    node hangs below the one before; the first below the anchor if there is one, else below node `first_node - 1`.
    `confidence[i]` is `confidence_byte` of the node's survival given its parent; empty means unknown.
    """

    first_node: int
    tokens: tuple[int, ...]
    anchor: int | None = None
    parents: tuple[int, ...] = ()
    confidence: bytes = b""

    def parent_offset(self, index: int) -> int:
        if self.parents:
            return self.parents[index]
        return 0 if index == 0 and self.anchor is not None else 1


@dataclass(frozen=True, slots=True)
class Commit:
    """Tokens that have become true, from absolute index `position` on; never empty but for a replay of nothing.

    `guessed_by[i]` is the ordinal of the stream whose guess saved token i a pass of its own (0: none, the verifier's
    own sample). `choices` carries log-probabilities, one per token, if the session asked for them. `window_nodes` and
    `row_budget` are the verifier's current offer to drafters; `verify_ms` and `queue_ms` what the step took. `observed`
    is for drafters that asked for it.
    """

    position: int
    tokens: tuple[int, ...]
    guessed_by: tuple[int, ...] = ()
    choices: tuple[Choice, ...] = ()
    rows: int = 0
    window_nodes: int = 0
    row_budget: int = 0
    verify_ms: float = 0.0
    queue_ms: float = 0.0
    observed: tuple[Observed, ...] = ()

    @property
    def end(self) -> int:
        """Committed length after this commit."""
        return self.position + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Reanchor:
    """The receiver's nodes are forgotten; its next draft is node 1, anchored at `position` or later."""

    position: int


def confidence_byte(survival: float) -> int:
    """Quantises a survival in (0, 1] to a byte; anything at or below 2**-15.9 is 255."""
    if survival <= 0.0:
        return 255
    return max(0, min(255, round(-math.log2(min(1.0, survival)) * CONFIDENCE_STEPS_PER_BIT)))


def survival_of(byte: int) -> float:
    return 2.0 ** (-byte / CONFIDENCE_STEPS_PER_BIT)
