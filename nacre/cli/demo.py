"""`nacre demo`: three real processes write a real text together, and how much faster than the target alone."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import EXIT_FAILED
from nacre.cli import options as flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from nacre.cli.demo_run import DemoOptions, DemoResult
    from nacre.client import AsyncClient, Generation, Piece

PROMPTS, MAX_TOKENS = 3, 96
QUICK_PROMPTS, QUICK_MAX_TOKENS = 1, 32


def demo(
    prompts: Annotated[
        int | None, flags.whole("--prompts", f"Held-out prompts to continue; default {PROMPTS}.", 1, 64)
    ] = None,
    max_tokens: Annotated[
        int | None, flags.whole("--max-tokens", f"New tokens for each; default {MAX_TOKENS}.", 2, 100_000)
    ] = None,
    temperature: flags.Temperature = 1.0,
    seed: flags.Seed = None,
    target: flags.Target = None,
    draft: flags.Draft = None,
    parameters: flags.Parameters = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    method: flags.Method = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_PROMPTS} prompt, {QUICK_MAX_TOKENS} tokens.")] = False,
    as_json: flags.Json = False,
) -> None:
    """See it work: a verifier, a drafter and a gateway as three processes continue real text they have never seen.

    Then the same prompts without speculation and with transformers' own generate: the text must be identical (else the
    exit code is 1), and the table says how much faster it was. The first run makes an inflated copy of the small
    bundled target: it computes the same function at a larger model's cost.

    \b
    nacre demo
    nacre demo --quick --dtype float32          # also checked against plain transformers, token by token
    nacre demo --target ./my-model --draft ./my-draft --threads 4
    nacre demo --json > result.json
    """
    from nacre.cli.demo_run import DemoOptions, run_demo
    from nacre.cli.model_files import inflated_target
    from nacre.cli.output import print_json
    from nacre.runtime.processes import run_until_signalled

    count = prompts or (QUICK_PROMPTS if quick else PROMPTS)
    model = inflated_target(target, parameters)
    texts = tuple(_held_out_prompts(count + 1))
    wanted = DemoOptions(
        target=model,
        draft=draft,
        dtype=dtype,
        device=device,
        threads=threads or 1,
        method=method,
        seed=1 if seed is None else seed,
        temperature=temperature,
        prompts=texts[:-1],
        warm_up=texts[-1],
        max_tokens=max_tokens or (QUICK_MAX_TOKENS if quick else MAX_TOKENS),
    )
    result = run_until_signalled(run_demo(wanted, _quietly if as_json else _live(wanted)))
    if as_json:
        print_json(as_dict(result))
    else:
        _print_table(result)
    if not result.identical:
        raise typer.Exit(EXIT_FAILED)


def as_dict(result: DemoResult) -> dict[str, Any]:
    """The result as JSON shows it; every figure is defined in `demo_run`."""
    from nacre.cli import demo_run as run
    from nacre.cli.version import versions

    speed, alone = run.tokens_per_s(result.nacre), run.tokens_per_s(result.alone)
    plain = run.transformers_tokens_per_s(result.transformers)
    options = result.options
    return {
        "identical": result.identical,
        "identical_to_transformers": result.identical_to_transformers,
        "tokens_per_s": speed,
        "ar_tokens_per_s": alone,
        "hf_tokens_per_s": plain,
        "speedup": speed / alone,
        "speedup_over_hf": speed / plain,
        "acceptance_length": run.acceptance_length(result.nacre),
        "bytes_up_per_token": run.per_token(result.nacre, lambda s: s.draft_bytes),
        "verifier_seconds_per_token": run.per_token(result.nacre, lambda s: s.verify_s),
        "ar_verifier_seconds_per_token": run.per_token(result.alone, lambda s: s.verify_s),
        "model": result.model,
        "inflated": _inflation(options.target) is not None,
        "temperature": options.temperature,
        "seed": options.seed,
        "prompts": len(options.prompts),
        "max_tokens": options.max_tokens,
        "threads": options.threads,
        "verifier_cores": list(result.verifier_cores),
        "drafter_cores": list(result.drafter_cores),
        "system_fingerprint": result.fingerprint,
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": versions(),
        "samples": [
            {
                "prompt_tokens": len(nacre.prompt),
                "tokens": len(nacre.tokens),
                "nacre": _timing(nacre),
                "ar": _timing(alone_sample),
                "hf": {key: hf[key] for key in ("tokens", "first_s", "total_s")},
            }
            for nacre, alone_sample, hf in zip(result.nacre, result.alone, result.transformers, strict=True)
        ],
    }


def _timing(sample: Any) -> dict[str, Any]:
    return {
        "ttft_s": sample.ttft_s,
        "total_s": sample.total_s,
        "passes": sample.passes,
        "guessed_tokens": sample.guessed,
        "draft_bytes": sample.draft_bytes,
        "verify_s": sample.verify_s,
    }


def _print_table(result: DemoResult) -> None:
    from rich.table import Table

    from nacre.cli.output import result_console

    figures = as_dict(result)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for heading in ("nacre", "alone", "transformers"):
        table.add_column(heading, justify="right")
    speed, alone, plain = (figures[key] for key in ("tokens_per_s", "ar_tokens_per_s", "hf_tokens_per_s"))
    length, payload = figures["acceptance_length"], figures["bytes_up_per_token"]
    effort, effort_alone = figures["verifier_seconds_per_token"], figures["ar_verifier_seconds_per_token"]
    compared = {None: "not compared", True: "identical *", False: "DIFFERENT *"}[result.identical_to_transformers]
    table.add_row("tokens/s", f"{speed:.1f}", f"{alone:.1f}", f"{plain:.1f}")
    table.add_row("speed-up", f"{speed / alone:.2f} x", "1.00 x", f"{plain / alone:.2f} x")
    table.add_row("acceptance length", f"{length:.2f}", "1.00", "-")
    table.add_row("payload bytes up per token", f"{payload:.1f}", "0", "-")
    table.add_row("verifier-seconds per token", f"{effort:.4f}", f"{effort_alone:.4f}", "-")
    table.add_row("text", "identical" if result.identical_to_alone else "DIFFERENT", "reference", compared)
    console = result_console()
    console.print(f"\n{_describe(result)}\n")
    console.print(table)
    console.print(f"\n[dim]{_footnote(result)}[/dim]")


def _describe(result: DemoResult) -> str:
    options = result.options
    inflation = _inflation(options.target)
    model = result.model + (f" ({inflation})" if inflation else "")
    return (
        f"{model}, {options.threads} thread(s) each, T = {options.temperature:g}, "
        f"{len(options.prompts)} prompt(s) x {options.max_tokens} tokens, seed {options.seed}"
    )


def _footnote(result: DemoResult) -> str:
    told = (
        "alone: the same verifier without speculation; transformers: its own generate, on the verifier's core(s).\n"
        "Speeds are decoding speeds, prompts apart. "
    )
    if result.identical_to_transformers is None:
        return told + (
            "Identical: token by token what the verifier writes alone. transformers\n"
            "rounds and draws otherwise; with --dtype float32 its logits get the same noise and are compared too."
        )
    return told + "* transformers' own logits with the same noise; its timed run draws other noise."


def _live(options: DemoOptions) -> Callable[[AsyncClient, Generation], Any]:
    """Shows the first prompt and its continuation as it comes."""
    from nacre.cli.colours import ColouredText, coloured, harmless, legend
    from nacre.cli.output import result_console

    console = result_console()

    async def show(client: AsyncClient, generation: Generation) -> Callable[[Piece], None]:
        split = ColouredText(await client.vocabulary())
        console.print(
            "\n[dim]A text neither model has seen, then what they write: coloured by who came up with it.[/dim]"
        )
        console.print("[dim]" + "-" * 80 + "[/dim]")
        console.print(harmless(options.prompts[0]), end="", style="dim", markup=False)

        def piece_came(piece: Piece) -> None:
            console.print(coloured(split.split(piece)), end="")
            if sum(split.tokens_by.values()) >= options.max_tokens:
                console.print("\n[dim]" + "-" * 80 + "[/dim]")
                console.print(legend(split.tokens_by))

        return piece_came

    return show


async def _quietly(client: AsyncClient, generation: Generation) -> None:
    return None


def _inflation(target: str) -> str | None:
    from nacre.cli.model_files import read_model_files
    from nacre.errors import NacreError

    try:
        files = read_model_files(Path(target))
    except NacreError:  # a hub id
        return None
    if not files.inflated_from:
        return None
    return f"{files.inflated_from / 1e6:.1f} M parameters, inflated to {files.parameters / 1e6:.0f} M"


def _held_out_prompts(count: int) -> list[str]:
    from nacre.models import held_out_prompts

    return held_out_prompts(count)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
