"""The two ends of a session as pure state machines: events in, effects out; no I/O, clock, thread, torch or gRPC."""

from nacre.session.drafter import DrafterLimits, DrafterSession, Rollback
from nacre.session.messages import (
    Commit,
    Draft,
    FinishReason,
    Reanchor,
    SpeculationMode,
    confidence_byte,
    survival_of,
)
from nacre.session.stream import Received
from nacre.session.verifier import (
    Resolution,
    SessionLimits,
    VerifierSession,
    VerifyPlan,
    check_prediction,
    open_session,
)

__all__ = [
    "Commit",
    "Draft",
    "DrafterLimits",
    "DrafterSession",
    "FinishReason",
    "Reanchor",
    "Received",
    "Resolution",
    "Rollback",
    "SessionLimits",
    "SpeculationMode",
    "VerifierSession",
    "VerifyPlan",
    "check_prediction",
    "confidence_byte",
    "open_session",
    "survival_of",
]
