"""A weak draft model on purpose: two layers that have read the training text, and nothing of their target's.

The bundled draft model is cut out of its target and distilled on the target's own text, which is kind to everything
that leans on guesses. This one is what a small model of the same family is: trained beside the target, by next-token
cross-entropy on the same code and documentation strings, with the target's tokenizer. Measurements that are to hold for
ordinary draft models are taken with it, too.

    out/             an ordinary Hugging Face directory, usable as a draft model, with a measured card
    out/training/    plan and checkpoint; may be deleted afterwards

A run that was killed goes on when it is called again with the same `out`. The same interpreter, torch and seed give the
same files, whatever the number of threads.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models.python_text import Module, prompts_from, standard_library
from nacre.training.bpe import save_tokenizer
from nacre.training.cards import Provenance, text_draft_card
from nacre.training.corpus import token_stream
from nacre.training.evaluate import Acceptance, held_out_loss, race_acceptance
from nacre.training.lean_llama import LeanLlama, Shape, load_hugging_face, load_of_recipe, save_hugging_face
from nacre.training.loop import Report, checked_steps, keep_plan, silent
from nacre.training.parallel import Workers
from nacre.training.pretrain import PHASES, Phase, train_on_text

TEMPERATURES = (1.0, 0.7, 0.0)
LAYERS = 2
#: Every fourth excerpt of `prompts_from` begins with the English of a documentation string.
_KINDS = {"code": 0, "prose": 3}
_EVERY = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the draft is and how its figures are taken; `prompts` of each kind of text."""

    hidden: int
    heads: int
    intermediate: int
    phases: tuple[Phase, ...]
    steps: int
    module_limit: int
    prompts: int
    prompt_tokens: int
    continuation: int


FULL = Scale(
    hidden=128,
    heads=2,
    intermediate=384,
    phases=PHASES,
    steps=600,
    module_limit=10_000,
    prompts=24,
    prompt_tokens=96,
    continuation=96,
)
# Everything the full recipe does, small enough to try the machinery.
QUICK = Scale(
    hidden=64,
    heads=1,
    intermediate=64,
    phases=(Phase(0.6, 64, 4), Phase(1.0, 128, 2)),
    steps=20,
    module_limit=12,
    prompts=2,
    prompt_tokens=16,
    continuation=16,
)


@dataclass(frozen=True, slots=True)
class TextFigures:
    """Acceptance at one temperature on one kind of held-out text; `beside` is the other draft model's."""

    kind: str
    acceptance: Acceptance
    beside: Acceptance | None


@dataclass(frozen=True, slots=True)
class TextDraftResult:
    """What a finished run measured; the card says the same. `loss` is in nats per token."""

    path: Path
    parameters: int
    loss: float
    figures: tuple[TextFigures, ...]


