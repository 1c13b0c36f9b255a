"""Builds the proposer that a drafter's settings ask for. Loads torch only for methods that need a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.drafting import Proposer, method_names, needs_model, proposer_class
from nacre.drafting.fusion import FusionProposer
from nacre.drafting.per_tenant import MOST_BYTES, PerTenant
from nacre.drafting.rest_datastore import RestDatastore
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models import located
from nacre.runtime.settings import DrafterSettings, VerifierSettings
from nacre.wire import messages

if TYPE_CHECKING:
    from nacre.v1 import session_pb2 as pb


@dataclass(frozen=True, slots=True)
class BuiltProposer:
    """A proposer and what it fits: a model's guesses are token ids, so its tokenizer must be the target's."""

    proposer: Proposer
    handshake: pb.Handshake


def build_proposer(settings: DrafterSettings, *, features: bool = False) -> BuiltProposer:
    """Raises NacreError naming what is missing. Blocking: loads weights. `features`: guesses tell what was known."""
    sources: list[Proposer] = []
    handshake = messages.handshake()
    names = method_names(settings.method)
    for name in names:
        kind = proposer_class(name)
        if needs_model(name):
            built = _with_model(kind, settings, features)
        elif getattr(kind, "needs_datastore", False):
            built = _with_datastore(kind, settings.datastore)
        else:
            built = BuiltProposer(_without_model(kind, len(names)), messages.handshake())
        if built.proposer.traits.encodes:
            raise InvalidArgument(
                f"method {name} needs the target's hidden states, which only a verifier has: "
                f"start one with --local {name}",
                param="method",
            )
        sources.append(built.proposer)
        handshake = _both(handshake, built.handshake, settings.method)
    return BuiltProposer(_fused(sources), handshake)


def build_local_proposer(settings: VerifierSettings) -> BuiltProposer:
    """What guesses inside a verifier, as `local` says. Raises NacreError for what cannot do so."""
    names = method_names(settings.local)
    sources: list[Proposer] = []
    handshake = messages.handshake()
    for name in names:
        kind = proposer_class(name)
        if needs_model(name):
            raise InvalidArgument(
                f"local is {settings.local!r}; {name} needs a model, which would hold up every pass: "
                "run a drafter for it",
                param="local",
            )
        if getattr(kind, "needs_datastore", False):
            built = _with_datastore(kind, settings.datastore)
            sources.append(built.proposer)
            handshake = built.handshake
        else:
            sources.append(_without_model(kind, len(names)))
    return BuiltProposer(_fused(sources), handshake)


def _fused(sources: Sequence[Proposer]) -> Proposer:
    return sources[0] if len(sources) == 1 else FusionProposer(sources)


def _both(one: pb.Handshake, other: pb.Handshake, method: str) -> pb.Handshake:
    """What fits both sources. Raises InvalidArgument where they are of different tokenizers."""
    fingerprints = {one.tokenizer_fingerprint, other.tokenizer_fingerprint} - {""}
    if len(fingerprints) > 1:
        raise InvalidArgument(
            f"method {method!r}: the draft model's tokenizer is not the datastore's; build the datastore again",
            param="datastore",
        )
    return messages.handshake(tokenizer_fingerprint="".join(fingerprints))


def _without_model(kind: Any, sources: int) -> Proposer:
    """One of so many sources; together they remember twice what one may."""
    make = getattr(kind, "remembering", kind)  # what can remember beyond a session does
    return PerTenant(make, most_bytes=2 * MOST_BYTES // max(2, sources))


def _with_model(kind: Any, settings: DrafterSettings, features: bool) -> BuiltProposer:
    from nacre.engine import Engine, RowBlock, load_model

    loaded = load_model(
        located(settings.draft),
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        revision=settings.revision or None,
    )
    engine = Engine(loaded, kv_bytes=settings.kv_mb * 1024 * 1024, exact=False)
    if not engine.info.tree_mode:
        raise FailedPrecondition(f"{settings.draft} cannot draft trees: {engine.info.tree_refusal}")
    temperature = float(getattr(loaded.model.config, "nacre_race_temperature", 0.5))
    options = {"features": True} if features else {}
    proposer = kind(
        engine,
        RowBlock,
        children=settings.children,
        race_temperature=temperature,
        batch=settings.batch_nodes,
        **options,
    )
    return BuiltProposer(proposer, messages.handshake(tokenizer_fingerprint=loaded.tokenizer_fingerprint))


def _with_datastore(kind: Any, path: str) -> BuiltProposer:
    """Token ids of the datastore must be the target's: the handshake compares tokenizers, as it does for models."""
    if not path:
        raise InvalidArgument(
            "method rest needs a datastore: build one with `nacre store build CORPUS --out FILE` and set datastore to "
            "it (--datastore FILE)",
            param="datastore",
        )
    datastore = RestDatastore(Path(path).expanduser())
    fits = messages.handshake(tokenizer_fingerprint=datastore.fingerprint)
    return BuiltProposer(PerTenant(partial(kind, datastore)), fits)
