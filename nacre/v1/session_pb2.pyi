from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SpeculationMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPECULATION_MODE_UNSPECIFIED: _ClassVar[SpeculationMode]
    SPECULATION_MODE_LATENCY: _ClassVar[SpeculationMode]
    SPECULATION_MODE_THROUGHPUT: _ClassVar[SpeculationMode]
    SPECULATION_MODE_OFF: _ClassVar[SpeculationMode]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
SPECULATION_MODE_UNSPECIFIED: SpeculationMode
SPECULATION_MODE_LATENCY: SpeculationMode
SPECULATION_MODE_THROUGHPUT: SpeculationMode
SPECULATION_MODE_OFF: SpeculationMode
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "allowed_ids", "banned_ids")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_IDS_FIELD_NUMBER: _ClassVar[int]
    BANNED_IDS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: _containers.RepeatedCompositeFieldContainer[LogitBias]
    allowed_ids: _containers.RepeatedScalarFieldContainer[int]
    banned_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., logit_bias: _Optional[_Iterable[_Union[LogitBias, _Mapping]]] = ..., allowed_ids: _Optional[_Iterable[int]] = ..., banned_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class LogitBias(_message.Message):
    __slots__ = ("id", "bias")
    ID_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    id: int
    bias: float
    def __init__(self, id: _Optional[int] = ..., bias: _Optional[float] = ...) -> None: ...

