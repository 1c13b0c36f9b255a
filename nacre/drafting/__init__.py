"""Where guesses come from: one module per method, found by name through one table.

A method's module is imported when it is used, so that the table may grow to any length and a drafter without a model
never loads torch. Third parties add methods through the entry-point group `nacre.drafting`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from nacre.drafting.proposer import (
    TIP,
    DraftContext,
    Expansion,
    Guess,
    GuessFeatures,
    Observation,
    Proposer,
    ProposerTraits,
)
from nacre.errors import InvalidArgument

#: name -> module:class
METHODS = {
    "aded": "nacre.drafting.aded:AdedProposer",
    "aded-growth": "nacre.drafting.aded:AdedGrowthProposer",
    "lookahead": "nacre.drafting.lookahead:LookaheadProposer",
    "lookup": "nacre.drafting.lookup:LookupProposer",
    "model": "nacre.drafting.model:ModelProposer",
    "ouroboros": "nacre.drafting.ouroboros:OuroborosProposer",
    "plateau": "nacre.drafting.plateau:PlateauProposer",
    "prediction": "nacre.drafting.prediction:PredictionProposer",
    "random": "nacre.drafting.hopeless:RandomProposer",
    "recycling": "nacre.drafting.recycling:RecyclingProposer",
    "recycling-growth": "nacre.drafting.recycling:RecyclingGrowthProposer",
    "rest": "nacre.drafting.rest:RestProposer",
    "silent": "nacre.drafting.hopeless:SilentProposer",
    "stand": "nacre.drafting.stand:StandProposer",
    "suffix": "nacre.drafting.suffix:SuffixProposer",
    "tr-jacobi": "nacre.drafting.tr_jacobi:TrJacobiProposer",
}
KNOWN_METHODS = frozenset(METHODS)


def proposer_class(name: str) -> Any:
    """The class of a drafting method. Raises InvalidArgument naming the known ones."""
    target = METHODS.get(name)
    if target is None:
        for entry in entry_points(group="nacre.drafting"):
            if entry.name == name:
                return entry.load()
        raise InvalidArgument(f"drafting method {name!r} is unknown; choose one of {', '.join(sorted(METHODS))}")
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


__all__ = [
    "KNOWN_METHODS",
    "METHODS",
    "TIP",
    "DraftContext",
    "Expansion",
    "Guess",
    "GuessFeatures",
    "Observation",
    "Proposer",
    "ProposerTraits",
    "proposer_class",
]
