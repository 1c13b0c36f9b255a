"""`nacre generate`: one prompt to a running gateway or verifier, streamed, coloured by who guessed each token."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags

if TYPE_CHECKING:
    from nacre.client import AsyncClient, Generation
    from nacre.runtime.proposers import BuiltProposer
    from nacre.session import DrafterLimits


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from standard input.")],
    address: Annotated[
        str, flags.word("--address", "gRPC address of a gateway or verifier.", "HOST:PORT")
    ] = "127.0.0.1:8001",
    max_tokens: Annotated[int, flags.whole("--max-tokens", "Most new tokens.", 1, flags.MAX_UINT32)] = 128,
    temperature: flags.Temperature = 1.0,
    top_k: Annotated[int, flags.whole("--top-k", "Keep the k likeliest; 0 keeps all.", 0, flags.MAX_UINT32)] = 0,
    top_p: Annotated[float, flags.number("--top-p", "Keep the likeliest that reach this share.", 0, 1)] = 1.0,
    min_p: Annotated[float, flags.number("--min-p", "Drop what is less likely, relative to the best.", 0, 1)] = 0.0,
    repetition_penalty: Annotated[float, flags.number("--repetition-penalty", "1 is off.", 1e-3, 1e3)] = 1.0,
    presence_penalty: Annotated[float, flags.number("--presence-penalty", "-2 to 2.", -2, 2)] = 0.0,
    frequency_penalty: Annotated[float, flags.number("--frequency-penalty", "-2 to 2.", -2, 2)] = 0.0,
    seed: flags.Seed = None,
    stop: Annotated[
        list[str] | None, flags.word("--stop", "End before this text; may be given several times.", "TEXT")
    ] = None,
    count: Annotated[int, flags.whole("--n", "Completions of the prompt.", 1, 128)] = 1,
    prediction: Annotated[
        Path | None,
        flags.word("--prediction", "What the text is expected to be; makes it faster where that is right.", "FILE"),
    ] = None,
    no_speculation: Annotated[bool, typer.Option("--no-speculation", help="The target alone: same text.")] = False,
    drafters: Annotated[
        int | None, flags.whole("--drafters", "Drafters to ask for; default: the gateway decides.", 0, 64)
    ] = None,
    draft_here: Annotated[
        bool, typer.Option("--draft-here", help="Guess in this process as well (--method, --draft, --datastore).")
    ] = False,
    method: flags.Method = None,
    draft: flags.Draft = None,
    datastore: flags.Datastore = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Continue a prompt and stream the text.

    At a terminal the colours show who came up with each token first. Whoever it was, the text is the target's own:
    --no-speculation with the same --seed writes the same.

    \b
    nacre generate 'def fibonacci(n):' --max-tokens 64
    nacre generate 'import ' --seed 7 --temperature 0.7 --stop $'\\n\\n'
    nacre generate - --json < prompt.txt
    nacre generate 'class Stack:' --draft-here --method lookup    # guess on this machine, no torch needed
    nacre generate - --prediction before.py --draft-here --method prediction < prompt.txt
    """
    from nacre.errors import InvalidArgument
    from nacre.runtime.processes import run_until_signalled
    from nacre.sampling import SamplingParams
    from nacre.session import SpeculationMode

    if no_speculation and (draft_here or drafters):
        raise InvalidArgument("--no-speculation leaves nothing to guess; drop --draft-here and --drafters")
    if "" in (stop or ()):
        raise InvalidArgument("--stop is empty; give at least one character, or leave it out")
    sampling = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
    )
    request = {
        "max_tokens": max_tokens,
        "sampling": sampling,
        "seed": seed,
        "stop": tuple(stop or ()),
        "speculation": SpeculationMode.OFF if no_speculation else SpeculationMode.LATENCY,
        "drafters": 0 if no_speculation else drafters,
        "prediction": _read(prediction) if prediction is not None else (),
    }
    here = None
    if draft_here:
        here = _proposer_here(
            method=method, draft=draft, datastore=datastore, device=device, threads=threads, config=config
        )
    text = sys.stdin.read() if prompt == "-" else prompt
    run_until_signalled(_generate(address, text, request, count, here, as_json))


