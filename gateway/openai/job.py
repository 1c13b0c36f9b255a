"""A request, checked: all that is needed to generate and to answer, and nothing that could still be refused here.

Rule: values that need the model (ranges of ids, room in the context) are judged against what is served, with the words
the verifier itself would use.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from gateway.openai.errors import unknown_model
from gateway.openai.fields import ChatFields, CompletionFields, GenerationFields, shown
from gateway.openai.prompts import Prompt, chat_prompt, check_text, completion_prompts, prediction_ids
from gateway.served import ServedModel
from gateway.settings import GatewaySettings
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams, check_top_logprobs, seed_to_key
from nacre.session import SpeculationMode
from nacre.v1 import session_pb2 as pb
from nacre.wire.messages import MAX_LABEL_BYTES, mode_to_wire, sampling_to_wire

DEFAULT_COMPLETION_TOKENS = 16
MAX_STOP_IDS = 64


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request. `request` is the Open of every generation but for prompt, max_tokens and completion_index."""

    chat: bool
    id: str
    created: int
    served: ServedModel
    prompts: tuple[Prompt, ...]
    n: int
    max_tokens: tuple[int, ...]  # per prompt
    request: pb.Open
    drafters: int
    stops: tuple[str, ...]
    end_ids: frozenset[int]  # tokens that end the output and are no part of its text
    top_logprobs: int  # -1: none wanted
    echo: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool
    tenant: str

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n

    def open_for(self, index: int) -> pb.Open:
        """The Open of choice `index`; the choices of one prompt are neighbours."""
        prompt, completion = divmod(index, self.n)
        request = pb.Open()
        request.CopyFrom(self.request)
        request.prompt[:] = self.prompts[prompt].ids
        request.max_tokens = self.max_tokens[prompt]
        request.completion_index = completion
        return request


async def completion_job(
    fields: CompletionFields, served: ServedModel, settings: GatewaySettings, *, label: str, tenant: str
) -> Job:
    """Raises InvalidArgument or ApiError."""
    top = -1 if fields.logprobs is None else fields.logprobs
    if fields.logprobs is not None:
        check_top_logprobs(top, "logprobs")
    if fields.echo and top >= 0:
        raise InvalidArgument("echo together with logprobs is not supported; leave one of them out", param="echo")
    _check_common(fields, served, settings)
    prompts = await completion_prompts(fields, served, settings)
    prediction = await prediction_ids(fields.prediction, served)
    wanted = fields.max_tokens
    room = [served.max_positions - len(prompt.ids) for prompt in prompts]
    if wanted is None:
        max_tokens = [min(DEFAULT_COMPLETION_TOKENS, left) for left in room]
    else:
        max_tokens = [_max_tokens("max_tokens", wanted, left, served) for left in room]
    return _job(
        fields,
        served,
        settings,
        prompts,
        max_tokens,
        prediction,
        top,
        chat=False,
        echo=fields.echo,
        label=label,
        tenant=tenant,
    )


async def chat_job(
    fields: ChatFields, served: ServedModel, settings: GatewaySettings, *, label: str, tenant: str
) -> Job:
    """Raises InvalidArgument or ApiError."""
    top = -1
    if fields.logprobs:
        top = fields.top_logprobs or 0
        check_top_logprobs(top)
    elif fields.top_logprobs is not None:
        raise InvalidArgument("top_logprobs needs logprobs to be true; set it or leave both out", param="top_logprobs")
    _check_common(fields, served, settings)
    prompt = await chat_prompt(fields, served)
    prediction = await prediction_ids(fields.prediction, served)
    name = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
    wanted = getattr(fields, name)
    room = served.max_positions - len(prompt.ids)
    max_tokens = room if wanted is None else _max_tokens(name, wanted, room, served)
    return _job(
        fields,
        served,
        settings,
        [prompt],
        [max_tokens],
        prediction,
        top,
        chat=True,
        echo=False,
        label=label,
        tenant=tenant,
    )


def _check_common(fields: GenerationFields, served: ServedModel, settings: GatewaySettings) -> None:
    if fields.model and fields.model != served.name:
        raise unknown_model(fields.model, served.name)
    if not 1 <= fields.n <= settings.max_choices:
        raise InvalidArgument(f"n is {shown(fields.n)}; it must be 1 to {settings.max_choices}", param="n")


def _max_tokens(name: str, wanted: int, room: int, served: ServedModel) -> int:
    if wanted < 1:
        raise InvalidArgument(f"{name} is {shown(wanted)}; it must be at least 1", param=name)
    if wanted > room:
        raise InvalidArgument(
            f"{name} is {shown(wanted)}; with a prompt of {served.max_positions - room} tokens this model's context of "
            f"{served.max_positions} leaves room for {room}",
            param=name,
        )
    return wanted


