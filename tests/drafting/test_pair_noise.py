"""The noise of a few ids is the noise of whole rows, in C and without it."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.drafting import pair_noise
from nacre.drafting.pair_noise import log_noise_of
from nacre.sampling.fixed_order import ln32
from nacre.sampling.race_noise import noise_at


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("key", [0, 77, 2**64 - 1])
@pytest.mark.parametrize("position", [0, 900, 2**33 + 1])
def test_it_is_the_noise_of_the_race(built: bool, key: int, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not built:
        monkeypatch.setattr(pair_noise, "available", lambda: False)
    elif not pair_noise.available():
        pytest.fail("the kernels were not built; run `make setup` with a C compiler")
    draw = np.random.default_rng(1)
    for count in (0, 1, 31, 32, 33, 4096):
        ids = np.arange(count) if count == 4096 else draw.integers(0, 200_000, count)
        expected = ln32(noise_at(ids, key, position)).tolist() if count else []
        assert log_noise_of(ids.tolist(), position, key) == expected
