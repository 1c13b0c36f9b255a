"""The error table is total: every error has a gRPC status, an HTTP status and a way back."""

from __future__ import annotations

import grpc
import pytest

from nacre import errors
from nacre.wire.errors import error_of, status_of


class Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode | None, details: str | None) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str | None:
        return self._details


def kinds() -> list[type[errors.NacreError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NacreError)]
    return [kind for kind in found if kind is not errors.NacreError]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_crosses_the_wire_as_itself(kind: type[errors.NacreError]) -> None:
    code, message = status_of(kind("temperature is -1; it must be at least 0"))
    assert code is grpc.StatusCode[kind.grpc_status]
    back = error_of(Failure(code, message), "somewhere:1")
    assert type(back) is kind
    assert back.message == "temperature is -1; it must be at least 0"
    assert 400 <= kind.http_status < 600
    assert kind.openai_type


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_status_has_an_error(code: grpc.StatusCode) -> None:
    if code is not grpc.StatusCode.OK:
        assert isinstance(error_of(Failure(code, "why"), "somewhere:1"), errors.NacreError)


def test_a_bug_does_not_show_its_insides() -> None:
    code, message = status_of(KeyError("secret"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message


def test_a_broken_connection_names_the_peer() -> None:
    error = error_of(Failure(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"), "host:81")
    assert isinstance(error, errors.Unavailable)
    assert error.message.startswith("host:81 is unreachable")


def test_a_draining_service_speaks_for_itself() -> None:
    error = error_of(Failure(grpc.StatusCode.UNAVAILABLE, "this verifier is draining; go elsewhere"), "host:81")
    assert error.message == "this verifier is draining; go elsewhere"