def _job(
    fields: GenerationFields,
    served: ServedModel,
    settings: GatewaySettings,
    prompts: list[Prompt],
    max_tokens: list[int],
    prediction: list[int],
    top_logprobs: int,
    *,
    chat: bool,
    echo: bool,
    label: str,
    tenant: str,
) -> Job:
    stop_ids = _stop_ids(fields, served)
    mode, drafters = _speculation(fields, settings)
    request = pb.Open(
        handshake=served.handshake,
        sampling=sampling_to_wire(_sampling(fields, served)),
        stop_ids=stop_ids,
        ignore_eos=fields.ignore_eos,
        speculation=mode_to_wire(mode),
        label=label.encode()[:MAX_LABEL_BYTES].decode("utf-8", "ignore"),
        prediction=prediction,
    )
    if len(prompts) == 1 and mode is not SpeculationMode.OFF:  # once for all its choices
        request.domain = served.domain(prompts[0].ids)
    if fields.seed is not None:
        request.seed = seed_to_key(fields.seed)
    if top_logprobs >= 0:
        request.top_logprobs = top_logprobs
    return Job(
        chat=chat,
        id=("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
        created=int(time.time()),
        served=served,
        prompts=tuple(prompts),
        n=fields.n,
        max_tokens=tuple(max_tokens),
        request=request,
        drafters=drafters,
        stops=_stops(fields.stop, settings),
        end_ids=frozenset(stop_ids) | (frozenset() if fields.ignore_eos else frozenset(served.model.eos_ids)),
        top_logprobs=top_logprobs,
        echo=echo,
        stream=fields.stream,
        include_usage=fields.stream_options.include_usage,
        return_token_ids=fields.return_token_ids,
        tenant=tenant,
    )


def _sampling(fields: GenerationFields, served: ServedModel) -> SamplingParams:
    bias: dict[int, float] = {}
    for name, value in fields.logit_bias.items():
        if not name.isascii() or not name.removeprefix("-").isdigit() or len(name) > 20:
            raise InvalidArgument(f"logit_bias names token {shown(name)}; keys must be token ids", param="logit_bias")
        bias[int(name)] = value
    params = SamplingParams(
        temperature=fields.temperature,
        top_k=0 if fields.top_k == -1 else fields.top_k,  # -1 is "off" elsewhere
        top_p=fields.top_p,
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        logit_bias=tuple(sorted(bias.items())),
        allowed_ids=None if fields.allowed_token_ids is None else tuple(fields.allowed_token_ids),
        banned_ids=tuple(fields.banned_token_ids),
    )
    if fields.allowed_token_ids == []:
        raise InvalidArgument(
            "allowed_token_ids is empty; name at least one token or leave it out", param="allowed_token_ids"
        )
    try:
        params.validate(served.vocab_size)
    except InvalidArgument as error:
        names = {"allowed_ids": "allowed_token_ids", "banned_ids": "banned_token_ids"}
        if error.param in names:
            raise InvalidArgument(
                error.message.replace(error.param, names[error.param]), param=names[error.param]
            ) from None
        raise
    if params.top_k >= 1 << 32:
        raise InvalidArgument(f"top_k is {shown(params.top_k)}; it must be less than 2**32", param="top_k")
    return params


def _stop_ids(fields: GenerationFields, served: ServedModel) -> list[int]:
    if len(fields.stop_token_ids) > MAX_STOP_IDS:
        raise InvalidArgument(
            f"stop_token_ids has {len(fields.stop_token_ids)} entries; at most {MAX_STOP_IDS} are taken",
            param="stop_token_ids",
        )
    for token in fields.stop_token_ids:
        if not 0 <= token < served.vocab_size:
            raise InvalidArgument(
                f"stop_token_ids names token {shown(token)}; token ids of this model are 0 to {served.vocab_size - 1}",
                param="stop_token_ids",
            )
    return fields.stop_token_ids


def _stops(value: object, settings: GatewaySettings) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise InvalidArgument(f"stop is {shown(value)}; it must be a string or a list of strings", param="stop")
    if len(stops) > settings.max_stops:
        raise InvalidArgument(f"stop has {len(stops)} entries; at most {settings.max_stops} are taken", param="stop")
    for stop in stops:
        if not 1 <= len(stop) <= settings.max_stop_chars:
            raise InvalidArgument(
                f"stop has a string of {len(stop)} characters; each must have 1 to {settings.max_stop_chars}",
                param="stop",
            )
        check_text(stop, "stop")
    return tuple(stops)


def _speculation(fields: GenerationFields, settings: GatewaySettings) -> tuple[SpeculationMode, int]:
    asked = fields.speculation
    modes = {mode.value: mode for mode in SpeculationMode}
    if asked.mode and asked.mode not in modes:
        raise InvalidArgument(
            f"speculation.mode is {shown(asked.mode)}; it must be one of {', '.join(modes)}", param="speculation"
        )
    drafters = settings.drafters_per_session if asked.drafters is None else asked.drafters
    if not 0 <= drafters <= settings.max_drafters:
        raise InvalidArgument(
            f"speculation.drafters is {shown(drafters)}; it must be 0 to {settings.max_drafters}", param="speculation"
        )
    return modes.get(asked.mode, SpeculationMode.LATENCY), drafters