class Handshake(_message.Message):
    __slots__ = ("protocol_version", "noise_version", "model_id", "model_revision", "tokenizer_fingerprint")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    NOISE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_REVISION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    noise_version: int
    model_id: str
    model_revision: str
    tokenizer_fingerprint: str
    def __init__(self, protocol_version: _Optional[int] = ..., noise_version: _Optional[int] = ..., model_id: _Optional[str] = ..., model_revision: _Optional[str] = ..., tokenizer_fingerprint: _Optional[str] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("handshake", "prompt", "resume", "sampling", "seed", "completion_index", "max_tokens", "stop_ids", "ignore_eos", "speculation", "top_logprobs", "drafters", "label", "prediction", "observe", "domain")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_INDEX_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    SPECULATION_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    DRAFTERS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    OBSERVE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    handshake: Handshake
    prompt: _containers.RepeatedScalarFieldContainer[int]
    resume: _containers.RepeatedScalarFieldContainer[int]
    sampling: Sampling
    seed: int
    completion_index: int
    max_tokens: int
    stop_ids: _containers.RepeatedScalarFieldContainer[int]
    ignore_eos: bool
    speculation: SpeculationMode
    top_logprobs: int
    drafters: int
    label: str
    prediction: _containers.RepeatedScalarFieldContainer[int]
    observe: int
    domain: str
    def __init__(self, handshake: _Optional[_Union[Handshake, _Mapping]] = ..., prompt: _Optional[_Iterable[int]] = ..., resume: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., seed: _Optional[int] = ..., completion_index: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop_ids: _Optional[_Iterable[int]] = ..., ignore_eos: _Optional[bool] = ..., speculation: _Optional[_Union[SpeculationMode, str]] = ..., top_logprobs: _Optional[int] = ..., drafters: _Optional[int] = ..., label: _Optional[str] = ..., prediction: _Optional[_Iterable[int]] = ..., observe: _Optional[int] = ..., domain: _Optional[str] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("handshake", "ticket", "position", "method", "observe")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    OBSERVE_FIELD_NUMBER: _ClassVar[int]
    handshake: Handshake
    ticket: str
    position: int
    method: str
    observe: int
    def __init__(self, handshake: _Optional[_Union[Handshake, _Mapping]] = ..., ticket: _Optional[str] = ..., position: _Optional[int] = ..., method: _Optional[str] = ..., observe: _Optional[int] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("first_node", "anchor", "parents", "guesses")
    FIRST_NODE_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    GUESSES_FIELD_NUMBER: _ClassVar[int]
    first_node: int
    anchor: int
    parents: _containers.RepeatedScalarFieldContainer[int]
    guesses: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, first_node: _Optional[int] = ..., anchor: _Optional[int] = ..., parents: _Optional[_Iterable[int]] = ..., guesses: _Optional[_Iterable[int]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("open", "join", "draft", "cancel")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    open: Open
    join: Join
    draft: Draft
    cancel: Cancel
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., draft: _Optional[_Union[Draft, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("handshake", "session_id", "drafter_ticket", "owner_ticket", "tokens", "prompt_length", "sampling", "noise_key", "seed", "end_position", "window_nodes", "row_budget", "system_fingerprint", "tenant_tag", "ordinal", "prediction", "tenant", "vocab_size", "domain")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DRAFTER_TICKET_FIELD_NUMBER: _ClassVar[int]
    OWNER_TICKET_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    NOISE_KEY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    END_POSITION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NODES_FIELD_NUMBER: _ClassVar[int]
    ROW_BUDGET_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENANT_TAG_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    handshake: Handshake
    session_id: str
    drafter_ticket: str
    owner_ticket: str
    tokens: _containers.RepeatedScalarFieldContainer[int]
    prompt_length: int
    sampling: Sampling
    noise_key: int
    seed: int
    end_position: int
    window_nodes: int
    row_budget: int
    system_fingerprint: str
    tenant_tag: int
    ordinal: int
    prediction: _containers.RepeatedScalarFieldContainer[int]
    tenant: str
    vocab_size: int
    domain: str
    def __init__(self, handshake: _Optional[_Union[Handshake, _Mapping]] = ..., session_id: _Optional[str] = ..., drafter_ticket: _Optional[str] = ..., owner_ticket: _Optional[str] = ..., tokens: _Optional[_Iterable[int]] = ..., prompt_length: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., noise_key: _Optional[int] = ..., seed: _Optional[int] = ..., end_position: _Optional[int] = ..., window_nodes: _Optional[int] = ..., row_budget: _Optional[int] = ..., system_fingerprint: _Optional[str] = ..., tenant_tag: _Optional[int] = ..., ordinal: _Optional[int] = ..., prediction: _Optional[_Iterable[int]] = ..., tenant: _Optional[str] = ..., vocab_size: _Optional[int] = ..., domain: _Optional[str] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("id", "logprob")
    ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    id: int
    logprob: float
    def __init__(self, id: _Optional[int] = ..., logprob: _Optional[float] = ...) -> None: ...

class PositionLogprobs(_message.Message):
    __slots__ = ("logprob", "top")
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("position", "tokens", "guessed_by", "logprobs", "rows", "window_nodes", "row_budget", "verify_ms", "queue_ms", "observed")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    GUESSED_BY_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NODES_FIELD_NUMBER: _ClassVar[int]
    ROW_BUDGET_FIELD_NUMBER: _ClassVar[int]
    VERIFY_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    position: int
    tokens: _containers.RepeatedScalarFieldContainer[int]
    guessed_by: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[PositionLogprobs]
    rows: int
    window_nodes: int
    row_budget: int
    verify_ms: float
    queue_ms: float
    observed: _containers.RepeatedCompositeFieldContainer[Observed]
    def __init__(self, position: _Optional[int] = ..., tokens: _Optional[_Iterable[int]] = ..., guessed_by: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[PositionLogprobs, _Mapping]]] = ..., rows: _Optional[int] = ..., window_nodes: _Optional[int] = ..., row_budget: _Optional[int] = ..., verify_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., observed: _Optional[_Iterable[_Union[Observed, _Mapping]]] = ...) -> None: ...

class Observed(_message.Message):
    __slots__ = ("position", "rows")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    position: int
    rows: _containers.RepeatedCompositeFieldContainer[ObservedRow]
    def __init__(self, position: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[ObservedRow, _Mapping]]] = ...) -> None: ...

class ObservedRow(_message.Message):
    __slots__ = ("parent", "token", "best")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    parent: int
    token: int
    best: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, parent: _Optional[int] = ..., token: _Optional[int] = ..., best: _Optional[_Iterable[int]] = ...) -> None: ...

class Reanchor(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason", "statistics")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    reason: FinishReason
    statistics: SessionStatistics
    def __init__(self, reason: _Optional[_Union[FinishReason, str]] = ..., statistics: _Optional[_Union[SessionStatistics, _Mapping]] = ...) -> None: ...

class SessionStatistics(_message.Message):
    __slots__ = ("tokens", "passes", "rows", "verified_guesses", "accepted_guesses", "received_guesses", "draft_bytes", "verify_ms", "prefill_ms", "cached_tokens")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_GUESSES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_GUESSES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_GUESSES_FIELD_NUMBER: _ClassVar[int]
    DRAFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERIFY_MS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_MS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    passes: int
    rows: int
    verified_guesses: int
    accepted_guesses: int
    received_guesses: int
    draft_bytes: int
    verify_ms: float
    prefill_ms: float
    cached_tokens: int
    def __init__(self, tokens: _Optional[int] = ..., passes: _Optional[int] = ..., rows: _Optional[int] = ..., verified_guesses: _Optional[int] = ..., accepted_guesses: _Optional[int] = ..., received_guesses: _Optional[int] = ..., draft_bytes: _Optional[int] = ..., verify_ms: _Optional[float] = ..., prefill_ms: _Optional[float] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("opened", "commit", "reanchor", "finished")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    REANCHOR_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    commit: Commit
    reanchor: Reanchor
    finished: Finished
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., reanchor: _Optional[_Union[Reanchor, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...
