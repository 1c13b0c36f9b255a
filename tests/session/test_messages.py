"""The values that the two ends exchange."""

from __future__ import annotations

import pytest

from nacre.session import Commit, Draft, confidence_byte, survival_of


@pytest.mark.parametrize("byte", range(256))
def test_every_confidence_byte_survives_a_round_trip(byte: int) -> None:
    assert confidence_byte(survival_of(byte)) == byte


@pytest.mark.parametrize(
    ("survival", "byte"),
    [(1.0, 0), (2.0, 0), (0.5, 16), (0.25, 32), (2.0**-15.9, 254), (1e-30, 255), (0.0, 255), (-1.0, 255)],
)
def test_confidence_is_sixteenths_of_a_bit_and_clamped(survival: float, byte: int) -> None:
    assert confidence_byte(survival) == byte


def test_confidence_never_errs_by_more_than_a_thirtysecond_of_a_bit() -> None:
    for thousandth in range(1, 1001):
        survival = thousandth / 1000
        assert survival_of(confidence_byte(survival)) == pytest.approx(survival, rel=0.022)


def test_a_draft_without_parents_is_a_chain_below_its_anchor_or_the_node_before() -> None:
    anchored = Draft(5, (1, 2, 3), anchor=9)
    assert [anchored.parent_offset(index) for index in range(3)] == [0, 1, 1]
    following = Draft(5, (1, 2, 3))
    assert [following.parent_offset(index) for index in range(3)] == [1, 1, 1]


def test_a_draft_with_parents_is_what_they_say() -> None:
    bush = Draft(5, (1, 2, 3), anchor=9, parents=(0, 0, 2))
    assert [bush.parent_offset(index) for index in range(3)] == [0, 0, 2]


def test_a_commit_ends_where_its_tokens_end() -> None:
    assert Commit(position=4, tokens=(7, 8)).end == 6
    assert Commit(position=4, tokens=()).end == 4
