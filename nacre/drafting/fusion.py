"""Several proposers feed one tree: a guess is worth what the guesses of those who make it have been worth.

Source: RASD (branches of retrieval and model merged by longest prefix, the model's veto), SuffixDecoding's hybrid (a
model only where the cheap source runs out) and staged speculative decoding (a cheap source drafts for the draft
model), under one rule with counts in place of their constants. Guarantee: exact (a guess never decides).

State: per session a tree of claims. A claim is a source's guess below a node with the survival it gave it; equal
paths are one node, whoever guessed them. Update: a commit walks the tree, and every claim below text has an outcome;
counts per source, rank, claimed survival and company turn claims into chances. Company is what the cheap sources
beside it say at that node: nothing, that token first, that one among others, or only other tokens. Claims of tokens
that the model has not named are counted once more, apart. So agreement and a veto weigh what they have been worth.

Proposal: best-first growth over the tree. A token that the model names survives as the model's claim does in that
company, any other with the mean chance of those who claim it, vetoed or not; rivals share 0.98, the surest first.
Where the cheap sources leave a gap that the model has been able to fill, it is asked, there and in the same step at the
likeliest other gaps. A node with an open gap is not grown further: it comes back as something to extend, and then it is
the model's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from heapq import heappop, heappush
from typing import cast

from nacre.drafting.claims import ClaimNode, Claims, ClaimTree
from nacre.drafting.growth import Children, checked_rows, grow, likeliest_lowest
from nacre.drafting.proposer import (
    DraftContext,
    Encoder,
    Expansion,
    Guess,
    HiddenStates,
    Observation,
    Proposer,
    ProposerTraits,
    TeachableByTenant,
)
from nacre.drafting.rows import Row
from nacre.errors import InvalidArgument
from nacre.pacing import Calibration, Reputation

#: Siblings together are never surer than this.
_SUREST = 0.98
#: What a claim is worth, until counted, that the model has contradicted; the doubt that agreement of cheap ones leaves.
_VETOED, _LEFT_DOUBT = 0.02, 0.6
#: The model is asked where it should add this much to the chance that some guess is right.
LEAST_GAIN = 0.05
#: Other gaps of a step must be reached with this chance; cheap sources beside a model are asked down to that one.
_LEAST_STAGED, _LEAST_ASKED = 0.1, 0.25
#: How often the model has been right where no cheap source was, to begin with; weight of one position.
_FILLED, _FOLLOW = 0.7, 1 / 64
#: A source that has not helped lately is asked every so many times: its way back.
_PROBE = 16
MOST_SOURCES = 8
_DEPTH = 64


class _Company(IntEnum):
    """What cheap sources beside the one that claims a token say: nothing, that it is the likeliest, may be, is not."""

    NONE = 0
    AGREES = 1
    NAMES = 2
    DIFFERS = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Gap:
    """A node that the model has not been asked about, and the way to it."""

    session: int
    node: ClaimNode
    tokens: tuple[int, ...]
    ids: tuple[int, ...]
    path: float

    def expansion(self) -> Expansion:
        return Expansion(self.session, self.node.id, self.tokens, self.ids, self.path)


class FusionProposer:
    """One tree out of `sources`, of which at most one may be costly: a model. Trees have at most `rows` guesses."""

    def __init__(self, sources: Sequence[Proposer], *, rows: int = 32, least_gain: float = LEAST_GAIN) -> None:
        if not 1 <= len(sources) <= MOST_SOURCES:
            raise InvalidArgument(f"{len(sources)} sources are to be fused; it must be 1 to {MOST_SOURCES}")
        costly = [number for number, source in enumerate(sources) if source.traits.costly]
        if len(costly) > 1:
            raise InvalidArgument("two models cannot be fused in one drafter; run a drafter for each")
        self._sources = tuple(sources)
        self._cheap = tuple(number for number in range(len(sources)) if number not in costly)
        self._model = costly[0] if costly else None
        self._rows = checked_rows(rows)
        self._least_gain = least_gain
        self._reputations = [Reputation() for _ in sources]
        #: By source and company, and of what the model has contradicted by source.
        self._calibrations = [tuple(Calibration() for _ in _Company) for _ in sources]
        self._vetoed = [Calibration() for _ in sources]
        self._filled = _FILLED
        self._silent_for = [0] * len(sources)
        self._trusted: frozenset[int] = frozenset(range(len(sources)))
        self._trees: dict[int, ClaimTree] = {}

    @property
    def traits(self) -> ProposerTraits:
        traits = [source.traits for source in self._sources]
        return ProposerTraits(
            name="+".join(one.name for one in traits),
            shape="tree",
            batch=max(one.batch for one in traits),
            reach=max(one.reach for one in traits),
            learns=any(one.learns for one in traits),
            costly=self._model is not None,
            encodes=any(one.encodes for one in traits),
            teachable=any(one.teachable for one in traits),
        )

    # -- what is known -------------------------------------------------------------------------------------------

    def open(self, session: int, context: DraftContext) -> None:
        opened: list[Proposer] = []
        try:
            for source in self._sources:
                source.open(session, context)
                opened.append(source)
        except Exception:
            for source in opened:
                source.close(session)
            raise
        self._trees[session] = ClaimTree()

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        tree = self._trees[session]
        node: ClaimNode | None = tree.root
        own_trunk: list[int] = []
        for token in tokens:
            if node is None:
                break
            self._learn(node, token)
            node = node.children.get(token)
            if node is not None:
                own_trunk.append(node.id)
        tree.move(node)
        for number, source in enumerate(self._sources):
            source.committed(session, tokens, own_trunk if number == self._model else trunk)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        for source in self._sources:
            if source.traits.learns:
                source.observed(session, observations)

    def encoded(self, session: int, states: HiddenStates) -> None:
        for source in self._sources:
            if source.traits.encodes:
                cast(Encoder, source).encoded(session, states)

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """Only for sources that keep tenants apart: one tenant's text must not be guessed for another."""
        for source in self._sources:
            if source.traits.teachable and isinstance(source, TeachableByTenant):
                source.teach(tenant, rows, outputs)

    def close(self, session: int) -> None:
        self._trees.pop(session, None)
        for source in self._sources:
            source.close(session)

    def _learn(self, node: ClaimNode, token: int) -> None:
        """`token` was right below `node`: every claim there has an outcome."""
        said = self._said(node)
        for number, claims in node.claims.items():
            for claimed, rank, survival, known in self._weighed(node, number):
                known.observe(rank, survival, claimed == token)
            if said is not None and number != self._model:
                for claimed, (rank, survival) in claims.items():
                    if claimed not in said:
                        self._vetoed[number].observe(rank, _VETOED * survival, claimed == token)
        # Only now: a claim's company is judged above by the reputations from before this outcome.
        for number, claims in node.claims.items():
            self._reputations[number].learn(
                (rank, survival, claimed == token) for claimed, (rank, survival) in claims.items()
            )
        if said is not None and not any(token in node.claims.get(number, ()) for number in self._cheap):
            self._filled += _FOLLOW * ((token in said) - self._filled)

    def _said(self, node: ClaimNode) -> Claims | None:
        """What the model claims below a node, if it has been asked."""
        return node.claims.get(self._model) if self._model is not None else None

    def _weighed(self, node: ClaimNode, number: int) -> Iterator[tuple[int, int, float, Calibration]]:
        """(token, rank, survival before it is calibrated, by what) of a source's claims below a node."""
        calibrations = self._calibrations[number]
        named, first = self._others(node, number)
        for token, (rank, survival) in node.claims[number].items():
            if token == first:
                doubt = 1.0 if number == self._model else _LEFT_DOUBT
                yield token, rank, 1.0 - doubt * (1.0 - survival), calibrations[_Company.AGREES]
            elif token in named:
                yield token, rank, survival, calibrations[_Company.NAMES]
            elif named:
                yield token, rank, survival, calibrations[_Company.DIFFERS]
            else:
                yield token, rank, survival, calibrations[_Company.NONE]

    def _others(self, node: ClaimNode, number: int) -> tuple[Claims, int | None]:
        """What other cheap sources that can be trusted claim below a node, and the token they are surest of."""
        named: Claims = {}
        surest, first = 0.0, None
        for other, claims in node.claims.items():
            if other == number or other == self._model or other not in self._trusted:
                continue
            overall = self._reputations[other].calibration
            for token, claim in claims.items():
                chance = overall.survival(*claim)
                if chance > surest:
                    surest, first = chance, token
            named.update(claims)
        return named, first

    # -- guessing ------------------------------------------------------------------------------------------------

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self._trusted = frozenset(n for n, known in enumerate(self._reputations) if not known.hopeless)
        trees = [self._trees[item.session] for item in wanted]
        nodes = [tree.path(item.path_tokens)[-1] for tree, item in zip(trees, wanted, strict=True)]
        asked = [place for place, item in enumerate(wanted) if self._asks(item)]
        for number in self._cheap if asked else ():
            if not self._due(number):
                continue
            answers = self._sources[number].propose([wanted[place] for place in asked])
            for place, guesses in zip(asked, answers, strict=True):
                trees[place].hang(nodes[place], number, guesses)
        if self._model is not None:
            self._ask_model(self._model, wanted, nodes)
        return [grow(node, self._grown_children(node), _child, self._rows, depth=_DEPTH) for node in nodes]

    def _asks(self, item: Expansion) -> bool:
        """Beside a model, cheap sources answer for what is likely; a forward pass serves all the rest."""
        return self._model is None or item.path_survival >= _LEAST_ASKED

    def _due(self, number: int) -> bool:
        self._silent_for[number] += 1
        if number in self._trusted or self._silent_for[number] >= _PROBE:
            self._silent_for[number] = 0
            return True
        return False

    def _children(self, node: ClaimNode) -> Children:
        """(token, survival) of what is claimed below a node by those who can be trusted, most likely first."""
        said = self._said(node)
        chances: dict[int, list[float]] = {}
        for number, claims in node.claims.items():
            if number not in self._trusted:
                continue
            if said is None or number == self._model:
                for token, rank, survival, known in self._weighed(node, number):
                    chances.setdefault(token, []).append(known.survival(rank, survival))
            else:
                for token, (rank, survival) in claims.items():
                    if token not in said:
                        vetoed = self._vetoed[number].survival(rank, _VETOED * survival)
                        chances.setdefault(token, []).append(vetoed)
        ranked = [(token, sum(found) / len(found)) for token, found in chances.items()]
        ranked.sort(key=likeliest_lowest)
        left = _SUREST
        for place, (token, chance) in enumerate(ranked):
            if chance > left:  # the surest keep what they have; those after them share what is left
                ranked[place] = (token, left)
                chance = left
            left -= chance
        return [child for child in ranked if child[1] > 0]

    def _has_gap(self, node: ClaimNode) -> bool:
        """Whether the model has yet to say something that is worth its time: the others must have proven themselves."""
        if self._model is None or self._model in node.claims:
            return False
        proven: dict[int, float] = {}
        for number in node.claims:
            if number in self._trusted:
                for token, rank, survival, known in self._weighed(node, number):
                    proven[token] = max(proven.get(token, 0.0), known.proven(rank, survival))
        return (1.0 - min(sum(proven.values()), _SUREST)) * self._filled >= self._least_gain

    def _grown_children(self, top: ClaimNode) -> Callable[[ClaimNode], Children]:
        def children(node: ClaimNode) -> Children:
            return () if node is not top and self._has_gap(node) else self._children(node)

        return children

    # -- the model -----------------------------------------------------------------------------------------------

    def _ask_model(self, model: int, wanted: Sequence[Expansion], nodes: Sequence[ClaimNode]) -> None:
        """Lets the model fill the gaps at wanted nodes, and with them the likeliest ones below: a step is a step."""
        gaps: list[_Gap] = []
        heap: list[tuple[float, int, _Gap]] = []
        for item, node in zip(wanted, nodes, strict=True):
            _, *below_root = self._trees[item.session].path(item.path_tokens)
            ids = tuple(one.id for one in below_root)
            gap = _Gap(item.session, node, item.path_tokens, ids, item.path_survival)
            if self._has_gap(node):
                gaps.append(gap)
            heappush(heap, (-gap.path, len(heap), gap))
        if not gaps:
            return
        source = self._sources[model]
        room, order = source.traits.batch - len(gaps), len(heap)
        while heap and room > 0:
            _, _, above = heappop(heap)
            for token, survival in self._children(above.node):
                path = above.path * survival
                if path < _LEAST_STAGED:
                    break
                node = above.node.children[token]
                below = _Gap(above.session, node, (*above.tokens, token), (*above.ids, node.id), path)
                if room > 0 and self._has_gap(node):
                    gaps.append(below)
                    room -= 1
                order += 1
                heappush(heap, (-path, order, below))
        for gap, guesses in zip(gaps, source.propose([gap.expansion() for gap in gaps]), strict=True):
            self._trees[gap.session].hang(gap.node, model, guesses)


def _child(node: ClaimNode, token: int) -> ClaimNode:
    return node.children[token]
