"""Which commits drafters hear of: every message costs the core that passes run on."""

from __future__ import annotations

from nacre.session.hearing import HEARD_TOGETHER, Hearing


def told(hearing: Hearing, *commits: str) -> list[bool]:
    """A letter per commit: h somebody helps, n nobody does, u no guesses are wanted of one that helps, e the end."""
    return [
        hearing.tells(wanted=letter in "hn", helped=letter in "hu", ended=letter == "e")
        for letters in commits
        for letter in letters
    ]


def test_one_that_helps_hears_of_everything_at_once() -> None:
    assert told(Hearing(), "hhhh") == [True] * 4


def test_where_nobody_helps_several_commits_are_told_together() -> None:
    found = told(Hearing(), "n" * 3 * HEARD_TOGETHER)
    assert [place for place, now in enumerate(found, start=1) if now] == [4, 8, 12]


def test_one_that_begins_to_help_hears_of_the_rest_and_the_count_begins_anew() -> None:
    assert told(Hearing(), "nnh", "nnnn") == [False, False, True, False, False, False, True]


def test_where_no_guesses_are_wanted_drafters_hear_that_once_and_rest() -> None:
    assert told(Hearing(), "huuuu", "hu") == [True, True, False, False, False, True, True]


def test_a_new_drafter_is_told_that_no_guesses_are_wanted() -> None:
    hearing = Hearing()
    told(hearing, "uu")
    hearing.joined()
    assert told(hearing, "uu") == [True, False]


def test_nobody_rests_who_has_not_been_told_to() -> None:
    hearing = Hearing()
    assert not hearing.tells(wanted=False, helped=False, ended=False)
    assert hearing.tells(wanted=False, helped=True, ended=False)
    assert not hearing.tells(wanted=False, helped=True, ended=False)


def test_the_end_is_told_whoever_rests_or_helps_nobody() -> None:
    assert told(Hearing(), "uu", "e") == [True, False, True]
    assert told(Hearing(), "n", "e") == [False, True]
