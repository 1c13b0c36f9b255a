from nacre.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("verifier_address", "ticket")
    VERIFIER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    verifier_address: str
    ticket: str
    def __init__(self, verifier_address: _Optional[str] = ..., ticket: _Optional[str] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("session_id", "ordinal")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ordinal: int
    def __init__(self, session_id: _Optional[str] = ..., ordinal: _Optional[int] = ...) -> None: ...

class GetDrafterRequest(_message.Message):
    __slots__ = ("latest_steps",)
    LATEST_STEPS_FIELD_NUMBER: _ClassVar[int]
    latest_steps: int
    def __init__(self, latest_steps: _Optional[int] = ...) -> None: ...

class DraftStep(_message.Message):
    __slots__ = ("ago_ms", "took_ms", "guesses")
    AGO_MS_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    GUESSES_FIELD_NUMBER: _ClassVar[int]
    ago_ms: float
    took_ms: float
    guesses: int
    def __init__(self, ago_ms: _Optional[float] = ..., took_ms: _Optional[float] = ..., guesses: _Optional[int] = ...) -> None: ...

class GetDrafterResponse(_message.Message):
    __slots__ = ("handshake", "method", "sessions", "max_sessions", "steps", "busy_ms", "draft", "propose_ms", "latest_steps")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BUSY_MS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    PROPOSE_MS_FIELD_NUMBER: _ClassVar[int]
    LATEST_STEPS_FIELD_NUMBER: _ClassVar[int]
    handshake: _session_pb2.Handshake
    method: str
    sessions: int
    max_sessions: int
    steps: int
    busy_ms: float
    draft: str
    propose_ms: float
    latest_steps: _containers.RepeatedCompositeFieldContainer[DraftStep]
    def __init__(self, handshake: _Optional[_Union[_session_pb2.Handshake, _Mapping]] = ..., method: _Optional[str] = ..., sessions: _Optional[int] = ..., max_sessions: _Optional[int] = ..., steps: _Optional[int] = ..., busy_ms: _Optional[float] = ..., draft: _Optional[str] = ..., propose_ms: _Optional[float] = ..., latest_steps: _Optional[_Iterable[_Union[DraftStep, _Mapping]]] = ...) -> None: ...
