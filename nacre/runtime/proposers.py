"""Builds the proposer that a drafter's settings ask for. Loads torch only for methods that need a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    """A proposer and what it fits: a model's or a corpus's guesses are token ids, so its tokenizer, that of `source`,
    must be the target's.
    """

    proposer: Proposer
    handshake: pb.Handshake = field(default_factory=messages.handshake)
    source: str = ""

    def check_tokenizer(self, served: str) -> None:
        """Raises FailedPrecondition unless its token ids are those of a target with that tokenizer's fingerprint.

        As in a handshake, what one side does not know is not compared.
        """
        own = self.handshake.tokenizer_fingerprint
        if own and served and own != served:
            raise FailedPrecondition(
                f"{self.source} has tokenizer {own}, the target has {served}: name a draft model of the target's "
                "family, build the datastore for that target, or choose a method that needs neither, such as lookup"
            )


def build_proposer(settings: DrafterSettings, *, features: bool = False) -> BuiltProposer:
    """Raises NacreError naming what is missing. Blocking: loads weights. `features`: guesses tell what was known."""

    def build(name: str, kind: Any, sources: int) -> BuiltProposer:
        if hasattr(kind, "encoded"):
            raise InvalidArgument(
                f"method {name} needs the target's hidden states, which only a verifier has: "
                f"start one with --local {name}",
                param="method",
            )
        if needs_model(name):
            return _with_model(kind, settings, features)
        return _without_model(kind, sources, settings.datastore)

    return _fused(settings.method, build)


def build_local_proposer(settings: VerifierSettings) -> BuiltProposer:
    """What guesses inside a verifier, as `local` says. Raises NacreError for what cannot do so."""

    def build(name: str, kind: Any, sources: int) -> BuiltProposer:
        if needs_model(name):
            raise InvalidArgument(
                f"local is {settings.local!r}; {name} needs a model, which would hold up every pass: "
                "run a drafter for it",
                param="local",
            )
        return _without_model(kind, sources, settings.datastore)

    return _fused(settings.local, build)


def _fused(method: str, build: Callable[[str, Any, int], BuiltProposer]) -> BuiltProposer:
    """All methods of a setting in one. Raises InvalidArgument where two are of different tokenizers."""
    names = method_names(method)
    built = [build(name, proposer_class(name), len(names)) for name in names]
    proposers = [one.proposer for one in built]
    bound = {tokenizer: one for one in built if (tokenizer := one.handshake.tokenizer_fingerprint)}
    if len(bound) > 1:
        raise InvalidArgument(
            f"method {method!r}: the draft model's tokenizer is not the datastore's; build the datastore again",
            param="datastore",
        )
    fits = next(iter(bound.values()), built[0])
    return replace(fits, proposer=proposers[0] if len(proposers) == 1 else FusionProposer(proposers))


def _without_model(kind: Any, sources: int, datastore: str) -> BuiltProposer:
    """One of so many sources; together they remember what one alone may."""
    if getattr(kind, "needs_datastore", False):
        return _with_datastore(kind, datastore)
    make = getattr(kind, "remembering", kind)  # what can remember beyond a session does
    room = getattr(kind, "most_bytes", MOST_BYTES // sources)
    return BuiltProposer(PerTenant(make, most_bytes=room))


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
    fits = messages.handshake(tokenizer_fingerprint=loaded.tokenizer_fingerprint)
    return BuiltProposer(proposer, fits, f"draft model {settings.draft}")


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
    return BuiltProposer(PerTenant(partial(kind, datastore)), fits, f"datastore {path}")
