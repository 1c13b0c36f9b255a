"""Distil a draft model from its target: match the target's whole distribution on the text the target writes.

DistillSpec (Zhou et al. 2024) and on-policy distillation (Agarwal et al. 2024): the batches are windows of
the corpus, of text sampled from the target, and of text the draft wrote itself, judged by the target. The
loss is the forward Kullback-Leibler divergence, blended late into the total variation distance: the race
accepts a first guess with probability at least (1 - TV) / (1 + TV), so that distance is what speed hangs
on.

The draft starts as the target itself with layers and neurons left out (`start_from_target`), embedding
included: it begins in the target's own coordinates and need not learn the language again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nacre.training.corpus import Windows
from nacre.training.lean_llama import Block, Cache, LeanLlama, Shape
from nacre.training.loop import Plan, Report, run_steps, silent
from nacre.training.optimizer import MuonAdam
from nacre.training.parallel import SHARDS, Workers
from nacre.training.pretrain import Curriculum, Phase


@dataclass(frozen=True, slots=True)
class Recipe:
    """Where the text comes from. A chunk is `chunk_rows` sequences of `length` tokens, written at once."""

    phases: tuple[Phase, ...] = (Phase(0.5, 256, 12), Phase(0.9, 512, 6), Phase(1.0, 1024, 4))
    chunks: int = 16
    chunk_rows: int = 64
    length: int = 512
    prompt_lengths: tuple[int, ...] = (16, 64, 160)
    kept_chunks: int = 8
    rows: int = 6
    matrix_rate: float = 0.01
    other_rate: float = 0.002
    total_variation: float = 0.8
    corpus_every: int = 3
    """Every third step sees the corpus, the others generated text."""


def start_from_target(target: LeanLlama, shape: Shape, layers: tuple[int, ...], probe: Tensor) -> LeanLlama:
    """A draft of the target's width made of some of its layers, each MLP cut to its most active neurons on
    `probe`.
    """
    draft = LeanLlama(shape)
    assert len(layers) == shape.layers
    assert shape.hidden == target.shape.hidden
    strengths = _neuron_strengths(target, probe)
    with torch.no_grad():
        draft.embedding.copy_(target.embedding)
        draft.norm.copy_(target.norm)
        for block, source_layer in zip(draft.blocks, layers, strict=True):
            source = target.blocks[source_layer]
            assert isinstance(block, Block)
            assert isinstance(source, Block)
            kept = strengths[source_layer].topk(shape.intermediate).indices.sort().values
            gate, up = source.gate_up.chunk(2)
            block.gate_up.copy_(torch.cat((gate[kept], up[kept])))
            block.down.copy_(source.down[:, kept])
            for name in ("attention_norm", "qkv", "out", "mlp_norm"):
                getattr(block, name).copy_(getattr(source, name))
    return draft


@torch.no_grad()
def _neuron_strengths(model: LeanLlama, probe: Tensor) -> list[Tensor]:
    """Per layer and neuron [intermediate]: root mean square activity times its output column's length."""
    strengths = []
    x = F.embedding(probe, model.embedding)
    cos, sin = model.cos[: probe.shape[1]], model.sin[: probe.shape[1]]
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        x = block.attend(x, cos, sin, None, layer)
        activity = block.activity(x)
        strengths.append(activity.square().mean(dim=(0, 1)).sqrt() * block.down.norm(dim=0))
        x = x + F.linear(activity, block.down)
    return strengths


