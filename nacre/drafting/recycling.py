"""Token Recycling: candidate tokens of earlier passes are guessed again wherever their token comes up again.

Source: Token Recycling (Luo et al. 2024). Guarantee: exact (a guess never decides). Needs no model and no torch.

State: for each token the 8 tokens that the target found most likely after it when it was last verified, on the
accepted path or off it (`adjacency`), prompts included; kept across sessions. Update: a row is replaced.

Two ways to make a tree of it. `recycling` fills the paper's static template of 80 ranks: a node of rank r below token
x guesses the r-th of x's row; with fewer rows, the template's nodes that are likeliest by rank. `recycling-growth`
grows best first by the stored probabilities (`growth`).
"""

from __future__ import annotations

from collections.abc import Sequence

from nacre.drafting.adjacency import AdjacencyTable
from nacre.drafting.growth import Children, checked_rows
from nacre.drafting.ngram_rows import key_of
from nacre.drafting.proposer import TIP, Guess, Observation, ProposerTraits
from nacre.drafting.row_trees import sharpening
from nacre.drafting.rows import Row
from nacre.drafting.tail import RememberingProposer, Tail

#: Children of the template's nodes, by the ranks that lead there; nodes not named have none.
_CHILDREN = (
    {"": 8},
    dict(zip("01234567", (8, 4, 3, 2, 1, 1, 1, 1), strict=True)),
    {"00": 8, "01": 3, "02": 2, "10": 2}
    | dict.fromkeys(("03", "04", "05", "06", "07", "11", "20", "30", "40", "50"), 1),
    {"000": 5, "001": 2} | dict.fromkeys(("002", "003", "004", "010", "020", "100", "200", "300"), 1),
    {"0000": 3} | dict.fromkeys(("0001", "0002", "0010", "0100", "1000"), 1),
    {"00000": 2, "00010": 1},
)
#: How likely a rank is to be right, for choosing among the template's nodes.
_RANK_CHANCES = (0.35, 0.12, 0.07, 0.05, 0.03, 0.03, 0.03, 0.03)


def _template() -> tuple[tuple[int, int], ...]:
    """(parent's place or TIP, rank) of the 80 nodes, the likeliest by rank first; parents come before children."""
    paths: dict[str, float] = {}
    for level in _CHILDREN:
        for path, children in level.items():
            for rank in range(children):
                paths[f"{path}{rank}"] = (paths[path] if path else 1.0) * _RANK_CHANCES[rank]
    order = sorted(paths, key=lambda path: (-paths[path], len(path), path))
    places = {path: place for place, path in enumerate(order)}
    return tuple((places.get(path[:-1], TIP), int(path[-1])) for path in order)


TEMPLATE = _template()
_DEPTH = len(_CHILDREN)


class _Recycles(RememberingProposer[AdjacencyTable]):
    """Keeps what the target said. `table` is shared by the sessions of one tenant; None: the proposer has its own."""

    def __init__(self, table: AdjacencyTable | None) -> None:
        super().__init__(1, AdjacencyTable() if table is None else table)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        self.memory.learn(observations)

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        self.memory.merge(rows)


class RecyclingProposer(_Recycles):
    """The static template."""

    def __init__(self, table: AdjacencyTable | None = None, *, rows: int = 32) -> None:
        super().__init__(table)
        self._nodes = TEMPLATE[: checked_rows(rows)]

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="recycling", shape="tree", batch=1, reach=_DEPTH, learns=True, teachable=True)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        guesses: list[Guess] = []
        placed: list[int] = []  # the guess of each node of the template, TIP where its row is too short
        power = sharpening(tail.context.params.temperature)
        children: dict[int, Children] = {TIP: self.memory.children(last[-1], power)}
        for parent, rank in self._nodes:
            above = placed[parent] if parent != TIP else TIP
            row = children.get(above)
            if row is None:
                row = children[above] = self.memory.children(guesses[above].token, power)
            if (parent != TIP and above == TIP) or rank >= len(row):
                placed.append(TIP)
                continue
            placed.append(len(guesses))
            guesses.append(Guess(row[rank][0], row[rank][1], above))
        return guesses


class RecyclingGrowthProposer(_Recycles):
    """Best-first growth over the same table."""

    def __init__(self, table: AdjacencyTable | None = None, *, rows: int = 32, depth: int = 12) -> None:
        super().__init__(table)
        self._rows = checked_rows(rows)
        self._depth = depth

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(
            name="recycling-growth", shape="tree", batch=1, reach=self._depth, learns=True, teachable=True
        )

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        power = sharpening(tail.context.params.temperature)
        if self._trees_bytes != self.memory.size_bytes:  # the table has grown
            self._follow()
        return self._trees.grow(key_of(last), self._rows, self._depth, power=power)

    def _follow(self) -> None:
        self._trees, self._trees_bytes = self.memory.trees(), self.memory.size_bytes
