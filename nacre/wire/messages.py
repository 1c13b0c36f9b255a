"""Values <-> protobuf messages. The machines know only values; the wire knows only messages.

Reading checks what protobuf cannot express (bounds on sizes, known enum values) and raises InvalidArgument; what
needs the session's state is checked by the session.
"""

from __future__ import annotations

import math

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.sampling import NOISE_VERSION, Choice, SamplingParams
from nacre.session import Commit, Draft, FinishReason, SpeculationMode
from nacre.session.messages import DEFAULT_SURVIVAL, confidence_byte, survival_of
from nacre.session.observed import MOST_BEST, Observed, ObservedRow
from nacre.v1 import session_pb2 as pb

PROTOCOL_VERSION = 1

#: Most nodes in one Draft message, whatever the window.
MAX_DRAFT_NODES = 1024
MAX_LABEL_BYTES = 128
#: What a draft without confidences says of its guesses.
UNKNOWN_CONFIDENCE = confidence_byte(DEFAULT_SURVIVAL)

_MODES: dict[int, SpeculationMode] = {
    pb.SPECULATION_MODE_UNSPECIFIED: SpeculationMode.LATENCY,
    pb.SPECULATION_MODE_LATENCY: SpeculationMode.LATENCY,
    pb.SPECULATION_MODE_THROUGHPUT: SpeculationMode.THROUGHPUT,
    pb.SPECULATION_MODE_OFF: SpeculationMode.OFF,
}
_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}


def check_handshake(theirs: pb.Handshake, ours: pb.Handshake) -> None:
    """Raises FailedPrecondition, saying both values, unless the two ends fit. Empty strings are not compared."""
    if theirs.protocol_version != ours.protocol_version:
        raise FailedPrecondition(
            f"protocol version is {theirs.protocol_version} there and {ours.protocol_version} here: "
            "upgrade the older side"
        )
    if theirs.noise_version and ours.noise_version and theirs.noise_version != ours.noise_version:
        raise FailedPrecondition(
            f"noise version is {theirs.noise_version} there and {ours.noise_version} here: upgrade the older side"
        )
    for field, what in (
        ("model_id", "model"),
        ("model_revision", "model revision"),
        ("tokenizer_fingerprint", "tokenizer fingerprint"),
    ):
        there, here = getattr(theirs, field), getattr(ours, field)
        if there and here and there != here:
            raise FailedPrecondition(f"{what} is {there!r} there and {here!r} here: use the same on both sides")


def handshake(model_id: str = "", model_revision: str = "", tokenizer_fingerprint: str = "") -> pb.Handshake:
    return pb.Handshake(
        protocol_version=PROTOCOL_VERSION,
        noise_version=NOISE_VERSION,
        model_id=model_id,
        model_revision=model_revision,
        tokenizer_fingerprint=tokenizer_fingerprint,
    )


def sampling_to_wire(params: SamplingParams) -> pb.Sampling:
    return pb.Sampling(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=[pb.LogitBias(id=token, bias=bias) for token, bias in params.logit_bias],
        allowed_ids=params.allowed_ids or (),
        banned_ids=params.banned_ids,
    )


def sampling_from_wire(message: pb.Sampling) -> SamplingParams:
    """Unchecked values; `SamplingParams.validate` judges them against the vocabulary."""
    return SamplingParams(
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=tuple(sorted((entry.id, entry.bias) for entry in message.logit_bias)),
        allowed_ids=tuple(message.allowed_ids) or None,
        banned_ids=tuple(message.banned_ids),
    )


def mode_from_wire(value: int) -> SpeculationMode:
    mode = _MODES.get(value)
    if mode is None:
        raise InvalidArgument(f"speculation is {value}; known modes are {sorted(_MODES)}", param="speculation")
    return mode


def mode_to_wire(mode: SpeculationMode) -> pb.SpeculationMode:
    return {
        SpeculationMode.LATENCY: pb.SPECULATION_MODE_LATENCY,
        SpeculationMode.THROUGHPUT: pb.SPECULATION_MODE_THROUGHPUT,
        SpeculationMode.OFF: pb.SPECULATION_MODE_OFF,
    }[mode]


