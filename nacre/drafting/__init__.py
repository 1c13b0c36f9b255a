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
    HiddenStates,
    Observation,
    Proposer,
    ProposerTraits,
)
from nacre.errors import InvalidArgument

#: name -> module:class
METHODS = {
    "aded": "nacre.drafting.aded:AdedProposer",
    "aded-growth": "nacre.drafting.aded:AdedGrowthProposer",
    "dense": "nacre.drafting.dense:DenseProposer",
    "lookahead": "nacre.drafting.lookahead:LookaheadProposer",
    "lookup": "nacre.drafting.lookup:LookupProposer",
    "model": "nacre.drafting.model:ModelProposer",
    "nest": "nacre.drafting.dense:NestProposer",
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


def method_names(text: str) -> tuple[str, ...]:
    """The methods of a setting: one name, or several with plus signs, whose guesses are fused into one tree.

    Raises InvalidArgument for an unknown name, for one given twice, and for more models than one.
    """
    names = tuple(name.strip() for name in text.split("+"))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidArgument(f"method {text!r} names {twice[0]} twice; name every source once", param="method")
    models = [name for name in names if needs_model(name)]
    if len(models) > 1:
        raise InvalidArgument(f"method {text!r} names {len(models)} models; a drafter has one", param="method")
    return names


def needs_model(text: str) -> bool:
    """Whether one of the methods of a setting drafts with a model. Raises InvalidArgument for an unknown name."""
    return any(getattr(proposer_class(name.strip()), "needs_model", False) for name in text.split("+"))


__all__ = [
    "KNOWN_METHODS",
    "METHODS",
    "TIP",
    "DraftContext",
    "Expansion",
    "Guess",
    "GuessFeatures",
    "HiddenStates",
    "Observation",
    "Proposer",
    "ProposerTraits",
    "method_names",
    "needs_model",
    "proposer_class",
]
