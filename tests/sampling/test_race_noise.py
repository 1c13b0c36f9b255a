"""The race noise: golden values, the fixed-order functions, its distribution, and the cache that must not show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nacre.sampling import NOISE_VERSION
from nacre.sampling.fixed_order import exp_mass, ln32, masses
from nacre.sampling.philox import split64
from nacre.sampling.race_noise import (
    MAX_LN_NOISE,
    block_noise,
    block_noise_at,
    full_log_noise,
    id_noise_at,
    noise_at,
    race_exp,
)
from tests.sampling import sampling_reference as reference

KEY, POSITION = 0x0123456789ABCDEF, 17


def bits(values: np.ndarray) -> list[int]:
    return np.asarray(values, dtype=np.float32).view(np.uint32).tolist()


def test_the_golden_values_belong_to_version_one() -> None:
    assert NOISE_VERSION == 1


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, 0x2F000000),
        (1, 0x2FC00000),
        (0x64, 0x32C90000),
        (0x4AFB0CCC, 0x3EB17218),
        (0x80000000, 0x3F317218),
        (0xFFFFFFFE, 0x41AE33B3),
        (0xFFFFFFFF, 0x41B6FDA9),
    ],
)
def test_words_become_the_golden_exponentials(word: int, expected: int) -> None:
    assert bits(race_exp(np.array([word]))) == [expected]


@pytest.mark.parametrize(
    ("block", "minimum", "winner"), [(0, 0x3D2F9E73, 31), (1, 0x3C1F49DF, 3), (4747, 0x3C369DBE, 31)]
)
def test_blocks_have_their_golden_minimum_and_winner(block: int, minimum: int, winner: int) -> None:
    minima, logs, winners = block_noise(KEY, POSITION, positions=1, blocks=4748)
    assert bits(minima[0, [block]]) == [minimum]
    assert bits(logs[0, [block]]) == bits(ln32(minima[0, [block]]))
    assert winners[0, block] == block * 32 + winner


def test_ids_have_their_golden_noise() -> None:
    assert bits(noise_at(np.arange(4), KEY, POSITION)) == [0x3F619C13, 0x3FBF28E5, 0x3FCCEFA8, 0x3F26E12F]
    assert bits(noise_at(np.array([35]), KEY, POSITION)) == [0x3C1F49DF]


def test_noise_equals_the_scalar_reference_everywhere() -> None:
    rng = np.random.default_rng(2)
    for position in (0, 1, 2**32 - 1, 2**32, 2**40 + 3):
        key = int(rng.integers(0, 2**64, dtype=np.uint64))
        ids = np.sort(rng.integers(0, 200_000, 40))
        expected = [reference.noise(key, position, int(i)) for i in ids]
        assert bits(noise_at(ids, key, position)) == bits(np.array(expected))


def test_the_logarithm_is_accurate_and_monotone() -> None:
    rng = np.random.default_rng(3)
    v = np.sort(np.exp2(rng.uniform(-38, 40, 400_000)).astype(np.float32))
    ln = ln32(v)
    assert np.all(np.diff(ln) >= 0)
    assert (
        np.max(np.abs(ln - np.log(v.astype(np.float64))) / np.maximum(np.abs(np.log(v.astype(np.float64))), 1)) < 2e-7
    )
    for value in [*v[::40_000], *np.float32([0.70710677, 0.7071068, 1.0, 1.4142135, 2.0])]:
        assert bits(ln32(np.array([value]))) == bits(np.array([reference.ln32(value)]))


def test_exponential_masses_are_accurate_and_end_at_nothing() -> None:
    d = -np.random.default_rng(4).uniform(0, 30, 20_000).astype(np.float32)
    exact = np.exp(d.astype(np.float64)) * 2.0**40
    assert np.all(np.abs(exp_mass(d) - exact) <= 0.5 + 1.2e-7 * exact)
    assert exp_mass(np.float32([0.0, -0.0, -29.0, -1e30, -np.inf])).tolist() == [2**40, 2**40, 0, 0, 0]
    assert exp_mass(d[:200]).tolist() == [reference.mass(v) for v in d[:200]]


def test_the_masses_of_a_long_row_do_not_depend_on_how_it_is_cut() -> None:
    row = np.random.default_rng(5).standard_normal(20_000).astype(np.float32)
    top = row.max()
    parts = np.concatenate([masses(part, top) for part in np.array_split(row, 7)])
    assert masses(row, top).tolist() == exp_mass(row - top).tolist() == parts.tolist()


def test_exponentials_increase_with_the_word_and_stay_in_range() -> None:
    words = np.sort(np.random.default_rng(6).integers(0, 2**32, 300_000))
    words = np.concatenate([words, 0x4AFB0CCC + np.arange(-50, 50)])
    words.sort()
    values = race_exp(words)
    assert np.all(np.diff(values) >= 0)
    assert values.min() > 1e-10
    assert values.max() < 22.9
    assert math.log(22.88 / 32 + 22.88) < MAX_LN_NOISE


def kolmogorov_smirnov(samples: np.ndarray) -> float:
    """sqrt(n) times the greatest distance from the Exp(1) distribution; beyond 1.95 once in 1000."""
    values = np.sort(samples.astype(np.float64))
    n = len(values)
    cdf = -np.expm1(-values)
    return float(np.sqrt(n) * max(np.max(np.arange(1, n + 1) / n - cdf), np.max(cdf - np.arange(n) / n)))


def drawn(ids: list[int], positions: int, always_second_level: bool = False) -> np.ndarray:
    """S of the ids at many positions.  [positions, ids]"""
    index = np.repeat(np.arange(positions, dtype=np.uint64), len(ids))
    tiled = np.tile(np.array(ids), positions)
    where = (index, np.zeros(1, dtype=np.uint64))
    minimum, winner = block_noise_at((tiled >> 5).view(np.uint64), split64(KEY), where)
    second = id_noise_at(tiled, split64(KEY), where)
    is_winner = (winner == tiled) & (not always_second_level)
    return np.where(is_winner, minimum, minimum + second).reshape(positions, len(ids))


def test_the_noise_of_every_id_is_a_standard_exponential() -> None:
    noise = drawn([0, 3, 31, 32, 4095, 151_935], positions=30_000)
    for column in noise.T:
        assert kolmogorov_smirnov(column) < 1.95


def test_the_distribution_test_sees_a_forgotten_block_winner() -> None:
    ids = [0, 64, 128, 4095, 8191, 151_935]
    assert kolmogorov_smirnov(drawn(ids, 30_000).ravel()) < 1.95
    assert kolmogorov_smirnov(drawn(ids, 30_000, always_second_level=True).ravel()) > 3


def test_ids_of_one_block_and_of_neighbouring_positions_are_uncorrelated() -> None:
    noise = np.exp(-drawn([0, 1, 2, 31, 32], positions=30_000).astype(np.float64))  # uniform
    correlation = np.corrcoef(np.concatenate([noise[1:].T, noise[:-1].T]))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(30_000)


def test_every_id_of_a_block_is_its_winner_equally_often() -> None:
    _, _, winner = block_noise(KEY, 0, positions=2000, blocks=16)
    counts = np.bincount(winner.reshape(-1) & 31, minlength=32)
    chi_square = float(((counts - 1000.0) ** 2 / 1000.0).sum())
    assert abs(chi_square - 31) / math.sqrt(62) < 4


def test_noise_does_not_depend_on_the_size_of_the_vocabulary() -> None:
    for small, large in zip(block_noise(9, 40, 3, 2), block_noise(9, 40, 3, 500), strict=True):
        assert small.tolist() == large[:, :2].tolist()


def test_the_noise_of_all_ids_is_the_noise_of_each() -> None:
    for position in (0, 2**33 + 1):
        minimum, _, winner = block_noise(KEY, position, 1, 7)
        expected = ln32(noise_at(np.arange(7 * 32), KEY, position))
        assert bits(full_log_noise(KEY, position, minimum[0], winner[0])) == bits(expected)
