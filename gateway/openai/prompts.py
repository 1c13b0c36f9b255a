"""The four shapes of `prompt`, chat messages and predictions, as token ids. All refusals name the field."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from gateway.chat import MISSING
from gateway.openai.errors import too_long
from gateway.openai.fields import ChatFields, CompletionFields, shown
from gateway.served import ServedModel
from gateway.settings import GatewaySettings
from nacre.errors import InvalidArgument
from nacre.session import check_prediction

#: Shorter texts are tokenized on the event loop; longer ones would hold up everyone's tokens.
_INLINE_CHARS = 4096
_ROLES = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` is what echo gives back."""

    ids: tuple[int, ...]
    text: str


async def completion_prompts(fields: CompletionFields, served: ServedModel, settings: GatewaySettings) -> list[Prompt]:
    """One prompt per entry. Raises InvalidArgument or ApiError."""
    value = fields.prompt
    if isinstance(value, str) or _all_of(value, int):
        entries = [value]
    elif isinstance(value, list) and (_all_of(value, str) or all(_all_of(entry, int) for entry in value)):
        entries = value
    else:
        raise InvalidArgument(
            f"prompt is {shown(value)}; it must be a string, a list of strings, a list of token ids or a list of "
            "such lists",
            param="prompt",
        )
    if len(entries) > settings.max_prompts:
        raise InvalidArgument(
            f"prompt has {len(entries)} entries; at most {settings.max_prompts} are taken at a time: split the request",
            param="prompt",
        )
    prompts = []
    for entry in entries:
        if isinstance(entry, str):
            ids = await encode(entry, served, param="prompt", add_special_tokens=fields.add_special_tokens)
            prompts.append(_checked(ids, entry, served, "prompt"))
        else:
            _check_ids(entry, served)
            prompts.append(_checked(entry, served.vocabulary.decode(entry) if fields.echo else "", served, "prompt"))
    return prompts


async def chat_prompt(fields: ChatFields, served: ServedModel) -> Prompt:
    """The rendered conversation. Raises InvalidArgument or ApiError."""
    if served.chat is None:
        raise InvalidArgument(MISSING, param="messages")
    messages = _messages(fields.messages)
    text = served.chat.render(messages, fields.chat_template_kwargs)
    # The template writes the special tokens itself.
    return _checked(await encode(text, served, param="messages", add_special_tokens=False), text, served, "messages")


async def prediction_ids(value: Any, served: ServedModel) -> list[int]:
    """What the client expects the answer to be, none where it does not say. Raises InvalidArgument."""
    if value is None:
        return []
    if not isinstance(value, dict) or value.get("type") != "content":
        raise InvalidArgument(
            f'prediction is {shown(value)}; it must be an object with type "content" and the expected content',
            param="prediction",
        )
    content = value.get("content")
    if isinstance(content, list):
        content = _joined(content, "prediction", "prediction")
    if not isinstance(content, str):
        raise InvalidArgument(f"prediction.content is {shown(content)}; it must be text", param="prediction")
    ids = await encode(content, served, param="prediction", add_special_tokens=False)
    check_prediction(ids, vocab_size=served.vocab_size, max_positions=served.max_positions)
    return ids


async def encode(text: str, served: ServedModel, *, param: str, add_special_tokens: bool) -> list[int]:
    check_text(text, param)
    if len(text) <= _INLINE_CHARS:
        return served.vocabulary.encode(text, add_special_tokens=add_special_tokens)
    return await asyncio.to_thread(served.vocabulary.encode, text, add_special_tokens=add_special_tokens)


def check_text(text: str, param: str) -> None:
    """Raises InvalidArgument for half a surrogate pair: JSON can spell it, no text contains it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{param} has half a surrogate pair at character {error.start}; send whole characters", param=param
        ) from None


def _checked(ids: list[int], text: str, served: ServedModel, param: str) -> Prompt:
    if not ids:
        raise InvalidArgument("the prompt is empty; send at least one token", param=param)
    if len(ids) >= served.max_positions:
        raise too_long(len(ids), served.max_positions, param)
    return Prompt(tuple(ids), text)


def _check_ids(ids: list[int], served: ServedModel) -> None:
    for index, token in enumerate(ids):
        if not 0 <= token < served.vocab_size:
            raise InvalidArgument(
                f"prompt[{index}] is {shown(token)}; token ids of this model are 0 to {served.vocab_size - 1}",
                param="prompt",
            )


def _all_of(value: Any, kind: type) -> bool:
    """Whether it is a list of that kind only; booleans are no numbers, and an empty list is taken for ids."""
    return isinstance(value, list) and all(isinstance(entry, kind) and not isinstance(entry, bool) for entry in value)


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise InvalidArgument(
            f"messages is {shown(value)}; it must be a list of at least one message", param="messages"
        )
    return [_message(index, message) for index, message in enumerate(value)]


def _message(index: int, message: Any) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise InvalidArgument(
            f"{where} is {shown(message)}; it must be an object with role and content", param="messages"
        )
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidArgument(
            f"{where}.role is {shown(role)}; it must be one of {', '.join(sorted(_ROLES))}", param="messages"
        )
    if message.get("tool_calls") or message.get("function_call"):
        raise InvalidArgument(f"{where}.tool_calls is not supported here; leave it out", param="messages")
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content, where, "messages")
    if not isinstance(content, str):
        raise InvalidArgument(f"{where}.content is {shown(content)}; it must be text", param="messages")
    # Templates know the older word.
    return {"role": "system" if role == "developer" else role, "content": content}


def _joined(parts: list[Any], where: str, param: str) -> str:
    """The text of content that comes in parts."""
    texts = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidArgument(
                f"{where}.content[{index}] is {shown(part)}; only parts of type text are supported", param=param
            )
        texts.append(part["text"])
    return "".join(texts)
