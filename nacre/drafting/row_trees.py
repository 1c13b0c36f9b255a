"""Trees of guesses out of a table's rows: in C where the kernels were built, in Python elsewhere, and the same ones.

Rule: below a node the children are the tokens of a row, that of the longest known context there. By chance a child
survives with its share of the row, sharpened where the target samples cold; in a race by its score under the target's
own noise (`stand` says how). Which children are taken is `growth`'s affair, or `puct`'s.

Both ways compute with whole numbers, products rounded one at a time, and the logarithm and exponential of
`fixed_order`; and what is equal has an order. So the trees are equal to the bit, and each way is the other's test. No
text depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from nacre_kernels import available
from nacre_kernels.growth import RowTable

from nacre.drafting import puct
from nacre.drafting.growth import LEAST_PATH, Children, grow
from nacre.drafting.ngram_rows import TOKEN_BITS
from nacre.drafting.proposer import Guess
from nacre.drafting.rows import ONE
from nacre.sampling.fixed_order import MASS_ONE, exp_mass, ln32
from nacre.sampling.race_noise import noise_at

#: Tokens and weights of a row, best first; the weights may end in zeros.
Followers = tuple[Sequence[int], Sequence[int]]

#: Below this temperature a stored distribution is not sharpened further: what it was stored for was another context.
_COLDEST = 0.5
#: A race at a lower temperature than its inverse is as good as decided.
_SHARPEST = 1e6
#: The logarithm of how many scores outside a row are expected above its best; with more, nothing is left for the row.
_MOST_OUTSIDE = np.float32(3.5)
_OUTSIDE_UNIT = 33.11545195869231 / MASS_ONE  # e^3.5, in units of mass


@dataclass(frozen=True, slots=True)
class Race:
    """The target's dice: the key of its noise, its temperature, and that of what distributions differ by."""

    noise_key: int
    temperature: float
    race_temperature: float

    @property
    def sharpness(self) -> float:
        return min(_SHARPEST, 1.0 / self.race_temperature)


class RowTrees:
    """A table as a source of trees. `read` gives the row of a key's longest known context; the arrays are its memory.

    Contexts have `shortest` to `longest` tokens; see `nacre_kernels.growth.RowTable` for them and for `unseen`.
    """

    def __init__(
        self,
        read: Callable[[int], Followers],
        tokens: npt.NDArray[np.uint32],
        weights: npt.NDArray[np.uint16],
        keys: npt.NDArray[np.uint64] | None = None,
        *,
        longest: int,
        shortest: int,
        unseen: int | None = None,
    ) -> None:
        self._read = read
        self._mask = (1 << TOKEN_BITS * longest) - 1
        self._unseen = unseen
        self._compiled: RowTable | None = None
        if available():
            self._compiled = RowTable(tokens, weights, keys, longest=longest, shortest=shortest, unseen=unseen)

    def grow(self, key: int, rows: int, depth: int, *, power: float = 1.0) -> list[Guess]:
        """Best-first growth by chance, from `key_of` the last tokens."""
        if self._compiled is not None:
            return _guesses(*self._compiled.grow(key, rows, depth, LEAST_PATH, power=power))
        return grow(key, partial(self._by_chance, power), self._below, rows, depth=depth)

    def race(self, key: int, rows: int, depth: int, race: Race, position: int) -> list[Guess]:
        """Best-first growth by race; the first guesses are for `position`."""
        if self._compiled is not None:
            return _guesses(
                *self._compiled.grow(
                    *(key, rows, depth, LEAST_PATH),
                    power=1.0 / race.temperature,
                    sharpness=race.sharpness,
                    noise_key=race.noise_key,
                    position=position,
                )
            )
        return grow((key, position), partial(self._by_race, race), self._next, rows, depth=depth)

    def search(self, key: int, rows: int, seed: int, explore: npt.NDArray[np.float64]) -> list[Guess]:
        """PUCT search; `explore` [iterations] is the weight of a child's prior by its parent's visits."""
        if self._compiled is not None:
            return _guesses(*self._compiled.search(key, rows, seed, explore))
        return puct.search(self._weighed, self._below, key, rows, seed, explore.tolist())

    def _by_chance(self, power: float, key: int) -> Children:
        return shares(*self._read(key), power, self._unseen)

    def _by_race(self, race: Race, state: tuple[int, int]) -> Children:
        return raced(*self._read(state[0]), race, state[1])

    def _weighed(self, key: int) -> tuple[Sequence[int], Children]:
        tokens, weights = self._read(key)
        return weights, shares(tokens, weights, 1.0, self._unseen)

    def _below(self, key: int, token: int) -> int:
        return (key << TOKEN_BITS | (token + 1)) & self._mask

    def _next(self, state: tuple[int, int], token: int) -> tuple[int, int]:
        return self._below(state[0], token), state[1] + 1


def sharpening(temperature: float) -> float:
    """The power of stored probabilities that makes them chances of being right where the target samples so."""
    return 1.0 / max(temperature, _COLDEST)


def shares(tokens: Sequence[int], weights: Sequence[int], power: float = 1.0, unseen: int | None = None) -> Children:
    """Children of a row by chance: its weights to a power, with the sum they had.

    That is a fraction of ONE; or, where the weights are no probabilities, of their sum and that of the `unseen`.
    """
    if 0 in weights:
        weights = weights[: weights.index(0)]
    if not weights:
        return ()
    total = sum(weights)
    whole = ONE if unseen is None else total + unseen
    raised: Sequence[int]
    if power == 1.0:
        raised = weights
    elif power == 2.0:
        raised = [w * w for w in weights]
    else:
        top = max(weights)  # whole numbers: what libraries differ by in a last bit is cut off
        raised = [int((w / top) ** power * MASS_ONE) for w in weights]
    scale = min(total, whole) / (whole * float(sum(raised)))
    return [(token, w * scale) for token, w in zip(tokens, raised, strict=False)]


def raced(tokens: Sequence[int], weights: Sequence[int], race: Race, position: int) -> Children:
    """Children of a row by perturbed score, with the chances that they win."""
    if 0 in weights:
        weights = weights[: weights.index(0)]
    if not weights:
        return ()
    tokens = tokens[: len(weights)]
    inverse = np.float32(1.0 / race.temperature)
    log_noise = ln32(noise_at(np.array(tokens, dtype=np.int64), race.noise_key, position))
    scores = _log_chances(weights) * inverse - log_noise
    best = scores.max()
    masses = exp_mass((scores - best) * np.float32(race.sharpness)).tolist()
    # Tokens outside the row have the rest of the probability; the best of their scores is below s with chance
    # e^(-rest e^-s), for theirs is a Gumbel variable of that mass.
    kept = 1.0
    rest = ONE - sum(weights)
    if rest > 0:
        outside = np.minimum(_log_chances([rest]) * inverse - best, _MOST_OUTSIDE)
        above = int(exp_mass(outside - _MOST_OUTSIDE)[0]) * _OUTSIDE_UNIT
        kept = int(exp_mass(-np.array([above], dtype=np.float32))[0]) / MASS_ONE
    scale = kept / sum(masses)
    ranked = sorted([(-mass, token) for mass, token in zip(masses, tokens, strict=True)])
    return [(token, -mass * scale) for mass, token in ranked]


def _log_chances(weights: Sequence[int]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = ln32(np.array(weights, dtype=np.float32) / np.float32(ONE))
    return found


def _guesses(tokens: list[int], parents: list[int], survivals: list[float]) -> list[Guess]:
    return [Guess(*guess) for guess in zip(tokens, survivals, parents, strict=True)]
