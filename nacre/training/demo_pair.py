"""The recipe of the bundled pair, from the standard library's source to two model directories with measured
cards.

Stages, each finished before the next and none done twice: plan -> tokenizer -> target -> draft -> figures
and cards. A run that was killed is continued by calling again with the same `out`; the plan (shapes, steps,
seed) is written first and stays as it was. Every stage is seeded; the same interpreter and torch give the same files,
whatever the number of threads.

    out/demo-target, out/demo-draft     the product: ordinary Hugging Face directories
    out/held_out.json                   the modules that no stage has seen
    out/training/                       plan, tokenizer and checkpoints; may be deleted afterwards
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models.python_text import HELD_OUT_ONE_IN, Module, prompts_from, standard_library
from nacre.training.bpe import save_tokenizer, train_bpe
from nacre.training.cards import Figures, Provenance, draft_card, target_card
from nacre.training.corpus import token_stream
from nacre.training.distill import Recipe, distil_draft, start_from_target
from nacre.training.evaluate import held_out_loss, race_acceptance
from nacre.training.lean_llama import LeanLlama, Shape, load_hugging_face, save_hugging_face
from nacre.training.loop import Report, checked_steps, keep_plan
from nacre.training.parallel import Workers
from nacre.training.pretrain import PHASES, Phase, train_on_text

TEMPERATURES = (1.0, 0.7, 0.0)
_PROBE_ROWS = 16


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the pair is and how its figures are taken."""

    target: Shape
    draft: Shape
    draft_layers: tuple[int, ...]
    phases: tuple[Phase, ...]
    recipe: Recipe
    module_limit: int
    prompts: int
    prompt_tokens: int
    continuation: int
    target_steps: int
    draft_steps: int


FULL = Scale(
    target=Shape(hidden=256, layers=4, heads=4, intermediate=768, vocab=4096),
    draft=Shape(hidden=256, layers=3, heads=4, intermediate=640, vocab=4096),
    draft_layers=(0, 1, 3),
    phases=PHASES,
    recipe=Recipe(),
    module_limit=10_000,
    prompts=32,
    prompt_tokens=96,
    continuation=96,
    target_steps=1010,
    draft_steps=750,
)
# Everything the full recipe does, small enough to try the machinery: its models are of no use.
QUICK = Scale(
    target=Shape(hidden=64, layers=2, heads=2, intermediate=128, vocab=512, max_positions=512),
    draft=Shape(hidden=64, layers=1, heads=2, intermediate=96, vocab=512, max_positions=512),
    draft_layers=(0,),
    phases=(Phase(0.6, 64, 8), Phase(1.0, 128, 4)),
    recipe=Recipe(
        phases=(Phase(0.6, 64, 8), Phase(1.0, 128, 4)),
        chunks=4,
        chunk_rows=8,
        length=64,
        prompt_lengths=(8, 16),
        rows=8,
    ),
    module_limit=12,
    prompts=3,
    prompt_tokens=24,
    continuation=24,
    target_steps=60,
    draft_steps=40,
)


@dataclass(frozen=True, slots=True)
class PairResult:
    """What a finished run measured; the cards say the same."""

    target: Path
    draft: Path
    target_parameters: int
    draft_parameters: int
    figures: Figures


def train_demo_pair(
    out: Path,
    *,
    target_steps: int | None = None,
    draft_steps: int | None = None,
    seed: int = 0,
    threads: int = 2,
    resume: bool = True,
    quick: bool = False,
    report: Report | None = None,
    stop_after: int | None = None,
) -> PairResult | None:
    """Train the pair into `out`; without `report` a progress bar is shown.

    `resume=False` refuses an `out` that already holds a run. `stop_after` ends each unfinished stage at
    that step and returns None: calling again continues. The default step counts are those of the bundled
    pair (about half an hour a stage on two cores). Raises FailedPrecondition where the interpreter comes
    without its library's source, or where `out` holds a run with another plan.
    """
    scale = QUICK if quick else FULL
    target_steps = checked_steps("target_steps", target_steps, scale.target_steps)
    draft_steps = checked_steps("draft_steps", draft_steps, scale.draft_steps)
    if threads < 1:
        raise InvalidArgument(f"threads is {threads}, must be at least 1", param="threads")
    work = out / "training"
    if not resume and (work / "plan.json").exists():
        raise FailedPrecondition(f"{out} already holds a run; resume it or choose another directory", param="out")
    keep_plan(work / "plan.json", quick=quick, target_steps=target_steps, draft_steps=draft_steps, seed=seed)
    with _reporting(report) as reporting, Workers(threads) as workers:
        run = _Run(out, scale, (target_steps, draft_steps), seed, workers, reporting, stop_after)
        return run.all_stages()