async def _generate(
    address: str, prompt: str, request: dict[str, Any], count: int, here: _Here | None, as_json: bool
) -> None:
    from nacre.cli.output import print_json
    from nacre.client import AsyncClient, Retry
    from nacre.errors import InvalidArgument

    _check_address(address)
    if not prompt:
        raise InvalidArgument("the prompt is empty; give at least one character")
    # Once connected, a generation outlives a lost connection; but whoever names a wrong address should hear it at once.
    async with AsyncClient(address, retry=Retry(attempts=0)) as first:
        model = await first.model()
    request["sampling"].validate(model.vocab_size)
    async with AsyncClient(address, **(here.client_options if here else {})) as client:
        if here is not None:
            here.built.check_tokenizer((await client.vocabulary()).fingerprint)
        done: list[Generation] = []
        for index in range(count):
            # All completions of one prompt share a seed: the first one's, where none was given.
            seed = request["seed"] if not done else done[0].seed
            generation = await client.start(prompt, **{**request, "seed": seed, "completion_index": index})
            if as_json:
                await generation.run()
            else:
                await _show(client, generation, index, count)
            done.append(generation)
    if as_json:
        shown = [as_dict(generation) for generation in done]
        print_json(shown[0] if count == 1 else {"completions": shown})


async def _show(client: AsyncClient, generation: Generation, index: int, count: int) -> None:
    from nacre.cli.colours import ColouredText, coloured, legend
    from nacre.cli.output import result_console

    console = result_console()
    split = ColouredText(await client.vocabulary())
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    if count > 1:
        print(f"--- completion {index + 1} of {count}")
    async for piece in generation:
        runs = split.split(piece)
        if console.is_terminal:
            console.print(coloured(runs), end="")
        else:
            print(piece.text, end="", flush=True)
    if console.is_terminal or count > 1:
        print()
    if console.is_terminal:
        console.print()
        console.print(legend(split.tokens_by))
        console.print(f"[dim]{_summary(generation)}[/dim]")


def _summary(generation: Generation) -> str:
    statistics = generation.statistics
    reason = generation.finish_reason.value if generation.finish_reason else "stopped"
    told = f"{len(generation.tokens)} tokens in {statistics.passes} passes"
    if statistics.passes:
        told += f" ({statistics.acceptance_length:.2f} each)"
    return f"{told}, ended by {reason}, seed {generation.seed}"


def as_dict(generation: Generation) -> dict[str, Any]:
    """A finished generation as JSON shows it; `guessed_by` is 0 for the verifier itself, else the drafter's number."""
    return {
        "text": generation.text,
        "tokens": generation.tokens,
        "guessed_by": generation.guessed_by,
        "finish_reason": generation.finish_reason.value if generation.finish_reason else None,
        "seed": generation.seed,
        "prompt_tokens": len(generation.request.prompt),
        "system_fingerprint": generation.system_fingerprint,
        "statistics": {
            **dataclasses.asdict(generation.statistics),
            "acceptance_length": generation.statistics.acceptance_length,
        },
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Here:
    """A proposer in this process, and how a client is to use it."""

    built: BuiltProposer
    limits: DrafterLimits
    batch_nodes: int

    @property
    def client_options(self) -> dict[str, Any]:
        return {"proposer": self.built.proposer, "drafting": self.limits, "batch_nodes": self.batch_nodes}


def _proposer_here(**values: Any) -> _Here:
    """Loads what guesses. Raises NacreError for flags that cannot be right and models that cannot be loaded."""
    from nacre.cli.model_files import resolve
    from nacre.drafting import needs_model
    from nacre.runtime.proposers import build_proposer
    from nacre.runtime.settings import DrafterSettings, load_settings
    from nacre.session import DrafterLimits

    given = [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]
    settings = load_settings(DrafterSettings, "drafter", given).settings
    if needs_model(settings.method):
        settings = dataclasses.replace(settings, draft=resolve(settings.draft))
    built = build_proposer(settings)
    limits = DrafterLimits(
        window_nodes=settings.window_nodes,
        least_survival=settings.least_survival,
        least_sent_survival=settings.least_sent,
    )
    return _Here(built, limits, settings.batch_nodes)


def _read(file: Path) -> str:
    from nacre.errors import InvalidArgument

    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidArgument(f"--prediction {file} cannot be read ({reason}); name a text file") from None


def _check_address(address: str) -> None:
    from nacre.errors import InvalidArgument

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"--address is {address!r}; it must be host:port, e.g. 127.0.0.1:8001")
