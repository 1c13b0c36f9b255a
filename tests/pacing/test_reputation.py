"""What a source has been worth: claims are corrected, and one that never helps is noticed soon, and may come back."""

from __future__ import annotations

from nacre.pacing import Reputation


def test_a_source_that_is_never_right_is_hopeless_after_some_thirty_positions_whatever_it_claims() -> None:
    known = Reputation()
    for count in range(40):
        assert not (known.hopeless and count < 20)
        known.learn([(0, 1.0, False), (1, 0.5, False)])
    assert known.hopeless
    assert known.survival(0, 1.0) < 0.2


def test_one_right_guess_among_rivals_is_enough_to_be_of_use() -> None:
    known = Reputation()
    for _ in range(100):
        known.learn([(0, 0.5, False), (1, 0.3, True)])
    assert known.usefulness > 0.99
    assert known.survival(1, 0.3) > 0.9


def test_a_hopeless_source_comes_back_once_it_is_right() -> None:
    known = Reputation(usefulness=0.0)
    known.learn([(0, 0.5, True)])
    assert not known.hopeless


def test_a_copy_learns_alone() -> None:
    known = Reputation()
    for _ in range(50):
        known.learn([(0, 0.9, False)])
    other = known.copy()
    assert (other.usefulness, other.survival(0, 0.9)) == (known.usefulness, known.survival(0, 0.9))
    for _ in range(50):
        other.learn([(0, 0.9, True)])
    assert known.hopeless
    assert not other.hopeless
