"""The choice among drafters: it finds the fastest, notices changes, keeps contexts apart, and forgets within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nacre.errors import InvalidArgument
from nacre.pacing.drafter_bandit import MOST_ARMS, MOST_CONTEXTS, Context, DrafterBandit, Offer

CODE, LETTERS = ("code",), ("latin",)
A, B = Offer("a", 0.008, 0.002), Offer("b", 0.008, 0.002)

Truth = Callable[[Context, str], float]


def pass_s(rows: int) -> float:
    return 0.038 + 0.0003 * rows


def played(
    bandit: DrafterBandit,
    truth: Truth,
    *,
    sessions: int,
    contexts: Sequence[Context] = (LETTERS,),
    offers: Sequence[Offer] = (A, B),
    seed: int = 1,
) -> list[tuple[Context, str]]:
    """What was chosen in sessions of 60 independent guesses each; contexts take turns."""
    luck = np.random.default_rng(seed)
    chosen = []
    for number in range(sessions):
        context = contexts[number % len(contexts)]
        offer = bandit.choose(context, offers, pass_s)
        bandit.learned(context, offer, int(luck.binomial(60, truth(context, offer.arm))), 60)
        chosen.append((context, offer.arm))
    return chosen


def share(chosen: Sequence[tuple[Context, str]], context: Context, arm: str) -> float:
    arms = Counter(name for where, name in chosen if where == context)
    return arms[arm] / sum(arms.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_better_drafter_soon_gets_most_sessions(seed: int) -> None:
    bandit = DrafterBandit(seed=seed)
    chosen = played(bandit, lambda _, arm: {"a": 0.6, "b": 0.8}[arm], sessions=300, seed=seed)
    assert share(chosen[20:], LETTERS, "b") > 0.8
    assert bandit.best(LETTERS, (A, B), pass_s) == B
    assert bandit.acceptance(LETTERS, B) == pytest.approx(0.8, abs=0.12)


def test_what_counts_is_speed_not_acceptance() -> None:
    careful, quick = Offer("careful", 0.1, 0.002), Offer("quick", 0.002, 0.002)
    bandit = DrafterBandit()
    for offer, accepted in ((careful, 90), (quick, 80)):
        for _ in range(20):
            bandit.learned(LETTERS, offer, accepted, 100)
    assert bandit.acceptance(LETTERS, careful) > bandit.acceptance(LETTERS, quick)
    assert bandit.best(LETTERS, (careful, quick), pass_s) == quick


def test_a_near_drafter_may_be_worse_and_still_the_faster_one() -> None:
    near, far = Offer("near", 0.008, 0.001), Offer("far", 0.008, 0.2)
    bandit = DrafterBandit()
    for _ in range(20):
        bandit.learned(LETTERS, near, 80, 100)
        bandit.learned(LETTERS, far, 90, 100)
    assert bandit.best(LETTERS, (far, near), pass_s) == near
    assert bandit.best(LETTERS, (far, Offer("near", 0.008, 0.2)), pass_s) == far


def test_a_drafter_that_gets_worse_is_left_within_some_sessions() -> None:
    bandit = DrafterBandit()
    before = played(bandit, lambda _, arm: {"a": 0.85, "b": 0.6}[arm], sessions=200)
    after = played(bandit, lambda _, arm: {"a": 0.2, "b": 0.6}[arm], sessions=80, seed=2)
    assert share(before[100:], LETTERS, "a") > 0.8
    assert share(after[20:], LETTERS, "b") > 0.8


def test_a_drafter_that_gets_better_unseen_is_tried_again_and_found() -> None:
    bandit = DrafterBandit()
    played(bandit, lambda _, arm: {"a": 0.7, "b": 0.3}[arm], sessions=50)
    after = played(bandit, lambda _, arm: {"a": 0.7, "b": 0.95}[arm], sessions=2000, seed=2)
    assert share(after[-100:], LETTERS, "b") > 0.8


def test_contexts_are_learned_apart() -> None:
    bandit = DrafterBandit()

    def truth(context: Context, arm: str) -> float:
        return 0.85 if (arm == "a") == (context == CODE) else 0.4

    chosen = played(bandit, truth, sessions=200, contexts=(CODE, LETTERS))
    assert share(chosen[50:], CODE, "a") > 0.85
    assert share(chosen[50:], LETTERS, "b") > 0.85


def test_a_new_context_begins_with_what_is_known_from_others_and_soon_goes_its_own_way() -> None:
    first = Counter()
    for seed in range(100):
        bandit = DrafterBandit(seed=seed)
        for _ in range(10):
            bandit.learned(LETTERS, A, 54, 60)
            bandit.learned(LETTERS, B, 12, 60)
        first[bandit.choose(CODE, (A, B), pass_s).arm] += 1
    assert first["a"] >= 80, "without any knowledge it would be half"
    assert bandit.acceptance(CODE, A) == pytest.approx(0.9, abs=0.03)
    for _ in range(2):
        bandit.learned(CODE, A, 0, 60)
    assert bandit.acceptance(CODE, A) < 0.1
    assert bandit.acceptance(LETTERS, A) > 0.85, "elsewhere nothing has changed"


def test_near_and_far_drafters_of_a_kind_are_known_apart() -> None:
    near, far = Offer("a", 0.008, 0.001), Offer("a", 0.008, 0.1)
    bandit = DrafterBandit()
    for _ in range(10):
        bandit.learned(LETTERS, near, 50, 60)
        bandit.learned(LETTERS, far, 20, 60)
    assert bandit.acceptance(LETTERS, near) > 0.75
    assert bandit.acceptance(LETTERS, far) < 0.45
    assert bandit.acceptance(LETTERS, Offer("a", 0.1, 0.0045)) == bandit.acceptance(LETTERS, near), "one bucket"


def test_an_arm_of_which_nothing_is_known_is_tried_soon() -> None:
    bandit = DrafterBandit()
    played(bandit, lambda *_: 0.7, sessions=100, offers=(A,))
    chosen = played(bandit, lambda *_: 0.7, sessions=20)
    assert share(chosen, LETTERS, "b") > 0


def test_a_long_session_weighs_no_more_than_a_short_one_can() -> None:
    long, short = DrafterBandit(), DrafterBandit()
    long.learned(LETTERS, A, 20_000, 40_000)
    short.learned(LETTERS, A, 16, 32)
    assert long.acceptance(LETTERS, A) == pytest.approx(short.acceptance(LETTERS, A))
    for bandit in (long, short):
        bandit.learned(LETTERS, A, 32, 32)
    assert long.acceptance(LETTERS, A) == pytest.approx(short.acceptance(LETTERS, A))


def test_a_session_in_which_nothing_was_judged_teaches_nothing() -> None:
    bandit = DrafterBandit()
    bandit.learned(LETTERS, A, 0, 0)
    assert bandit.size == 0
    assert bandit.acceptance(LETTERS, A) == 0.5


def test_a_seed_replays_the_choices() -> None:
    def run(seed: int) -> list[tuple[Context, str]]:
        return played(DrafterBandit(seed=seed), lambda *_: 0.6, sessions=60)

    assert run(4) == run(4)
    assert run(4) != run(5)


def test_memory_is_bounded_and_what_was_used_last_is_kept() -> None:
    bandit = DrafterBandit()
    for number in range(3 * MOST_CONTEXTS):
        bandit.learned((f"context {number}",), A, 60, 60)
        bandit.learned(LETTERS, Offer(f"arm {number}"), 60, 60)
    assert bandit.size <= MOST_CONTEXTS + 2 * MOST_ARMS
    assert bandit.acceptance(LETTERS, Offer(f"arm {3 * MOST_CONTEXTS - 1}")) > 0.9
    assert bandit.acceptance(LETTERS, Offer("arm 0")) == 0.5


@pytest.mark.parametrize("wrong", [{"keep": 0.0}, {"keep": 1.5}, {"prior_weight": 0.0}, {"session_weight": 0.5}])
def test_dials_out_of_bounds_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        DrafterBandit(**wrong)  # type: ignore[arg-type]