def draft_to_wire(draft: Draft) -> pb.Draft:
    """One field for token and confidence, and no number where the next one is meant: most drafts are a node or two."""
    confidence = draft.confidence or bytes([UNKNOWN_CONFIDENCE]) * len(draft.tokens)
    return pb.Draft(
        first_node=draft.first_node if draft.first_node == 1 else 0,
        anchor=draft.anchor,
        parents=draft.parents,
        guesses=[token << 8 | byte for token, byte in zip(draft.tokens, confidence, strict=True)],
    )


def draft_from_wire(message: pb.Draft) -> Draft:
    guesses = message.guesses
    if len(guesses) > MAX_DRAFT_NODES:
        raise InvalidArgument(
            f"draft.guesses has {len(guesses)} entries; at most {MAX_DRAFT_NODES} fit one message",
            param="guesses",
        )
    return Draft(
        first_node=message.first_node,
        tokens=tuple(guess >> 8 for guess in guesses),
        anchor=message.anchor if message.HasField("anchor") else None,
        parents=tuple(message.parents),
        confidence=bytes(guess & 0xFF for guess in guesses),
    )


def commit_to_wire(commit: Commit, *, with_logprobs: bool = True) -> pb.Commit:
    message = pb.Commit(
        position=commit.position,
        tokens=commit.tokens,
        rows=commit.rows,
        window_nodes=commit.window_nodes,
        row_budget=commit.row_budget,
        verify_ms=commit.verify_ms,
        queue_ms=commit.queue_ms,
    )
    message.observed.extend(map(_observed_to_wire, commit.observed))
    if any(commit.guessed_by):
        message.guessed_by.extend(commit.guessed_by)
    if with_logprobs:
        for choice in commit.choices:
            message.logprobs.append(
                pb.PositionLogprobs(
                    logprob=choice.logprob if choice.logprob is not None else 0.0,
                    top=[pb.TokenLogprob(id=token, logprob=value) for token, value in choice.top],
                )
            )
    return message


def commit_from_wire(message: pb.Commit) -> Commit:
    tokens = tuple(message.tokens)
    return Commit(
        position=message.position,
        tokens=tokens,
        guessed_by=tuple(message.guessed_by) or (0,) * len(tokens),
        choices=tuple(
            Choice(token, entry.logprob, tuple((top.id, top.logprob) for top in entry.top))
            for token, entry in zip(tokens, message.logprobs, strict=False)
        ),
        rows=message.rows,
        window_nodes=message.window_nodes,
        row_budget=message.row_budget,
        verify_ms=message.verify_ms,
        queue_ms=message.queue_ms,
        observed=tuple(map(_observed_from_wire, message.observed)),
    )


def _observed_to_wire(observed: Observed) -> pb.Observed:
    return pb.Observed(
        position=observed.position,
        rows=[
            pb.ObservedRow(
                parent=index - row.parent if index else 0,
                token=row.token,
                best=[token << 8 | confidence_byte(math.exp(logprob)) for token, logprob in row.best],
            )
            for index, row in enumerate(observed.rows)
        ],
    )


def _observed_from_wire(message: pb.Observed) -> Observed:
    return Observed(
        position=message.position,
        rows=tuple(
            ObservedRow(
                parent=index - row.parent if index else -1,
                token=row.token,
                best=tuple((best >> 8, math.log(survival_of(best & 0xFF))) for best in row.best[:MOST_BEST]),
            )
            for index, row in enumerate(message.rows[:MAX_DRAFT_NODES])
        ),
    )


def reason_to_wire(reason: FinishReason) -> pb.FinishReason:
    return _REASONS[reason]


def reason_from_wire(value: int) -> FinishReason:
    for reason, number in _REASONS.items():
        if number == value:
            return reason
    return FinishReason.CANCELLED
