"""Rows: what a table remembers to follow a context, and how tables pass it on.

A row is (context tokens, up to 8 pairs of token and weight byte), most likely first. A weight byte b stands for the
probability e^((b - 255) / 16): 255 is certainty, 1 is 1.3e-7, 0 is nothing. Inside a table weights are 16-bit
fractions, so that running averages move.

Rule: a table drops what it cannot hold (too long a context, too large an id) and never fails on a row from elsewhere:
it can only cost speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: (context, ((token, weight byte), …))
Row = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]

ROW_WIDTH = 8
#: Weight of certainty inside a table.
ONE = 65535

_CHANCES = [0.0, *(math.exp((byte - 255) / 16) for byte in range(1, 256))]


def weight_byte(chance: float) -> int:
    """The byte of a probability; at least 1, for what is in a row is possible."""
    if not chance > 0:
        return 1
    return min(255, max(1, 255 + round(16 * math.log(chance))))


def chance_of(byte: int) -> float:
    """The probability of a weight byte; 0 outside a byte's range."""
    return _CHANCES[byte] if 0 <= byte <= 255 else 0.0


def weights_of(chances: Sequence[float]) -> list[int]:
    """Weights inside a table of probabilities (at most 1); possible tokens weigh at least 1."""
    return [int(chance * ONE) or 1 for chance in chances]


def unpacked(row: Row, most_token: int) -> tuple[list[int], list[float]]:
    """The tokens of a row and their probabilities, best first; what cannot be is left out."""
    chances: dict[int, float] = {}
    for token, byte in row[1]:
        if 0 <= token <= most_token and chance_of(byte) > 0:
            chances.setdefault(token, chance_of(byte))
    best = sorted(chances.items(), key=lambda pair: (-pair[1], pair[0]))[:ROW_WIDTH]
    return [token for token, _ in best], [chance for _, chance in best]
