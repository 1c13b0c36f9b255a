"""Philox-4x32-10 against its published known answers, and arrays against one counter at a time."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.sampling.philox import philox4x32, split64, word
from tests.sampling.sampling_reference import philox

ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_the_published_known_answers_come_out(counter, key, expected) -> None:
    words = philox4x32(*(word(c) for c in counter), *(word(k) for k in key))
    assert tuple(int(w[0]) for w in words) == expected
    assert philox(counter, key) == expected  # the reference that other tests lean on


def test_seven_rounds_of_the_reference_match_the_published_vector() -> None:
    assert philox((0, 0, 0, 0), (0, 0), rounds=7) == (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)


def test_arrays_of_counters_and_keys_equal_one_at_a_time() -> None:
    rng = np.random.default_rng(1)
    lanes = rng.integers(0, 2**32, (6, 50), dtype=np.uint64)
    words = philox4x32(*lanes)
    for i in range(50):
        c0, c1, c2, c3, k0, k1 = (int(v) for v in lanes[:, i])
        assert tuple(int(w[i]) for w in words) == philox((c0, c1, c2, c3), (k0, k1))


def test_words_of_length_one_broadcast() -> None:
    counters = np.arange(9, dtype=np.uint64)
    words = philox4x32(counters, word(5), word(6), word(7), *split64(0x0123456789ABCDEF))
    expected = [philox((c, 5, 6, 7), (0x89ABCDEF, 0x01234567)) for c in range(9)]
    assert list(zip(*(w.tolist() for w in words), strict=True)) == expected


def test_the_inputs_are_left_as_they_were() -> None:
    counters = np.arange(9, dtype=np.uint64)
    philox4x32(counters, counters, counters, counters, counters, counters)
    assert counters.tolist() == list(range(9))
