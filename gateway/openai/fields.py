"""The request fields this gateway knows, and what becomes of all others.

Rule: a field that would change the answer is honoured or refused by name, never dropped in silence. Unknown fields are
ignored with a debug log, as clients send all sorts. Null means absent. Types are taken strictly: "5" is no number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nacre.errors import InvalidArgument, NacreError

log = logging.getLogger("nacre.gateway")


class _Fields(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class StreamOptions(_Fields):
    include_usage: bool = False


class Speculation(_Fields):
    mode: str = ""
    drafters: int | None = None


class GenerationFields(_Fields):
    """What both endpoints share; the second half are extensions, named as vLLM names them where it has them."""

    model: str = ""
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] = Field(default_factory=dict)
    seed: int | None = None
    stop: Any = None
    prediction: Any = None

    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    allowed_token_ids: list[int] | None = None
    banned_token_ids: list[int] = Field(default_factory=list)
    stop_token_ids: list[int] = Field(default_factory=list)
    ignore_eos: bool = False
    return_token_ids: bool = False
    speculation: Speculation = Field(default_factory=Speculation)


class CompletionFields(GenerationFields):
    prompt: Any
    logprobs: int | None = None
    echo: bool = False
    add_special_tokens: bool = True


class ChatFields(GenerationFields):
    messages: Any
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


def _always(value: Any) -> bool:
    return True


def _truthy(value: Any) -> bool:
    return bool(value)


def _no_plain_text(value: Any) -> bool:
    return not isinstance(value, Mapping) or value.get("type", "text") != "text"


#: Known fields that would change the answer and are not supported, with the values that ask for something.
_REFUSED: dict[str, Callable[[Any], bool]] = {
    "suffix": _truthy,
    "tools": _truthy,
    "functions": _truthy,
    "function_call": lambda value: value != "none",
    "tool_choice": lambda value: value not in ("none", "auto"),
    "response_format": _no_plain_text,
    "audio": _always,
    "modalities": lambda value: value != ["text"],
    "web_search_options": _always,
    "use_beam_search": _truthy,
    "length_penalty": lambda value: value != 1,
    "min_tokens": _truthy,
    "bad_words": _truthy,
    "prompt_logprobs": _always,
    "include_stop_str_in_output": _truthy,
    "guided_json": _always,
    "guided_regex": _always,
    "guided_choice": _always,
    "guided_grammar": _always,
    "structured_outputs": _always,
    "logits_processors": _truthy,
}
#: Known fields that change nothing in the text.
_HARMLESS = frozenset({"user", "metadata", "store", "service_tier", "best_of", "parallel_tool_calls", *_REFUSED})

_Kind = TypeVar("_Kind", bound=GenerationFields)


def parse(body: bytes, kind: type[_Kind]) -> _Kind:
    """The request behind a body. Raises InvalidArgument naming the field."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["nested too deeply"])[0]
        raise InvalidArgument(f"the request body is no JSON ({reason}); send one JSON object") from None
    if not isinstance(data, dict):
        raise InvalidArgument(f"the request body is a JSON {_json_kind(data)}; send one JSON object")
    try:
        fields = kind.model_validate(data)
    except ValidationError as error:
        raise _refusal(error) from None
    extra = fields.model_extra or {}
    for name, asks in _REFUSED.items():
        if name in extra and asks(extra[name]):
            raise InvalidArgument(f"{name} is not supported here; leave it out", param=name)
    best_of = extra.get("best_of")
    if best_of is not None and best_of != fields.n:
        raise InvalidArgument(
            f"best_of is {shown(best_of)}; only best_of equal to n ({fields.n}) is supported", param="best_of"
        )
    unknown = sorted(name[:40] for name in extra.keys() - _HARMLESS)
    if unknown:
        log.debug("ignored unknown request fields: %s", ", ".join(unknown[:20]))
    return fields


def _refusal(error: ValidationError) -> NacreError:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the request"
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "missing":
        return InvalidArgument(f"{where} is missing; send it", param=param)
    told = first["msg"][:1].lower() + first["msg"][1:]
    return InvalidArgument(f"{where} is {shown(first['input'])}; {told}", param=param)


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "array" if isinstance(value, list) else "string" if isinstance(value, str) else "number"
