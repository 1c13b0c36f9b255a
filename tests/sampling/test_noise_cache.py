"""The noise cache must not show: same values whatever it holds, within its bound, from any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nacre.sampling.fixed_order import ln32
from nacre.sampling.noise_cache import NoiseCache
from nacre.sampling.race_noise import block_noise, noise_at


def check(cache: NoiseCache, rng: np.random.Generator) -> None:
    blocks = int(rng.choice([1, 3, 128, 3000]))
    streams = [(int(rng.integers(3)), int(rng.integers(200))) for _ in range(int(rng.integers(1, 4)))]
    if blocks < 1000 and rng.random() < 0.5:
        for (key, position), noise in zip(streams, cache.log_noise(streams, blocks), strict=True):
            assert noise.tolist() == ln32(noise_at(np.arange(32 * blocks), key, position)).tolist()
        return
    minimum, log_minimum, winner = cache.blocks(streams, blocks)
    for i, (key, position) in enumerate(streams):
        expected = block_noise(key, position, 1, blocks)
        for got, fresh in zip((minimum, log_minimum, winner), expected, strict=True):
            assert got[i].tolist() == fresh[0].tolist()


def test_values_are_those_of_the_definition_whatever_the_cache_holds() -> None:
    cache = NoiseCache(max_bytes=200_000)
    rng = np.random.default_rng(7)
    for _ in range(150):
        check(cache, rng)
        assert cache.size_bytes <= 200_000


def test_threads_that_share_a_cache_get_the_same_values() -> None:
    cache = NoiseCache(max_bytes=100_000)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(15):
            check(cache, rng)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(work, range(4)))
    assert cache.size_bytes <= 100_000


def test_an_entry_larger_than_the_bound_is_still_served() -> None:
    cache = NoiseCache(max_bytes=1)
    for position in range(3):
        cache.blocks([(1, position)], 4096)
    assert cache.size_bytes == 4096 * 16


def test_what_the_caller_does_to_its_arrays_does_not_reach_the_cache() -> None:
    cache = NoiseCache()
    for values in (*cache.blocks([(1, 2)], 4), cache.log_noise([(1, 2)], 4)):
        values.fill(0)
    assert cache.blocks([(1, 2)], 4)[2].tolist() == block_noise(1, 2, 1, 4)[2].tolist()
    assert cache.log_noise([(1, 2)], 4).all()
