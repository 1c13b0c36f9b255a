"""A verifier's session and a target for it. Tokens are small numbers; `TRUTH` is what the target would say."""

from __future__ import annotations

from collections.abc import Sequence

from nacre.sampling import Choice
from nacre.session import (
    Resolution,
    SessionLimits,
    SpeculationMode,
    VerifierSession,
    open_session,
)

PROMPT = (50, 51, 52)
TRUTH = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
VOCAB = 100
LIMITS = SessionLimits(window_nodes=8, max_streams=3)


def opened(
    *,
    resume: Sequence[int] = (),
    max_tokens: int = 10,
    stop_ids: frozenset[int] = frozenset(),
    mode: SpeculationMode = SpeculationMode.LATENCY,
    keep_choices: bool = False,
    limits: SessionLimits = LIMITS,
) -> VerifierSession:
    return open_session(
        PROMPT,
        resume=resume,
        max_tokens=max_tokens,
        max_positions=64,
        vocab_size=VOCAB,
        stop_ids=stop_ids,
        mode=mode,
        keep_choices=keep_choices,
        limits=limits,
    )


def sampled(session: VerifierSession, plan_tokens: Sequence[Sequence[int]]) -> list[Choice]:
    """The target's choice after each row: the truth below true guesses, elsewhere a token that no one expects."""
    text = TRUTH[len(session.tokens) - len(PROMPT) :]
    choices = []
    for guessed in plan_tokens:
        right = tuple(guessed) == text[: len(guessed)]
        token = text[len(guessed)] if right else 99
        choices.append(Choice(token, -token / 10))
    return choices


def step(session: VerifierSession, rows: int = 16) -> Resolution:
    plan = session.plan(rows)
    ancestors = [plan.ancestors(row) for row in range(len(plan.tokens))]
    return session.resolve(plan, sampled(session, ancestors))


def output(session: VerifierSession) -> tuple[int, ...]:
    return tuple(session.tokens[len(PROMPT) :])


def live_guesses(session: VerifierSession) -> set[tuple[int, ...]]:
    return {tuple(node.path()) for node in session.tree.nodes()}