class _Run:
    """One run's data and stages."""

    def __init__(
        self,
        out: Path,
        scale: Scale,
        steps: tuple[int, int],
        seed: int,
        workers: Workers,
        report: Report,
        stop_after: int | None,
    ) -> None:
        self._out, self._scale, self._seed, self._report = out, scale, seed, report
        self._steps, self._workers, self._stop_after = steps, workers, stop_after
        modules = standard_library()
        self._train = [module for module in modules if not module.held_out][: scale.module_limit]
        self._held_out = [module for module in modules if module.held_out][: scale.module_limit]
        if not self._train or not self._held_out:
            raise FailedPrecondition("this interpreter has no standard library source to train on; use another")
        self._tokenizer = self._make_tokenizer()
        self._stream = token_stream(self._tokenizer, self._train, seed)
        self._unseen = token_stream(self._tokenizer, self._held_out, None)

    def all_stages(self) -> PairResult | None:
        target = self._make_target()
        draft = None if target is None else self._make_draft(target)
        if target is None or draft is None:
            return None
        return self._measure(target, draft)

    def _make_tokenizer(self) -> Tokenizer:
        folder = self._out / "training" / "tokenizer"
        if not (folder / "tokenizer.json").exists():
            texts = (module.text() for module in self._train)
            save_tokenizer(train_bpe(texts, self._scale.target.vocab), folder, self._scale.target.max_positions)
        return Tokenizer.from_file(str(folder / "tokenizer.json"))

    def _make_target(self) -> LeanLlama | None:
        model = LeanLlama(self._scale.target, self._seed)
        train_on_text(
            model,
            self._stream,
            stage="target",
            steps=self._steps[0],
            checkpoint=self._out / "training" / "target.safetensors",
            seed=self._seed,
            workers=self._workers,
            phases=self._scale.phases,
            report=self._report,
            stop_after=self._stop_after,
        )
        if self._stop_after is not None and self._stop_after < self._steps[0]:
            return None
        return self._save(model, "demo-target", {})

    def _make_draft(self, target: LeanLlama) -> LeanLlama | None:
        length = self._scale.phases[0].length
        probe = self._stream[: _PROBE_ROWS * length].view(_PROBE_ROWS, length)
        draft = start_from_target(target, self._scale.draft, self._scale.draft_layers, probe)
        distil_draft(
            target,
            draft,
            self._stream,
            steps=self._steps[1],
            checkpoint=self._out / "training" / "draft.safetensors",
            seed=self._seed + 100,
            workers=self._workers,
            recipe=self._scale.recipe,
            report=self._report,
            stop_after=self._stop_after,
        )
        if self._stop_after is not None and self._stop_after < self._steps[1]:
            return None
        return self._save(draft, "demo-draft", {})

    def _measure(self, target: LeanLlama, draft: LeanLlama) -> PairResult:
        scale = self._scale
        texts = prompts_from(self._held_out, scale.prompts)
        prompts = [self._tokenizer.encode(text).ids[: scale.prompt_tokens] for text in texts]
        pair = []
        for done, temperature in enumerate(TEMPERATURES):
            pair.append(race_acceptance(target, draft, prompts, temperature, self._workers, depth=scale.continuation))
            self._report("figures", done + 1, len(TEMPERATURES), pair[-1].by_children[1])
        short, long = scale.phases[0].length, scale.target.max_positions // 2
        figures = Figures(
            short_window=short,
            target_loss=held_out_loss(target, self._unseen, short, self._workers),
            long_window=long,
            target_long_loss=held_out_loss(target, self._unseen, long, self._workers),
            draft_loss=held_out_loss(draft, self._unseen, short, self._workers),
            pair=tuple(pair),
        )
        race_temperature = round(pair[0].race_temperature, 4)
        self._save(draft, "demo-draft", {"nacre_race_temperature": race_temperature})
        made = self._provenance()
        cards = {
            "demo-target": target_card(scale.target, made, figures),
            "demo-draft": draft_card(scale.draft, scale.target, made, figures),
        }
        for name, card in cards.items():
            (self._out / name / "README.md").write_text(card, encoding="utf-8")
        _write_held_out(self._out / "held_out.json", self._held_out)
        return PairResult(
            target=self._out / "demo-target",
            draft=self._out / "demo-draft",
            target_parameters=scale.target.parameters(),
            draft_parameters=scale.draft.parameters(),
            figures=figures,
        )

    def _save(self, model: LeanLlama, name: str, more: dict[str, float]) -> LeanLlama:
        """Write a model directory and read it back: what is served is rounded to bf16."""
        folder = self._out / name
        save_hugging_face(model, folder, more)
        save_tokenizer(self._tokenizer, folder, self._scale.target.max_positions)
        return load_hugging_face(folder)

    def _provenance(self) -> Provenance:
        phases, recipe = self._scale.phases, self._scale.recipe
        return Provenance(
            python=platform.python_version(),
            torch=torch.__version__,
            seed=self._seed,
            modules=len(self._train),
            held_out_modules=len(self._held_out),
            corpus_tokens=len(self._stream),
            held_out_tokens=len(self._unseen),
            target_steps=self._steps[0],
            target_tokens=self._steps[0] * phases[0].rows * phases[0].length,
            draft_steps=self._steps[1],
            draft_tokens=self._steps[1] * recipe.rows * recipe.length,
        )


def _write_held_out(path: Path, modules: list[Module]) -> None:
    record = {
        "split": f"one module name in {HELD_OUT_ONE_IN}, by hash (nacre/models/python_text.py)",
        "python": platform.python_version(),
        "modules": [module.name for module in modules],
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _reporting(report: Report | None) -> Iterator[Report]:
    """The caller's report, or one that draws a progress bar per stage."""
    if report is not None:
        yield report
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[value]:.3f}")) as progress:
        tasks = {}

        def show(stage: str, done: int, steps: int, value: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps, value=value)
            progress.update(tasks[stage], completed=done, total=steps, value=value)

        yield show
