"""Every failure as an OpenAI error body: {"error": {"message", "type", "param", "code"}}, all four always there."""

from __future__ import annotations

import json
import logging
from typing import Any

from nacre.errors import (
    Internal,
    InvalidArgument,
    NacreError,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger("nacre.gateway")

RETRY_AFTER_S = 1
#: Machine-readable words for what clients tell apart; other errors carry null.
_CODES: dict[type[NacreError], str] = {
    Unauthenticated: "invalid_api_key",
    ResourceExhausted: "rate_limit_exceeded",
    Unavailable: "service_unavailable",
}


class ApiError(Exception):
    """A failure with a status of HTTP's own or a code word of its own; everything else is a NacreError."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code


def unknown_model(asked: str, served: str) -> ApiError:
    return ApiError(
        NotFound.http_status,
        f"model {asked[:120]!r} is not served here; this gateway serves {served!r}",
        kind=NotFound.openai_type,
        param="model",
        code="model_not_found",
    )


def too_long(tokens: int, bound: int, param: str) -> ApiError:
    return ApiError(
        InvalidArgument.http_status,
        f"the prompt has {tokens} tokens; this model's context of {bound} leaves room for at most {bound - 1}: "
        "shorten it",
        param=param,
        code="context_length_exceeded",
    )


def described(error: BaseException) -> ApiError:
    """Any exception as what the client is told; an unexpected one is logged here and its text kept to ourselves."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, NacreError):
        log.error("a request failed", exc_info=error)
        error = Internal("internal error; see the gateway's log")
    return ApiError(
        error.http_status, error.message, kind=error.openai_type, param=error.param, code=_CODES.get(type(error))
    )


def body(error: ApiError) -> bytes:
    content: dict[str, Any] = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return json.dumps({"error": content}, ensure_ascii=False).encode("utf-8", "replace")


def headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    """Headers that tell well-behaved clients whether trying again can help."""
    fields = [(b"content-type", b"application/json")]
    if error.status in (429, 503):
        fields.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    elif error.status >= 500 and error.status != 504:
        fields.append((b"x-should-retry", b"false"))
    if error.status == 409:  # clients take it for a passing conflict
        fields.append((b"x-should-retry", b"false"))
    if error.status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    return fields
