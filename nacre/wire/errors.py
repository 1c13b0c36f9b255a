"""Errors <-> gRPC status codes, both ways, and nothing about a bug's insides ever reaches a peer."""

from __future__ import annotations

import grpc

from nacre import errors

_BY_STATUS: dict[str, type[errors.NacreError]] = {
    kind.grpc_status: kind
    for kind in (
        errors.InvalidArgument,
        errors.Unauthenticated,
        errors.NotFound,
        errors.FailedPrecondition,
        errors.ResourceExhausted,
        errors.Cancelled,
        errors.Internal,
        errors.Unimplemented,
        errors.Unavailable,
        errors.DeadlineExceeded,
    )
}
# Codes that gRPC itself produces and that mean one of ours.
_ALIASES = {
    "UNKNOWN": "INTERNAL",
    "OUT_OF_RANGE": "INVALID_ARGUMENT",
    "PERMISSION_DENIED": "UNAUTHENTICATED",
    "ABORTED": "UNAVAILABLE",
    "DATA_LOSS": "INTERNAL",
    "ALREADY_EXISTS": "FAILED_PRECONDITION",
}
# How gRPC's core words a broken connection; a service's own UNAVAILABLE explains itself.
_TRANSPORT_WORDS = (
    "failed to connect",
    "onnection",
    "ocket",
    "ping timeout",
    "GOAWAY",
    "tream removed",
    "Cancelling all calls",
    "ecvmsg",
    "DNS resolution",
    "Too many pings",
)
# What grpc.aio may make of a write that meets the end of its stream, in place of the status that the peer gave
# (github.com/grpc/grpc/issues/36066). The stream is over and nothing more is known: whoever tries again learns why.
_WRITE_MET_END = "Internal error from Core"


class StreamEnded(errors.Unavailable):
    """A stream ended while it was written to, and why is not known; the peer may be as well as ever."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Status code and one-line message for a peer; an unexpected exception becomes INTERNAL without its text."""
    if isinstance(error, errors.NacreError):
        return grpc.StatusCode[error.grpc_status], error.message
    return grpc.StatusCode.INTERNAL, "internal error; see the server's log"


def error_of(failure: grpc.RpcError, peer: str) -> errors.NacreError:
    """The typed error behind a failed call to `peer`."""
    code: grpc.StatusCode = failure.code() or grpc.StatusCode.UNKNOWN
    name = _ALIASES.get(code.name, code.name)
    details = " ".join((failure.details() or "").split())
    if name == "INTERNAL" and details == _WRITE_MET_END:
        return StreamEnded(f"{peer} ended the stream while it was written to")
    kind = _BY_STATUS.get(name, errors.Internal)
    if kind is errors.Unavailable and (not details or any(word in details for word in _TRANSPORT_WORDS)):
        return errors.Unavailable(f"{peer} is unreachable or going away ({details or code.name}); is it running?")
    return kind(details or f"{peer} answered {code.name} without a message")
