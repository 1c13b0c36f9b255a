"""Seeds become keys, and completions of one request get keys of their own."""

from __future__ import annotations

import pytest

from nacre.errors import InvalidArgument
from nacre.sampling import completion_key, seed_to_key


@pytest.mark.parametrize(
    ("seed", "key"),
    [(0, 0), (7, 7), (-1, 2**64 - 1), (-(2**63), 2**63), (2**63 - 1, 2**63 - 1), (2**64 - 1, 2**64 - 1)],
)
def test_negative_seeds_map_by_twos_complement(seed: int, key: int) -> None:
    assert seed_to_key(seed) == key


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**4000, 1.5, True, "7", None])
def test_other_seeds_are_refused_in_one_line(seed: object) -> None:
    with pytest.raises(
        InvalidArgument, match=r"^seed is .*; it must be a whole number from .*: pick another$"
    ) as caught:
        seed_to_key(seed)  # type: ignore[arg-type]
    assert caught.value.param == "seed"
    assert len(caught.value.message) < 200


def test_the_first_completion_uses_the_seed_itself() -> None:
    assert completion_key(1234, 0) == 1234
    assert completion_key(-5, 0) == 2**64 - 5


def test_completion_keys_are_fixed_and_distinct() -> None:
    assert completion_key(1234, 1) == completion_key(1234, 1)
    keys = {completion_key(seed, index) for seed in range(-50, 50) for index in range(100)}
    assert len(keys) == 10_000
    assert all(0 <= key < 2**64 for key in keys)


def test_completion_keys_have_golden_values() -> None:
    assert [completion_key(1234, i) for i in (1, 2, 127)] == [
        0xE82E58E99469E471,
        0xD6AB8F636BBD9474,
        0x73095ED1B2CC3903,
    ]
    assert completion_key(-1, 1) == 0x14A1771B6B6D0F96
