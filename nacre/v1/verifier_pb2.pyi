from nacre.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("handshake", "vocab_size", "max_positions", "eos_ids", "dtype", "numerics", "system_fingerprint", "tree_refusal", "sessions", "max_sessions", "chat_template", "pass_times")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    EOS_IDS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TREE_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    PASS_TIMES_FIELD_NUMBER: _ClassVar[int]
    handshake: _session_pb2.Handshake
    vocab_size: int
    max_positions: int
    eos_ids: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    numerics: str
    system_fingerprint: str
    tree_refusal: str
    sessions: int
    max_sessions: int
    chat_template: str
    pass_times: _containers.RepeatedCompositeFieldContainer[PassTime]
    def __init__(self, handshake: _Optional[_Union[_session_pb2.Handshake, _Mapping]] = ..., vocab_size: _Optional[int] = ..., max_positions: _Optional[int] = ..., eos_ids: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., numerics: _Optional[str] = ..., system_fingerprint: _Optional[str] = ..., tree_refusal: _Optional[str] = ..., sessions: _Optional[int] = ..., max_sessions: _Optional[int] = ..., chat_template: _Optional[str] = ..., pass_times: _Optional[_Iterable[_Union[PassTime, _Mapping]]] = ...) -> None: ...

class PassTime(_message.Message):
    __slots__ = ("rows", "ms")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    ms: float
    def __init__(self, rows: _Optional[int] = ..., ms: _Optional[float] = ...) -> None: ...

class GetTokenizerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTokenizerResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...
