"""Model cards: what a model of the recipes is, how it was made, and its figures on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacre.training.evaluate import Acceptance
from nacre.training.lean_llama import Shape

_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
"""

_REMAKE = """## Make it again

`nacre train demo-pair` runs the whole recipe: corpus, tokenizer, target, distillation, these cards. The
training text is the Python standard library's source (Python Software Foundation License).
"""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a pair was made: enough to make it again."""

    python: str
    torch: str
    seed: int
    modules: int
    held_out_modules: int
    corpus_tokens: int
    held_out_tokens: int
    target_steps: int
    target_tokens: int
    draft_steps: int
    draft_tokens: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on the held-out modules."""

    short_window: int
    target_loss: float
    long_window: int
    target_long_loss: float
    draft_loss: float
    pair: tuple[Acceptance, ...]


def target_card(shape: Shape, made: Provenance, figures: Figures) -> str:
    return f"""{_HEAD}# demo-target

A {_millions(shape.parameters())}-parameter Llama that writes plausible Python: the target of Nacre's
bundled pair. It exists so that speculative generation can be shown, tested and measured with real models and
no download. It knows nothing but the Python standard library; do not use it for anything else.

{_shape_table(shape)}
## Training

{_data(made)}

Next-token cross-entropy over {made.target_steps:,} steps ({_millions(made.target_tokens)} tokens), on
windows of up to {shape.max_positions:,} tokens; Muon for the matrices, Adam for the rest; fp32, saved
as bf16.

## Measured on held-out modules

| windows | loss, nats per token |
|---|---|
| {figures.short_window:,} tokens | {figures.target_loss:.3f} |
| {figures.long_window:,} tokens | {figures.target_long_loss:.3f} |

{_acceptance(figures.pair)}
{_REMAKE}"""


def draft_card(shape: Shape, target: Shape, made: Provenance, figures: Figures) -> str:
    headline = next(row for row in figures.pair if row.temperature == 1.0)
    return f"""{_HEAD}# demo-draft

A {_millions(shape.parameters())}-parameter Llama distilled from `demo-target`
({_millions(target.parameters())} parameters): the draft model of Nacre's bundled pair. It shares the target's
tokenizer and is of use only beside it.

{_shape_table(shape)}
`nacre_race_temperature` in config.json is {headline.race_temperature:.3f}:
softmax(perturbed scores / that) is the likeliest estimate, over the target's held-out continuations at T = 1,
of which token the target picks.

## Training

{_data(made)}

Started as the target with layers and its least active neurons left out, then distilled for
{made.draft_steps:,} steps ({_millions(made.draft_tokens)} tokens) on windows of the corpus, on text
sampled from the target and, late in the run, on text of its own that the
target judged. Loss: forward Kullback-Leibler divergence, blended late into total variation.
Muon and Adam; fp32, saved as bf16.

## Measured on held-out modules

Loss {figures.draft_loss:.3f} nats per token (windows of {figures.short_window:,} tokens).

{_acceptance(figures.pair)}
{_REMAKE}"""


def text_draft_card(
    shape: Shape, target: str, made: Provenance, loss: float, rows: Sequence[tuple[str, str, Acceptance]]
) -> str:
    """`rows` are kind of text, name of the draft model, and its acceptance there."""
    children = sorted(rows[0][2].by_children)
    cells = [
        [
            kind,
            name,
            _temperature(row),
            *(f"{row.by_children[count]:.3f}" for count in children),
            f"{row.overlap:.3f}",
            f"{row.repeated_4grams:.2f}",
        ]
        for kind, name, row in rows
    ]
    heads = ["text", "draft model", "T", *_counted(children), "1 - TV", "repeated 4-grams"]
    return f"""{_HEAD}# A weak draft model

A {_millions(shape.parameters())}-parameter Llama of {shape.layers} layers beside `{target}`, whose tokenizer it has. It
has read the training text and nothing of its target's: a draft model that is weak on purpose, to measure with.

{_shape_table(shape)}
## Training

The standard library of Python {made.python}: {made.modules} modules, {_millions(made.corpus_tokens)} tokens of code
and its documentation; a further {made.held_out_modules} modules ({made.held_out_tokens:,} tokens) were kept from it.

Next-token cross-entropy over {made.draft_steps:,} steps ({_millions(made.draft_tokens)} tokens); no distillation.
Muon for the matrices, Adam for the rest; fp32, saved as bf16. Seed {made.seed}, torch {made.torch}.

## Measured on held-out modules

Loss {loss:.3f} nats per token.

Race acceptance of guesses on the target's own continuations of held-out code and of held-out documentation strings
({rows[0][2].positions:,} places each): how often the target's token is among the draft model's best.

{_table(heads, cells)}

Small models loop when greedy, and looping text is easy to draft: read T = 0 beside its repeated 4-grams.

## Make it again

`nacre train text-draft`; the training text is the Python standard library's source (Python Software Foundation
License).
"""


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def _shape_table(shape: Shape) -> str:
    return f"""| | |
|---|---|
| parameters | {shape.parameters():,} |
| layers | {shape.layers} |
| hidden size | {shape.hidden} ({shape.heads} heads) |
| MLP neurons | {shape.intermediate} |
| vocabulary | {shape.vocab:,} (byte-level BPE, tied embeddings) |
| positions | {shape.max_positions:,} |
"""


def _data(made: Provenance) -> str:
    return f"""The standard library of Python {made.python}: {made.modules} modules,
{_millions(made.corpus_tokens)} tokens; tests, codec and generated tables left out. A further
{made.held_out_modules} modules ({made.held_out_tokens:,} tokens), one name in twelve
by a stable hash, were kept from the tokenizer and from both models (`held_out.json`).
Seed {made.seed}, torch {made.torch}."""


def _acceptance(pair: Sequence[Acceptance]) -> str:
    children = sorted(pair[0].by_children)
    depths = range(len(pair[0].by_depth))
    by_children = [
        [
            _temperature(row),
            *(f"{row.by_children[count]:.3f}" for count in children),
            f"{row.overlap:.3f}",
            f"{row.race_temperature:.3f}",
            f"{row.repeated_4grams:.2f}",
        ]
        for row in pair
    ]
    by_depth = [[_temperature(row), *(f"{rate:.3f}" for rate in row.by_depth)] for row in pair]
    return f"""Race acceptance of the draft's guesses on the target's own continuations of held-out prompts
({pair[0].positions:,} places): how often the target's token is among the draft's best.

{_table(["T", *_counted(children), "1 - TV", "race temperature", "repeated 4-grams"], by_children)}

By depth (one child; given that all before were accepted):

{_table(["T", *(str(depth + 1) for depth in depths)], by_depth)}

Small models loop when greedy, and looping text is easy to draft: read T = 0 beside its repeated 4-grams.
"""


def _counted(children: Sequence[int]) -> list[str]:
    return [f"{count} child" if count == 1 else f"{count} children" for count in children]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _temperature(row: Acceptance) -> str:
    return "0 (greedy)" if row.temperature == 0 else f"{row.temperature:g}"
