"""Builds the proposer that a drafter's settings ask for. Loads torch only for methods that need a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nacre.drafting import Proposer, proposer_class
from nacre.drafting.per_tenant import PerTenant
from nacre.drafting.rest_datastore import RestDatastore
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models import located
from nacre.runtime.settings import DrafterSettings
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
    kind = proposer_class(settings.method)
    if getattr(kind, "needs_datastore", False):
        return _with_datastore(kind, settings)
    if not getattr(kind, "needs_model", False):
        # What can remember beyond a session does.
        return BuiltProposer(_by_tenant(getattr(kind, "remembering", kind)), messages.handshake())
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


def _with_datastore(kind: Any, settings: DrafterSettings) -> BuiltProposer:
    """Token ids of the datastore must be the target's: the handshake compares tokenizers, as it does for models."""
    if not settings.datastore:
        raise InvalidArgument(
            f"method {settings.method} needs a datastore: build one with `nacre store build CORPUS --out FILE` and set "
            "datastore to it",
            param="datastore",
        )
    datastore = RestDatastore(Path(settings.datastore).expanduser())
    fits = messages.handshake(tokenizer_fingerprint=datastore.fingerprint)
    return BuiltProposer(_by_tenant(partial(kind, datastore)), fits)


def _by_tenant(make: Callable[[], Proposer]) -> Proposer:
    """As a proposer: it is one but for `taught`, which is given the tenant too (`by_tenant` says so)."""
    return cast(Proposer, PerTenant(make))
