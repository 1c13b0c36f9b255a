"""A drafter's half of a session, set up, and what its tests say in one word."""

from __future__ import annotations

from nacre.drafting.proposer import TIP, Guess
from nacre.pacing import Reputation
from nacre.session import DrafterLimits, DrafterSession

TEXT = (50, 51, 52)
LIMITS = DrafterLimits(window_nodes=16)


def opened(
    *,
    window_nodes: int = 16,
    end_position: int = 40,
    limits: DrafterLimits = LIMITS,
    reputation: Reputation | None = None,
) -> DrafterSession:
    return DrafterSession(
        TEXT, end_position=end_position, limits=limits, window_nodes=window_nodes, reputation=reputation
    )


def chain(*tokens: int, survival: float = 0.5) -> list[Guess]:
    return [Guess(token, survival, TIP if index == 0 else index - 1) for index, token in enumerate(tokens)]


def rivals(*tokens: int, survival: float = 0.25) -> list[Guess]:
    return [Guess(token, survival) for token in tokens]


def paths(session: DrafterSession) -> set[tuple[int, ...]]:
    return {tuple(node.path()) for node in session.tree.nodes()}


def frontier(session: DrafterSession, count: int = 16) -> list[tuple[int, ...]]:
    return [tuple(node.path()) for node in session.frontier(count)]


def extend(session: DrafterSession, path: tuple[int, ...], guesses: list[Guess]) -> list[int]:
    node = session.tree.tip
    for token in path:
        node = node.children[token]
    return session.extend(node.id, guesses)
