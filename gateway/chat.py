"""Chat messages to a prompt, through the model's own Jinja template in a sandbox.

Rule: a model without a template is not guessed about: chat requests are refused with the remedy. Who wants a plain
completion model to answer chats anyway asks for it (`chat_template = plain`), and gets this dialogue:

    System: <text>
    User: <text>
    Assistant:

one line break between the lines; generation continues after "Assistant:". A client should send a stop string such as
"\\nUser:", because such a model does not know where its turn ends.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.settings import PLAIN_CHAT_TEMPLATE
from nacre.errors import InvalidArgument

PLAIN = (
    "{%- for message in messages -%}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}{{ '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}Assistant:{%- endif -%}"
)

MISSING = (
    "this model has no chat template; send a prompt to /v1/completions, or start the gateway with "
    "--chat-template FILE (or 'plain')"
)


def template_source(setting: str) -> Callable[[str], str]:
    """What decides which template is used, given the model's own. Raises InvalidArgument for an unreadable file."""
    if not setting:
        return lambda own: own
    if setting == PLAIN_CHAT_TEMPLATE:
        return lambda own: PLAIN
    try:
        text = Path(setting).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"chat template {setting!r} cannot be read: {error}", param="chat_template") from None
    return lambda own: text


class ChatTemplate:
    """One compiled template. Building it never fails; a template that cannot be used says so when it is used."""

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        self._specials = dict(specials)
        self._template: Any = None
        self._refusal = ""
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            self._refusal = "chat templates need jinja2; install nacre[gateway] on the gateway"
            return
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            self._refusal = (
                f"the model's chat template is broken ({error}); start the gateway with --chat-template FILE"
            )

    def render(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
        """The prompt, ready for the assistant's turn. Raises InvalidArgument."""
        if self._template is None:
            raise InvalidArgument(self._refusal, param="messages")
        values = {"add_generation_prompt": True, "tools": None, "documents": None, **self._specials, **arguments}
        try:
            return self._template.render(messages=list(messages), **values)
        except Exception as error:  # noqa: BLE001  a template is a foreign program, and may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidArgument(f"the chat template refuses these messages: {reason}", param="messages") from None


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> None:
    raise ValueError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().astimezone().strftime(pattern)
