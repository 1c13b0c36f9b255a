"""What the claims of several sources have been worth, in texts of one kind.

Every claim below a token that becomes text has an outcome. Counts per source, rank, claimed survival and company turn
claims into chances. Company is what the cheap sources beside it say at that node: nothing, that token first, that one
among others, or only other tokens. Claims of tokens that the model has not named are counted once more, apart. So
agreement and a veto weigh what they have been worth.

Which source is worth asking follows from the same outcomes: one that has not helped lately is asked now and then only,
and beside a model one that has been no surer of what came than the model.
That is a bandit whose arms are the sources and whose context is the kind of text (MetaSD; decision 15): each kind has
counts of its own, because a table that is right in code says nothing about prose.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from nacre.drafting.claims import ClaimNode, Claims
from nacre.drafting.growth import Children, likeliest_lowest
from nacre.pacing import Calibration, Reputation

#: Siblings together are never surer than this, unless the model has spoken: its claims leave what they leave.
_SUREST = 0.98
#: What a claim is worth, until counted, that the model has contradicted; the doubt that agreement of cheap ones leaves.
_VETOED, _LEFT_DOUBT = 0.02, 0.6
#: How often the model has been right where no cheap source was: to begin with, and at the least that is believed, as no
#: model is put to sleep for good. Weight of one position.
_FILLED, _LEAST_FILLED, _FOLLOW = 0.7, 0.06, 1 / 64
#: What a model's claim weighs against counts, in observations: it was fitted when the model was made, and it is finer
#: than any bucket.
_MODEL_STRENGTH = 50.0
#: A source that has not helped lately is asked between two commits out of so many: its way back.
_PROBE = 8
#: Beside a model a cheap source helps where it is surer by so much, a position, of the token that comes. Before it is
#: known; weight of one position; and what more a guess counts that is so sure that the model need not have been asked.
_LEAST_GAIN, _GAIN, _FOLLOW_GAIN = 0.01, 0.05, 1 / 32
_SURE, _SPARED = 0.9, 0.1
_UNSAID = (0, 0.0)


class _Company(IntEnum):
    """What cheap sources beside the one that claims a token say: nothing, that it is the likeliest, may be, is not."""

    NONE = 0
    AGREES = 1
    NAMES = 2
    DIFFERS = 3


class ClaimWorth:
    """Of sources 0 to `sources` - 1, of which number `model` is a model. Not thread-safe."""

    def __init__(self, sources: int, model: int | None) -> None:
        self._model = model
        self._cheap = tuple(number for number in range(sources) if number != model)
        self._reputations = [Reputation() for _ in range(sources)]
        #: By source and company, and of what the model has contradicted by source.
        self._calibrations = [
            tuple(Calibration(strength=_MODEL_STRENGTH) if number == model else Calibration() for _ in _Company)
            for number in range(sources)
        ]
        self._vetoed = [Calibration() for _ in range(sources)]
        self._filled = _FILLED
        self._gains = [_GAIN] * sources
        self._silent_for = [0] * sources
        self._trusted = frozenset(range(sources))

    def copy(self) -> ClaimWorth:
        """Where a new kind of text begins: as far as is known, it is like the one before."""
        new = ClaimWorth(len(self._reputations), self._model)
        new._reputations = [known.copy() for known in self._reputations]
        new._calibrations = [tuple(known.copy() for known in ofs) for ofs in self._calibrations]
        new._vetoed = [known.copy() for known in self._vetoed]
        new._filled = self._filled
        new._gains = self._gains.copy()
        new._trusted = self._trusted
        return new

    # -- outcomes ------------------------------------------------------------------------------------------------

    def learn(self, node: ClaimNode, token: int) -> None:
        """`token` was right below `node`: every claim there has an outcome."""
        if not node.claims:
            return
        said = self._said(node)
        self._learn_gains(node, said, token)
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
            self._filled = max(_LEAST_FILLED, self._filled + _FOLLOW * ((token in said) - self._filled))

    def _learn_gains(self, node: ClaimNode, said: Claims | None, token: int) -> None:
        """How much surer of the right token each cheap source has been than the model, which it stands beside."""
        if self._model is None:
            return
        alone = self._filled if said is None else said.get(token, _UNSAID)[1]
        for number in self._cheap:
            claims = node.claims.get(number)
            if claims is None:
                continue
            gain = 0.0
            if token in claims:
                chance = self._chance(node, number, token, said)
                gain = max(0.0, chance - alone) + (_SPARED if chance >= _SURE else 0.0)
            self._gains[number] += _FOLLOW_GAIN * (gain - self._gains[number])

    # -- who is asked --------------------------------------------------------------------------------------------

    def due(self) -> frozenset[int]:
        """The cheap sources that a session asks until its next commit. Whose claims count is settled anew, too."""
        self._trusted = frozenset(n for n, known in enumerate(self._reputations) if not known.hopeless)
        asked: list[int] = []
        for number in self._cheap:
            self._silent_for[number] += 1
            helps = number in self._trusted and (self._model is None or self._gains[number] >= _LEAST_GAIN)
            if helps or self._silent_for[number] >= _PROBE:
                self._silent_for[number] = 0
                asked.append(number)
        return frozenset(asked)

    def trusts(self, number: int) -> bool:
        """Whether a source's claims count."""
        return number in self._trusted

    def model_gain(self, node: ClaimNode) -> float:
        """What the model, not asked yet, should add to the chance that some guess below `node` is right.

        What the others claim counts as far as it is proven.
        """
        if not node.claims:
            return self._filled
        proven: dict[int, float] = {}
        for number in node.claims:
            if number in self._trusted:
                for token, rank, survival, known in self._weighed(node, number):
                    proven[token] = max(proven.get(token, 0.0), known.proven(rank, survival))
        return (1.0 - min(sum(proven.values()), _SUREST)) * self._filled

    # -- what is claimed -----------------------------------------------------------------------------------------

    def children(self, node: ClaimNode) -> Children:
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
                for token, claim in claims.items():
                    if token not in said:
                        chances.setdefault(token, []).append(self._vetoed_chance(number, claim))
        ranked = [(token, sum(found) / len(found)) for token, found in chances.items()]
        ranked.sort(key=likeliest_lowest)
        if not ranked:
            return ranked
        # The surest keeps what it has; the others share what it leaves.
        first = min(ranked[0][1], _SUREST) if said is None else ranked[0][1]
        left, claimed = (_SUREST if said is None else 1.0) - first, sum([chance for _, chance in ranked[1:]])
        share = min(1.0, left / claimed) if claimed > 0 else 0.0
        return [(ranked[0][0], first), *((token, chance * share) for token, chance in ranked[1:] if share > 0)]

    def _chance(self, node: ClaimNode, number: int, token: int, said: Claims | None) -> float:
        """What a cheap source's claim of a token is worth, in the company it has."""
        if said is not None and token not in said:
            return self._vetoed_chance(number, node.claims[number][token])
        for claimed, rank, survival, known in self._weighed(node, number):
            if claimed == token:
                return known.survival(rank, survival)
        raise KeyError(token)

    def _vetoed_chance(self, number: int, claim: tuple[int, float]) -> float:
        rank, survival = claim
        return self._vetoed[number].survival(rank, _VETOED * survival)

    def _said(self, node: ClaimNode) -> Claims | None:
        """What the model claims below a node, if it has been asked and can be trusted: else it vetoes nothing."""
        model = self._model
        return node.claims.get(model) if model is not None and model in self._trusted else None

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
