"""Builds the proposer that a drafter's settings ask for. Loads torch only for methods that need a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nacre.drafting import Proposer, proposer_class
from nacre.drafting.per_tenant import PerTenant
from nacre.errors import FailedPrecondition
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
    if not getattr(kind, "needs_model", False):
        # What can remember beyond a session does.
        return BuiltProposer(PerTenant(getattr(kind, "remembering", kind)), messages.handshake())
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
