"""Every error a user or a peer can meet, as one tree.

    NacreError
    ├── InvalidArgument        the caller sent a value that can never be right           400  INVALID_ARGUMENT
    ├── Unauthenticated        no or wrong credentials, an unknown or expired ticket     401  UNAUTHENTICATED
    ├── NotFound               unknown model, session or file                            404  NOT_FOUND
    ├── FailedPrecondition     both sides are fine but do not fit (versions, tokenizer)  409  FAILED_PRECONDITION
    ├── ResourceExhausted      a bound was reached; the caller may come back later       429  RESOURCE_EXHAUSTED
    ├── Cancelled              the caller went away or asked to stop                     499  CANCELLED
    ├── Internal               our own bug; the message says so                          500  INTERNAL
    ├── Unimplemented          known, but this build or this model cannot do it          501  UNIMPLEMENTED
    ├── Unavailable            the peer is gone, draining or not yet up                  503  UNAVAILABLE
    └── DeadlineExceeded       it did not happen in time                                 504  DEADLINE_EXCEEDED

Rule: a message is one line that names the value, the bound and the remedy. Each class knows its gRPC status name, its
HTTP status, the `type` word of an OpenAI error body and whether trying again can help. A test proves the table total.
"""

from __future__ import annotations

from typing import ClassVar


class NacreError(Exception):
    """Base of all errors Nacre raises on purpose.

    `param` names the offending request field, if there is one (it becomes `error.param` over HTTP).
    """

    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    openai_type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidArgument(NacreError):
    grpc_status = "INVALID_ARGUMENT"
    http_status = 400
    openai_type = "invalid_request_error"


class Unauthenticated(NacreError):
    grpc_status = "UNAUTHENTICATED"
    http_status = 401
    openai_type = "authentication_error"


class NotFound(NacreError):
    grpc_status = "NOT_FOUND"
    http_status = 404
    openai_type = "not_found_error"


class FailedPrecondition(NacreError):
    grpc_status = "FAILED_PRECONDITION"
    http_status = 409
    openai_type = "invalid_request_error"


class ResourceExhausted(NacreError):
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429
    openai_type = "rate_limit_error"
    retryable = True


class Cancelled(NacreError):
    grpc_status = "CANCELLED"
    http_status = 499
    openai_type = "request_cancelled"


class Internal(NacreError):
    pass


class Unimplemented(NacreError):
    grpc_status = "UNIMPLEMENTED"
    http_status = 501
    openai_type = "invalid_request_error"


class Unavailable(NacreError):
    grpc_status = "UNAVAILABLE"
    http_status = 503
    openai_type = "service_unavailable_error"
    retryable = True


class DeadlineExceeded(NacreError):
    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504
    openai_type = "timeout_error"
    retryable = True