@torch.no_grad()
def write_text(model: LeanLlama, prompts: Tensor, length: int, temperature: float, seed: int) -> Tensor:
    """Continue `prompts` [rows, time] to `length` tokens by plain sampling; [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    cache = Cache(model.shape, prompts.shape[0], length)
    tokens, last = [prompts], prompts
    for _ in range(length - prompts.shape[1]):
        logits = model.logits(model(last, cache)[:, -1])  # [rows, vocab]
        waits = torch.empty_like(logits).exponential_(generator=generator)
        last = ((logits / temperature).softmax(-1) / waits).argmax(-1, keepdim=True)
        tokens.append(last)
    return torch.cat(tokens, dim=1)


def divergence(teacher: Tensor, student: Tensor, total_variation: float) -> Tensor:
    """(1 - w) KL(teacher, student) + 2 w TV of logits [rows, vocab], mean over rows."""
    log_q = student.log_softmax(-1)
    log_p = teacher.log_softmax(-1)
    p = log_p.exp()
    loss = (1 - total_variation) * (p * (log_p - log_q)).sum(-1)
    if total_variation > 0:
        loss = loss + total_variation * (p - log_q.exp()).abs().sum(-1)
    return loss.mean()


class Distillation:
    """The loss of every step; owns the pool of generated text (ring of chunks, kept in the checkpoint)."""

    def __init__(
        self,
        target: LeanLlama,
        draft: LeanLlama,
        stream: Tensor,
        recipe: Recipe,
        steps: int,
        seed: int,
        workers: Workers,
    ) -> None:
        self._target, self._draft, self._recipe, self._workers = target, draft, recipe, workers
        self._steps, self._seed = steps, seed
        self._corpus = Curriculum(stream, steps, recipe.phases, seed + 10)
        self._prompts = [Windows(stream, size, seed + 20) for size in recipe.prompt_lengths]
        self._refresh = max(1, steps // recipe.chunks)
        empty = torch.zeros(0, recipe.length, dtype=torch.int32)
        self.state: dict[str, Tensor] = {"pool": empty, "chunks": torch.zeros((), dtype=torch.int64)}

    def losses(self, step: int) -> list[Callable[[], Tensor]]:
        """The loss of every shard of the step's batch."""
        if step // self._refresh >= int(self.state["chunks"]):
            self._write_chunk(int(self.state["chunks"]))
        batch = self._corpus.batch(step)[:, :-1] if step % self._recipe.corpus_every == 0 else self._pooled(step)
        late = max(0.0, min(1.0, 2.5 * step / self._steps - 1.0))
        weight = self._recipe.total_variation * late
        return [partial(self._loss, part, weight) for part in batch.chunk(SHARDS)]

    def _loss(self, batch: Tensor, total_variation: float) -> Tensor:
        with torch.no_grad():
            teacher = self._target.logits(self._target(batch)).flatten(0, 1)
        student = self._draft.logits(self._draft(batch)).flatten(0, 1)
        return divergence(teacher, student, total_variation)

    def _pooled(self, step: int) -> Tensor:
        pool = self.state["pool"]
        rows = np.random.default_rng((self._seed, 1, step)).integers(len(pool), size=self._recipe.rows)
        return pool[torch.from_numpy(rows)].long()

    def _write_chunk(self, chunk: int) -> None:
        """Every fourth chunk is colder; after a third of the run, every fourth is the draft's own (on-policy)."""
        recipe = self._recipe
        windows = self._prompts[chunk % len(self._prompts)]
        prompts = windows.batch(chunk * recipe.chunk_rows, recipe.chunk_rows)[:, :-1]
        on_policy = chunk % 4 == 1 and 3 * chunk >= recipe.chunks
        temperature = 0.7 if chunk % 4 == 3 else 1.0
        author = self._draft if on_policy else self._target
        texts = self._workers.map(
            lambda shard: write_text(
                author, shard[1], recipe.length, temperature, seed=(self._seed * 1000 + chunk) * SHARDS + shard[0]
            ),
            enumerate(prompts.chunk(SHARDS)),
        )
        pool = torch.cat((self.state["pool"], *(text.int() for text in texts)))
        self.state["pool"] = pool[-recipe.kept_chunks * recipe.chunk_rows :]
        self.state["chunks"] = torch.tensor(chunk + 1)


def distil_draft(
    target: LeanLlama,
    draft: LeanLlama,
    stream: Tensor,
    *,
    steps: int,
    checkpoint: Path,
    seed: int,
    workers: Workers,
    recipe: Recipe,
    report: Report = silent,
    stop_after: int | None = None,
) -> None:
    """Train `draft` in place to the end of its schedule, continuing from `checkpoint` where it exists."""
    for weight in target.parameters():
        weight.requires_grad_(False)
    parameters = list(draft.named_parameters())
    optimizer = MuonAdam(parameters, matrix_rate=recipe.matrix_rate, other_rate=recipe.other_rate)
    distillation = Distillation(target, draft, stream, recipe, steps, seed, workers)
    run_steps(
        Plan("draft", steps, decay=0.6),
        draft,
        optimizer,
        distillation.losses,
        checkpoint,
        workers,
        report=report,
        extra=distillation.state,
        stop_after=stop_after,
    )
