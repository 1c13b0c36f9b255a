"""Trees of guesses grown best first: the node most likely to be reached is added next, until the rows are used up.

Source: OPT-Tree, EAGLE-2 and SpecExec share the algorithm. Rule: with path(v) the product of the survivals from the
extended node to v, add the v of greatest path(v) whose parent is there. As no child's path exceeds its parent's, the
result has the greatest sum of path(v), the expected number of accepted guesses, of all trees of that size.

Children come in falling order, so a node's next sibling waits until the one before it is in: per guess two heap
entries, however wide the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import TypeVar

from nacre.drafting.proposer import TIP, Guess
from nacre.errors import InvalidArgument

State = TypeVar("State")

#: (token, survival) of the children of a node, most likely first.
Children = Sequence[tuple[int, float]]

MOST_ROWS = 256
#: Guesses less likely to be reached than this are not made.
LEAST_PATH = 0.002


def grow(
    root: State,
    children_of: Callable[[State], Children],
    step: Callable[[State, int], State],
    rows: int,
    *,
    depth: int = 16,
    least_path: float = LEAST_PATH,
) -> list[Guess]:
    """At most `rows` guesses, parents before children. A node is a state; `step` leads from one to a child's."""
    guesses: list[Guess] = []
    order = 0  # equal paths keep the order in which they were found: the same calls give the same tree
    heap: list[tuple[float, int, float, int, int, int, State, Children]] = []
    most = -least_path  # paths are kept negative: the heap gives the least
    children = children_of(root)
    if children and -children[0][1] <= most:
        heap.append((-children[0][1], 0, -1.0, TIP, 1, 0, root, children))
    for made in range(rows):
        if not heap:
            break
        path, _, above, parent, level, place, state, children = heappop(heap)
        token, survival = children[place]
        guesses.append(Guess(token, survival, parent))
        order += 2
        place += 1
        if place < len(children):
            beside = above * children[place][1]
            if beside <= most:
                heappush(heap, (beside, order, above, parent, level, place, state, children))
        if level < depth and made + 1 < rows:
            state = step(state, token)
            children = children_of(state)
            if children:
                below = path * children[0][1]
                if below <= most:
                    heappush(heap, (below, order + 1, path, made, level + 1, 0, state, children))
    return guesses


#: (guesses made so far, the phrases that agree with them, each with its weight).
_Phrases = tuple[int, Sequence[tuple[Sequence[int], float]]]


def grow_phrases(
    phrases: Sequence[tuple[Sequence[int], float]], rows: int, *, unseen: float = 1.0, depth: int = 64
) -> list[Guess]:
    """The tree of phrases with weights: a child's survival is its phrases' weight over its parent's plus `unseen`."""
    return grow((0, phrases), partial(_next_tokens, unseen), _agreeing, rows, depth=depth) if phrases else []


def _next_tokens(unseen: float, state: _Phrases) -> Children:
    level, phrases = state
    if len(phrases) == 1:  # most nodes: phrases part early
        ((tokens, weight),) = phrases
        return [(tokens[level], weight / (weight + unseen))] if level < len(tokens) else ()
    totals: dict[int, float] = {}
    for tokens, weight in phrases:
        if level < len(tokens):
            totals[tokens[level]] = totals.get(tokens[level], 0.0) + weight
    whole = sum(totals.values()) + unseen
    return sorted([(token, weight / whole) for token, weight in totals.items()], key=likeliest_lowest)


def _agreeing(state: _Phrases, token: int) -> _Phrases:
    level, phrases = state
    if len(phrases) == 1:
        return level + 1, phrases
    return level + 1, [phrase for phrase in phrases if level < len(phrase[0]) and phrase[0][level] == token]


def likeliest_lowest(child: tuple[int, float]) -> tuple[float, int]:
    """Sorts (token, survival) by falling survival, equal ones by token."""
    return (-child[1], child[0])


def checked_rows(rows: int) -> int:
    """Raises InvalidArgument if a tree cannot have so many guesses."""
    if not 1 <= rows <= MOST_ROWS:
        raise InvalidArgument(f"a tree of {rows} guesses was asked for; it must be 1 to {MOST_ROWS}", param="rows")
    return rows
