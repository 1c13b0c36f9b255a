"""Liveness and its price: what drafters can win, and that they cannot lose anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nacre.session import DrafterLimits, FinishReason, SessionLimits
from nacre.sim import DrafterSpec, Outcome, Scenario, SessionSpec, VerifierSpec, run_scenario
from nacre.sim.malice import MALICES
from nacre.sim.network import LinkSpec
from nacre.sim.verifier import PassTime

TOKENS = 60
PASS_S = 0.03
VERIFIER = VerifierSpec(
    row_budget=8, pass_time=PassTime(((1, PASS_S),)), limits=SessionLimits(window_nodes=64, max_streams=4)
)
AT_ONCE = replace(VERIFIER, pauses=False)


def run(*drafters: DrafterSpec, seed: int = 1, sessions: int = 1, verifier: VerifierSpec = VERIFIER) -> Outcome:
    specs = tuple(SessionSpec((1, 2, index), TOKENS, drafters=drafters) for index in range(sessions))
    return run_scenario(Scenario(seed, (verifier,), specs, vocab_size=50))


def test_without_a_drafter_every_token_takes_one_pass_of_one_row() -> None:
    (session,) = run().sessions
    assert session.finished is FinishReason.LENGTH
    assert session.passes == TOKENS
    assert session.tallies[0].rows == TOKENS
    assert session.seconds == pytest.approx(TOKENS * PASS_S)


def test_a_perfect_drafter_next_door_fills_every_pass() -> None:
    (session,) = run(DrafterSpec(acceptance=(1.0,), step_s=0.001)).sessions
    # Eight rows commit eight tokens; only the first pass finds nothing.
    assert session.passes == pytest.approx(TOKENS / 8, abs=2)


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_a_perfect_drafter_makes_fewer_passes_than_tokens_at_any_distance(delay_s: float, seed: int) -> None:
    drafter = DrafterSpec(acceptance=(1.0,), step_s=0.002, link=LinkSpec(delay_s, jitter_s=delay_s / 4))
    (session,) = run(drafter, seed=seed).sessions
    assert session.passes < TOKENS


@pytest.mark.parametrize("window_nodes", [2, 3, 7])
def test_a_perfect_drafter_wins_something_even_through_a_tiny_window(window_nodes: int) -> None:
    drafter = DrafterSpec(acceptance=(1.0,), step_s=0.001, limits=DrafterLimits(window_nodes=window_nodes))
    (session,) = run(drafter).sessions
    assert session.passes <= TOKENS * 0.7


def test_a_window_of_one_guess_wins_only_because_the_engine_pauses_for_it() -> None:
    drafter = DrafterSpec(acceptance=(1.0,), step_s=0.001, limits=DrafterLimits(window_nodes=1))
    assert run(drafter, verifier=AT_ONCE).sessions[0].passes == TOKENS
    (paused,) = run(drafter).sessions
    assert paused.passes < TOKENS * 0.6
    assert (paused.seconds or 0.0) < TOKENS * PASS_S * 0.6


@pytest.mark.parametrize("kind", sorted(MALICES))
def test_no_malice_costs_a_pass_or_changes_the_text(kind: str) -> None:
    alone = run().sessions[0]
    (attacked,) = run(*(DrafterSpec(kind=kind, step_s=0.002) for _ in range(3))).sessions
    assert attacked.tokens == alone.tokens
    assert attacked.passes <= alone.passes
    # Worst is who seems to be worth a pause and never is.
    assert (attacked.seconds or 0.0) <= 1.015 * (alone.seconds or 0.0)
    (attacked,) = run(*(DrafterSpec(kind=kind, step_s=0.002) for _ in range(3)), verifier=AT_ONCE).sessions
    assert attacked.seconds == pytest.approx(alone.seconds) or attacked.passes < alone.passes


ILLEGAL = {
    "wrong_parents", "future_anchor", "no_anchor", "out_of_order", "flood", "huge_message", "foreign_tokens",
    "bad_confidence", "empty",
}  # fmt: skip


#: Legal at one time and illegal at another.
MIXED = {"random_parents", "replays", "any"}


@pytest.mark.parametrize("kind", sorted(MALICES.keys() - MIXED))
def test_what_is_illegal_is_refused_and_what_is_merely_useless_is_not(kind: str) -> None:
    roomy = replace(VERIFIER, limits=SessionLimits(window_nodes=256))
    (session,) = run(DrafterSpec(kind=kind, step_s=0.02), verifier=roomy).sessions
    assert (session.tallies[0].refused_drafts > 0) == (kind in ILLEGAL)


def test_a_malicious_drafter_harms_no_other_session() -> None:
    evil = DrafterSpec(kind="any", step_s=0.001)
    quiet, harried = (
        run_scenario(
            Scenario(
                5,
                (VerifierSpec(row_budget=16, pass_time=PassTime(((1, PASS_S),)), limits=VERIFIER.limits),),
                (
                    SessionSpec((1, 2, 3), TOKENS, drafters=(DrafterSpec(acceptance=(0.8,)),)),
                    SessionSpec((4, 5, 6), TOKENS, drafters=others),
                ),
            )
        ).sessions[0]
        for others in ((), (evil, evil, evil))
    )
    assert (harried.tokens, harried.seconds, harried.passes) == (quiet.tokens, quiet.seconds, quiet.passes)


def test_the_text_is_the_same_whoever_drafts_from_wherever() -> None:
    texts = {
        run(*drafters, seed=9).sessions[0].tokens
        for drafters in (
            (),
            (DrafterSpec(acceptance=(1.0,)),),
            (DrafterSpec(acceptance=(0.3, 0.6)), DrafterSpec(acceptance=(0.7,), model=1, link=LinkSpec(0.04, 0.02))),
            (DrafterSpec(kind="turncoat"), DrafterSpec(acceptance=(0.9,), cut_at_s=(0.2, 0.4))),
        )
    }
    assert len(texts) == 1


def test_more_sessions_than_rows_wait_for_those_that_have_begun_and_all_finish() -> None:
    verifier = VerifierSpec(row_budget=2, pass_time=PassTime(((1, PASS_S),)))
    outcome = run(DrafterSpec(acceptance=(1.0,)), sessions=5, verifier=verifier)
    assert all(session.finished is FinishReason.LENGTH for session in outcome.sessions)
    # Two at a time, who has begun goes on; only the last one has a pass to itself and room for guesses.
    assert [session.passes for session in outcome.sessions[:4]] == [TOKENS] * 4
    assert outcome.sessions[4].passes < TOKENS
    assert max(session.seconds or 0.0 for session in outcome.sessions) <= 3 * TOKENS * PASS_S


def test_better_acceptance_and_rival_guesses_need_fewer_passes() -> None:
    def passes(*acceptance: float) -> int:
        drafter = DrafterSpec(acceptance=acceptance, step_s=0.002, limits=DrafterLimits(window_nodes=24))
        return sum(run(drafter, seed=seed).sessions[0].passes for seed in range(6))

    assert passes(0.9) < passes(0.6) < passes(0.2)
    assert passes(0.6, 0.9) < passes(0.6)


def test_two_drafters_who_know_different_things_beat_either() -> None:
    def passes(*models: int) -> int:
        limits = DrafterLimits(window_nodes=24)
        drafters = tuple(DrafterSpec(acceptance=(0.5,), step_s=0.002, model=model, limits=limits) for model in models)
        return sum(run(*drafters, seed=seed, verifier=AT_ONCE).sessions[0].passes for seed in range(6))

    assert passes(0, 1) < min(passes(0), passes(1))
    assert passes(0, 0) == pytest.approx(passes(0), rel=0.1)
