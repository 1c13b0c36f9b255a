"""The demo's measurements: the same prompts with speculation, without it, and by transformers alone.

Figures. *tokens/s* is decoding speed: tokens after the first message that brought any, over the time since then; the
prompt's own time is reported apart (`ttft_s`), because a prompt read before is partly cached. Sums over all prompts are
divided, not averaged. Speed-ups are ratios within one run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.cli.output import ChildLog, Steps, note
from nacre.cli.stack import StackOptions, address_of, start_stack, verifier_spec
from nacre.client import AsyncClient
from nacre.errors import InvalidArgument
from nacre.runtime.processes import Child, ChildSpec, Processes, available_cores
from nacre.runtime.settings import VerifierSettings, load_settings
from nacre.sampling import SamplingParams
from nacre.session import SpeculationMode

if TYPE_CHECKING:
    from nacre.client import Generation, Piece

WARM_UP_TOKENS = 8
#: Short generations until the drafter has been seen to help; it joins a moment after the gateway has found it.
MAX_WARM_UPS = 40

_YARDSTICK = "transformers"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo runs; `target` is a directory or hub id, inflated already if it is to be."""

    target: str
    draft: str | None
    dtype: str | None
    device: str | None
    threads: int
    method: str | None
    seed: int
    temperature: float
    prompts: tuple[str, ...]
    warm_up: str  # a text of its own: what it leaves in the caches helps no measured run
    max_tokens: int
    pin: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt, continued once."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    ttft_s: float
    total_s: float
    first_tokens: int  # that came with the first message
    passes: int = 0
    draft_bytes: int = 0
    verify_s: float = 0.0
    guessed: int = 0  # tokens a drafter had guessed

    @property
    def decode_s(self) -> float:
        return self.total_s - self.ttft_s

    @property
    def decode_tokens(self) -> int:
        return len(self.tokens) - self.first_tokens


@dataclass(slots=True)
class DemoResult:
    """All samples, in the order of the prompts. `expected` is the independent check, in fp32 only."""

    options: DemoOptions
    model: str
    fingerprint: str
    verifier_cores: tuple[int, ...]
    drafter_cores: tuple[int, ...]
    nacre: list[Sample] = field(default_factory=list)
    alone: list[Sample] = field(default_factory=list)
    transformers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def identical_to_alone(self) -> bool:
        return [s.tokens for s in self.nacre] == [s.tokens for s in self.alone] and [s.text for s in self.nacre] == [
            s.text for s in self.alone
        ]

    @property
    def identical_to_transformers(self) -> bool | None:
        """Against the race rule over transformers' own logits; None where it was not asked for."""
        expected = [result["expected"] for result in self.transformers]
        if not expected or any(tokens is None for tokens in expected):
            return None
        return [list(sample.tokens) for sample in self.nacre] == expected

    @property
    def identical(self) -> bool:
        return self.identical_to_alone and self.identical_to_transformers is not False


def tokens_per_s(samples: Sequence[Sample]) -> float:
    return sum(s.decode_tokens for s in samples) / max(1e-9, sum(s.decode_s for s in samples))


def transformers_tokens_per_s(results: Sequence[dict[str, Any]]) -> float:
    return sum(r["tokens"] - 1 for r in results) / max(1e-9, sum(r["total_s"] - r["first_s"] for r in results))


def per_token(samples: Sequence[Sample], amount: Callable[[Sample], float]) -> float:
    return sum(map(amount, samples)) / max(1, sum(len(s.tokens) for s in samples))


def acceptance_length(samples: Sequence[Sample]) -> float:
    """Committed tokens per verify pass, the verifier's own included."""
    return sum(len(s.tokens) for s in samples) / max(1, sum(s.passes for s in samples))


async def run_demo(options: DemoOptions, show: Callable[[AsyncClient, Generation], Any]) -> DemoResult:
    """Starts the three processes, runs everything, and leaves nothing behind. `show` displays the first generation."""
    steps = Steps()
    async with AsyncExitStack() as resources:
        log = ChildLog(_YARDSTICK)
        processes = await resources.enter_async_context(Processes(on_line=log))
        resources.callback(log.hush)
        cores = _share_cores(options)
        wanted = StackOptions(
            target=options.target,
            draft=options.draft,
            dtype=options.dtype,
            device=options.device,
            threads=options.threads,
            method=options.method,
            verifier_cores=cores[0],
            drafter_cores=cores[1],
        )
        with steps.step("starting a verifier, a drafter and a gateway"):
            stack = await start_stack(wanted, processes, resources)
        note(f"verifier {address_of(stack.verifiers[0])}, drafter {address_of(stack.drafters[0])}, "
             f"gateway {stack.grpc_address}")  # fmt: skip
        async with AsyncClient(stack.grpc_address) as client:
            model = await client.model()
            result = DemoResult(options, stack.model, model.system_fingerprint, *cores)
            encoded = await _encode(client, options, model.max_positions)
            with steps.step("warming up"):
                await _warm_up(client, options.warm_up)
            await _measure(client, encoded, result, show, steps)
        # The verifier idles from here on: its core is free for the yardstick.
        with steps.step("transformers' generate on the same prompts", total=len(encoded)) as advance:
            await _run_transformers(processes, wanted, encoded, result, advance)
    return result


