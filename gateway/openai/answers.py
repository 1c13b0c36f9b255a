"""The shapes of OpenAI's answers, as plain dictionaries: whole ones and streamed chunks, for both endpoints.

Rule: nothing here decides anything; the same pieces give the same text, tokens and log-probabilities streamed or whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.openai.generation import Figures, Piece
from gateway.openai.job import Job
from nacre.text import TokenEntry, Vocabulary

#: What stands for the logarithm of zero, which JSON cannot spell.
LOWEST_LOGPROB = -9999.0


def model_card(name: str, created: int, max_positions: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "nacre",
        "root": name,
        "max_model_len": max_positions,
    }


def envelope(job: Job, *, chunk: bool) -> dict[str, Any]:
    """What all answers of a job have in common."""
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if job.chat else "text_completion"
    return {
        "id": job.id,
        "object": kind,
        "created": job.created,
        "model": job.served.name,
        "system_fingerprint": job.served.fingerprint,
    }


def role_choice(index: int) -> dict[str, Any]:
    """The first chunk of a chat choice."""
    return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}


def chunk_choice(job: Job, piece: Piece) -> dict[str, Any]:
    """One streamed choice; the last piece of a choice carries the reason and no text."""
    logprobs = logprobs_of(job, piece.entries) if piece.entries and job.top_logprobs >= 0 else None
    choice: dict[str, Any] = {"index": piece.index}
    if job.chat:
        choice["delta"] = {"content": piece.text} if piece.finish_reason is None else {}
    else:
        choice["text"] = piece.text
    choice |= {"logprobs": logprobs, "finish_reason": piece.finish_reason}
    if job.return_token_ids:
        choice["token_ids"] = list(piece.token_ids)
    return choice


def whole_choice(job: Job, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
    """One choice of an answer that is not streamed."""
    text = "".join(piece.text for piece in pieces)
    entries = [entry for piece in pieces for entry in piece.entries]
    choice: dict[str, Any] = {"index": index}
    if job.chat:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = echoed(job, index) + text
    choice |= {
        "logprobs": logprobs_of(job, entries) if job.top_logprobs >= 0 else None,
        "finish_reason": pieces[-1].finish_reason,
    }
    if job.return_token_ids:
        choice["token_ids"] = [token for piece in pieces for token in piece.token_ids]
    return choice


def echoed(job: Job, index: int) -> str:
    return job.prompts[index // job.n].text if job.echo else ""


def usage(job: Job, figures: Figures) -> dict[str, Any]:
    prompt_tokens = sum(len(prompt.ids) for prompt in job.prompts)
    told: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": prompt_tokens + figures.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min(figures.cached_tokens, prompt_tokens)},
    }
    if job.request.prediction:
        told["completion_tokens_details"] = {
            "accepted_prediction_tokens": figures.accepted_prediction_tokens,
            "rejected_prediction_tokens": figures.rejected_prediction_tokens,
        }
    return told


def metrics(figures: Figures) -> dict[str, Any]:
    """How the guessing went: names as vLLM has them, and what only a distributed system can tell."""
    of = figures.statistics
    return {
        "speculative_decoding": {
            "mean_acceptance_length": of.tokens / of.passes if of.passes else None,
            "draft_acceptance_rate": of.accepted_guesses / of.verified_guesses if of.verified_guesses else None,
            "num_spec_steps": of.passes,
            "num_accepted_draft_tokens": of.accepted_guesses,
            "num_draft_tokens": of.verified_guesses,
        },
        "distributed": {
            "received_draft_tokens": of.received_guesses,
            "bytes_up": of.draft_bytes,
            "rows": of.rows,
            "verify_ms": of.verify_ms,
            "prefill_ms": of.prefill_ms,
            "failovers": figures.failovers,
            "seed": figures.seed,
        },
    }


def logprobs_of(job: Job, entries: Iterable[TokenEntry]) -> dict[str, Any]:
    return _chat_logprobs(job, entries) if job.chat else _completion_logprobs(job, entries)


def _completion_logprobs(job: Job, entries: Iterable[TokenEntry]) -> dict[str, Any]:
    vocabulary = job.served.vocabulary
    tokens: list[str] = []
    chosen: list[float] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for entry in entries:
        text = vocabulary.token_text(entry.token)
        tokens.append(text)
        chosen.append(_finite(entry.logprob))
        top: dict[str, float] = {}
        for token, logprob in entry.top:
            top.setdefault(vocabulary.token_text(token), _finite(logprob))
        top.setdefault(text, _finite(entry.logprob))
        tops.append(top if job.top_logprobs > 0 else None)
        offsets.append(entry.start)
    return {"tokens": tokens, "token_logprobs": chosen, "top_logprobs": tops, "text_offset": offsets}


def _chat_logprobs(job: Job, entries: Iterable[TokenEntry]) -> dict[str, Any]:
    vocabulary = job.served.vocabulary
    content = [
        {
            **_chat_token(vocabulary, entry.token, entry.logprob),
            "top_logprobs": [_chat_token(vocabulary, token, logprob) for token, logprob in entry.top],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _chat_token(vocabulary: Vocabulary, token: int, logprob: float | None) -> dict[str, Any]:
    return {
        "token": vocabulary.token_text(token),
        "logprob": _finite(logprob),
        "bytes": list(vocabulary.token_bytes(token)),
    }


def _finite(logprob: float | None) -> float:
    return LOWEST_LOGPROB if logprob is None else max(logprob, LOWEST_LOGPROB)