def train_text_draft(
    out: Path,
    *,
    target: Path,
    beside: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 2,
    quick: bool = False,
    report: Report = silent,
    stop_after: int | None = None,
) -> TextDraftResult | None:
    """Train a draft model for `target`, a directory that the recipe of the bundled pair made, into `out`.

    The target lends its tokenizer, and is asked how good the draft has become; `beside` is another draft model to be
    measured with it. `stop_after` ends training at that step and returns None: calling again continues. Raises
    FailedPrecondition for a target it cannot read, an `out` that holds another plan or something else, and an
    interpreter without its library's source.
    """
    scale = QUICK if quick else FULL
    steps = checked_steps("steps", steps, scale.steps)
    if threads < 1:
        raise InvalidArgument(f"threads is {threads}, must be at least 1", param="threads")
    judge = load_of_recipe(target)
    rival = None if beside is None else load_of_recipe(beside)
    plan = out / "training" / "plan.json"
    if not plan.exists() and out.exists() and any(out.iterdir()):
        raise FailedPrecondition(f"{out} holds something else; choose another directory", param="out")
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    train, held_out = _split(scale.module_limit)
    keep_plan(plan, quick=quick, steps=steps, seed=seed)
    stream = token_stream(tokenizer, train, seed)
    shape = Shape(scale.hidden, LAYERS, scale.heads, scale.intermediate, judge.shape.vocab, judge.shape.max_positions)
    draft = LeanLlama(shape, seed)
    with Workers(threads) as workers:
        train_on_text(
            draft,
            stream,
            stage="text draft",
            steps=steps,
            checkpoint=out / "training" / "draft.safetensors",
            seed=seed,
            workers=workers,
            phases=scale.phases,
            report=report,
            stop_after=stop_after,
        )
        if stop_after is not None and stop_after < steps:
            return None
        save_hugging_face(draft, out, {})
        draft = load_hugging_face(out)  # what is served is rounded to bf16
        unseen = token_stream(tokenizer, held_out, None)
        loss = held_out_loss(draft, unseen, scale.phases[0].length, workers)
        figures = _figures(judge, draft, rival, _prompts(held_out, tokenizer, scale), scale, workers, report)
    warm = [row.acceptance.race_temperature for row in figures if row.acceptance.temperature == 1.0]
    save_hugging_face(draft, out, {"nacre_race_temperature": round(sum(warm) / len(warm), 4)})
    save_tokenizer(tokenizer, out, shape.max_positions)
    made = _provenance(scale, steps, seed, (len(train), len(held_out)), (len(stream), len(unseen)))
    card = text_draft_card(shape, target.resolve().name, made, loss, _rows(figures, beside))
    (out / "README.md").write_text(card, encoding="utf-8")
    return TextDraftResult(out, shape.parameters(), loss, figures)


def _split(limit: int) -> tuple[list[Module], list[Module]]:
    """What is read, and what is held out: the split of the bundled pair."""
    modules = standard_library()
    train = [module for module in modules if not module.held_out][:limit]
    held_out = [module for module in modules if module.held_out][:limit]
    if not train or not held_out:
        raise FailedPrecondition("this interpreter has no standard library source to train on; use another")
    return train, held_out


def _prompts(held_out: Sequence[Module], tokenizer: Tokenizer, scale: Scale) -> dict[str, list[list[int]]]:
    texts = prompts_from(held_out, _EVERY * scale.prompts)
    return {
        kind: [tokenizer.encode(text).ids[: scale.prompt_tokens] for text in texts[first::_EVERY]]
        for kind, first in _KINDS.items()
    }


def _figures(
    judge: LeanLlama,
    draft: LeanLlama,
    rival: LeanLlama | None,
    prompts: dict[str, list[list[int]]],
    scale: Scale,
    workers: Workers,
    report: Report,
) -> tuple[TextFigures, ...]:
    rows: list[TextFigures] = []
    for kind, texts in prompts.items():
        for temperature in TEMPERATURES:
            mine, other = (
                None
                if model is None
                else race_acceptance(judge, model, texts, temperature, workers, depth=scale.continuation)
                for model in (draft, rival)
            )
            assert mine is not None
            rows.append(TextFigures(kind, mine, other))
            report("figures", len(rows), len(prompts) * len(TEMPERATURES), mine.by_children[1])
    return tuple(rows)


def _rows(figures: Sequence[TextFigures], beside: Path | None) -> list[tuple[str, str, Acceptance]]:
    """The lines of the card: kind of text, whose acceptance, the acceptance."""
    rows = []
    for figure in figures:
        rows.append((figure.kind, "this one", figure.acceptance))
        if beside is not None and figure.beside is not None:
            rows.append((figure.kind, beside.resolve().name, figure.beside))
    return rows


def _provenance(scale: Scale, steps: int, seed: int, modules: tuple[int, int], tokens: tuple[int, int]) -> Provenance:
    """`modules` and `tokens` are those read and those held out."""
    return Provenance(
        python=platform.python_version(),
        torch=torch.__version__,
        seed=seed,
        modules=modules[0],
        held_out_modules=modules[1],
        corpus_tokens=tokens[0],
        held_out_tokens=tokens[1],
        target_steps=0,
        target_tokens=0,
        draft_steps=steps,
        draft_tokens=steps * scale.phases[0].rows * scale.phases[0].length,
    )