async def _measure(
    client: AsyncClient, prompts: list[list[int]], result: DemoResult, show: Callable[..., Any], steps: Steps
) -> None:
    """With and without speculation in turns, so that whatever else the machine does falls on both."""
    for index, prompt in enumerate(prompts):
        write = partial(_sample, client, prompt, result.options, index)
        if index == 0:
            result.nacre.append(await write(SpeculationMode.LATENCY, show=show))
        title = f"prompt {index + 1} of {len(prompts)}, with and without speculation"
        with steps.step(title, total=(1 if index == 0 else 2) * result.options.max_tokens) as advance:
            if index > 0:
                result.nacre.append(await write(SpeculationMode.LATENCY, advance=advance))
            result.alone.append(await write(SpeculationMode.OFF, advance=advance))


async def _sample(
    client: AsyncClient,
    prompt: list[int],
    options: DemoOptions,
    index: int,
    mode: SpeculationMode,
    *,
    show: Callable[[AsyncClient, Generation], Any] | None = None,
    advance: Callable[[int], None] = lambda amount: None,
) -> Sample:
    shown: Callable[[Piece], None] | None = None
    first_s, first_tokens = 0.0, 0
    generation = await client.start(
        prompt,
        max_tokens=options.max_tokens,
        sampling=SamplingParams(temperature=options.temperature),
        seed=options.seed + index,
        # All runs write the same number of tokens, so that times compare.
        ignore_eos=True,
        speculation=mode,
    )
    if show is not None:
        shown = await show(client, generation)
    started = time.perf_counter()
    async for piece in generation:
        if piece.tokens and not first_tokens:
            first_s, first_tokens = time.perf_counter() - started, len(piece.tokens)
        if shown is not None:
            shown(piece)
        advance(len(piece.tokens))
    statistics = generation.statistics
    return Sample(
        prompt=tuple(prompt),
        tokens=tuple(generation.tokens),
        text=generation.text,
        ttft_s=first_s,
        total_s=time.perf_counter() - started,
        first_tokens=first_tokens,
        passes=statistics.passes,
        draft_bytes=statistics.draft_bytes,
        verify_s=statistics.verify_ms / 1e3,
        guessed=sum(1 for guesser in generation.guessed_by if guesser),
    )


async def _encode(client: AsyncClient, options: DemoOptions, max_positions: int) -> list[list[int]]:
    vocabulary = await client.vocabulary()
    encoded = [vocabulary.encode(text, add_special_tokens=True) for text in options.prompts]
    longest = max(map(len, encoded))
    if longest + options.max_tokens > max_positions:
        raise InvalidArgument(
            f"--max-tokens is {options.max_tokens}; after prompts of up to {longest} tokens the target has room for "
            f"{max_positions - longest}: ask for fewer"
        )
    return encoded


async def _warm_up(client: AsyncClient, prompt: str) -> None:
    """Until a guess has been verified: then all three processes know each other and have run every code path."""
    for _ in range(MAX_WARM_UPS):
        generation = await client.start(prompt, max_tokens=WARM_UP_TOKENS, seed=1, ignore_eos=True)
        await generation.run()
        if generation.statistics.verified_guesses:
            return
    note("no guess has reached the verifier so far; the figures below are without a drafter's help")


async def _run_transformers(
    processes: Processes,
    wanted: StackOptions,
    prompts: list[list[int]],
    result: DemoResult,
    advance: Callable[[int], None],
) -> None:
    spec = verifier_spec(wanted)
    settings = load_settings(VerifierSettings, "verifier", spec.arguments).settings
    options = result.options

    def hear(line: str) -> None:
        if line.startswith("result "):
            result.transformers.append(json.loads(line.removeprefix("result ")))
            advance(1)

    with tempfile.TemporaryDirectory(prefix="nacre-demo-") as folder:
        job_file = Path(folder) / "job.json"
        job = {
            "prompts": prompts,
            "seeds": [options.seed + index for index in range(len(prompts))],
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            # In bf16 the libraries round differently on purpose, so there equality is not to be expected.
            "check": settings.dtype in ("float32", "fp32"),
        }
        job_file.write_text(json.dumps(job))
        arguments = (
            *("--job", str(job_file), "--target", settings.target, "--dtype", settings.dtype),
            *("--device", settings.device, "--threads", str(settings.threads)),
        )
        reference = ChildSpec(_YARDSTICK, "nacre.cli.reference", arguments, wanted.verifier_cores)
        child: Child = await processes.start(reference, on_output=hear)
        if await child.wait() != 0:
            raise child.failure()


def _share_cores(options: DemoOptions) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the verifier's cores, the drafter's): as many each as they have threads, if the machine has so many."""
    cores = available_cores()
    if not options.pin or len(cores) < 2 * options.threads:
        return (), ()
    return cores[: options.threads], cores[options.threads : 2 * options.threads]
