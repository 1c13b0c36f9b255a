"""`nacre train`: the recipes the project trains its own models with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nacre.cli import options as flags

if TYPE_CHECKING:
    from nacre.training.loop import Report

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def train() -> None:
    """Train models by recipe."""


@app.command("demo-pair")
def demo_pair(
    out: Annotated[Path, flags.word("--out", "Where to write pair and checkpoints.", "DIR")] = Path("demo-pair"),
    target_steps: Annotated[
        int | None, flags.whole("--target-steps", "Training steps of the target; default: the recipe's.", 10, 10**6)
    ] = None,
    draft_steps: Annotated[
        int | None, flags.whole("--draft-steps", "Distillation steps of the draft; default: the recipe's.", 10, 10**6)
    ] = None,
    seed: flags.Seed = None,
    threads: flags.Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with a run found in --out, or refuse it.")
    ] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny models in minutes: tries the machinery, of no other use.")
    ] = False,
    as_json: flags.Json = False,
) -> None:
    """Train the bundled pair again: tokenizer, target, and a draft model distilled on the target's own text.

    The text is the standard library of the Python that runs this. Hours on two cores; a run that was stopped goes on
    where it was when the command is given again.

    \b
    nacre train demo-pair --out ./pair
    nacre demo --target ./pair/demo-target --draft ./pair/demo-draft --parameters 113M
    """
    from nacre.cli.output import print_json
    from nacre.training.demo_pair import train_demo_pair

    with _bars() as report:
        result = train_demo_pair(
            out,
            target_steps=target_steps,
            draft_steps=draft_steps,
            seed=seed or 0,
            threads=threads or 2,
            resume=resume,
            quick=quick,
            report=report,
        )
    assert result is not None  # only a run that is told to stop early has none
    if as_json:
        print_json(_jsonable(dataclasses.asdict(result)))
        return
    figures = result.figures
    accepted = {pair.temperature: pair.by_children[1] for pair in figures.pair}
    print(f"{result.target}  {result.target_parameters:,} parameters, {figures.target_loss:.3f} nats/token held out")
    print(f"{result.draft}  {result.draft_parameters:,} parameters, accepted at first guess:", end="")
    print(",".join(f" {share:.3f} at T = {temperature:g}" for temperature, share in accepted.items()))
    print(f"try: nacre demo --target {result.target} --draft {result.draft} --parameters 113M")


@app.command("text-draft")
def text_draft(
    out: Annotated[Path, flags.word("--out", "Where to write the draft model.", "DIR")] = Path("weak-draft"),
    target: flags.Target = "demo-target",
    steps: Annotated[int | None, flags.whole("--steps", "Training steps; default: the recipe's.", 10, 10**6)] = None,
    seed: flags.Seed = None,
    threads: flags.Threads = None,
    quick: Annotated[bool, typer.Option("--quick", help="A toy in seconds: tries the machinery.")] = False,
    as_json: flags.Json = False,
) -> None:
    """Train a weak draft model: two layers that read the training text and nothing of their target's.

    For measurements that are to hold for ordinary draft models, too. Minutes on two cores; a run that was stopped goes
    on where it was when the command is given again.

    \b
    nacre train text-draft --out ./weak-draft
    nacre demo --draft ./weak-draft
    """
    from nacre.cli.output import print_json
    from nacre.models import bundled, located
    from nacre.training.text_draft import train_text_draft

    folder = Path(located(target or "demo-target")).expanduser()
    beside = bundled("demo-draft") if folder == bundled("demo-target") else None
    with _bars() as report:
        result = train_text_draft(
            out,
            target=folder,
            beside=beside,
            steps=steps,
            seed=seed or 0,
            threads=threads or 2,
            quick=quick,
            report=report,
        )
    assert result is not None  # only a run that is told to stop early has none
    if as_json:
        print_json(_jsonable(dataclasses.asdict(result)))
        return
    print(f"{result.path}  {result.parameters:,} parameters, {result.loss:.3f} nats/token held out")
    print("accepted at first guess, on the target's own continuations of held-out text:")
    for row in result.figures:
        told = f"  {row.kind:<5} at T = {row.acceptance.temperature:g}: {row.acceptance.by_children[1]:.3f}"
        if beside is not None and row.beside is not None:
            told += f" ({beside.name} {row.beside.by_children[1]:.3f})"
        print(told)


@app.command("acceptance-head")
def acceptance_head(
    target: flags.Target = "demo-target",
    draft: flags.Draft = "demo-draft",
    out: Annotated[
        Path | None, flags.word("--out", "Where to write acceptance_head.json; default: the draft model's.", "DIR")
    ] = None,
    prompts: Annotated[int, flags.whole("--prompts", "How many texts the target continues.", 8, 100_000)] = 192,
    seed: flags.Seed = None,
    threads: flags.Threads = None,
    as_json: flags.Json = False,
) -> None:
    """Train the heads by which the policies specdec++ and disco stop, for a pair of the recipe's shape.

    The target continues Python text; the heads learn from what the draft model knew whether its guess came true.

    \b
    nacre train acceptance-head --target ./pair/demo-target --draft ./pair/demo-draft
    """
    from nacre.cli.output import print_json
    from nacre.models import located
    from nacre.training.acceptance_head import train_acceptance_head

    with _bars() as report:
        result = train_acceptance_head(
            Path(located(target or "demo-target")),
            Path(located(draft or "demo-draft")),
            out=out,
            prompts=prompts,
            seed=seed or 0,
            threads=threads or 2,
            report=report,
        )
    if as_json:
        print_json(_jsonable(dataclasses.asdict(result)))
        return
    print(f"{result.path}  from {result.places:,} places")
    for name, head in result.heads.items():
        print(
            f"{name}: AUC {head.auc:.3f}, accuracy {head.accuracy:.3f} at {result.held_out:,} held-out places", end=""
        )
        print(f" ({result.accepted:.3f} accepted)")


@contextmanager
def _bars() -> Iterator[Report]:
    """A progress bar per stage on standard error; a line now and then where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from nacre.cli.output import note

    console = Console(stderr=True)
    if not console.is_terminal:
        told: dict[str, int] = {}

        def tell(stage: str, done: int, steps: int, value: float) -> None:
            tenth = 10 * done // max(1, steps)
            if told.get(stage) != tenth:
                told[stage] = tenth
                note(f"{stage}: {done}/{steps} ({value:.3f})")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[value]:.3f}"), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, steps: int, value: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps, value=value)
            progress.update(tasks[stage], completed=done, total=steps, value=value)

        yield show


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value
