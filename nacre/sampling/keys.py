"""Noise keys: from the seed of a request to the 64-bit key of one completion.

Rule: the key comes from the owner of the session or from the verifier, never from a drafter, and no two completions
share one: completion i of n folds i into the key, and completion 0 uses the seed itself.
"""

from __future__ import annotations

from nacre.errors import InvalidArgument
from nacre.sampling.params import shown
from nacre.sampling.philox import philox4x32, split64, word
from nacre.sampling.race_noise import PURPOSE_COMPLETION_KEY

_TWO_TO_64 = 1 << 64


def seed_to_key(seed: int) -> int:
    """The key of a seed: signed 64-bit seeds map by two's complement, unsigned ones to themselves."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(1 << 63) <= seed < _TWO_TO_64:
        raise InvalidArgument(
            f"seed is {shown(seed)}; it must be a whole number from {-(1 << 63)} to {_TWO_TO_64 - 1}: pick another",
            param="seed",
        )
    return seed % _TWO_TO_64


def completion_key(seed: int, completion_index: int) -> int:
    """The key of completion `completion_index` (0, 1, …) of a request with this seed."""
    key = seed_to_key(seed)
    if completion_index == 0:
        return key
    assert 0 < completion_index < _TWO_TO_64
    x0, x1, _, _ = philox4x32(*split64(completion_index), word(0), word(PURPOSE_COMPLETION_KEY << 8), *split64(key))
    return int(x0[0]) | int(x1[0]) << 32
