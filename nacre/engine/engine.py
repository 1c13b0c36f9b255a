"""The sole owner of a model's forward pass: rows of many sequences in, logits out.

    sequence = engine.open("tenant", prompt)            # reuses the tenant's longest cached prefix
    chunk = prompt[engine.cached(sequence):]
    engine.step([RowBlock(sequence, chunk, logits_from=len(chunk) - 1, commit=True)])
    result = engine.step([RowBlock(sequence, (token, guess_a, guess_b), parents=(TIP, row, row))])
    engine.advance(sequence, path)                      # the accepted rows become the prefix, rivals are freed
    engine.close(sequence)

Rule: a row's logits are a function of the tokens on its path from the sequence's start, and of nothing else:
not of the other rows of the pass, nor of how the prefix came into the cache. `info.numerics` says whether
that was verified bit for bit on this model. `step` validates everything first: when it raises, nothing has
happened.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import transformers
from nacre_kernels import fuse_rowwise, pack_model

from nacre.engine import activations, conformance, numerics
from nacre.engine.fused import FusedForward
from nacre.engine.fused import build as build_fused
from nacre.engine.kv_pool import Held, KvPool, PoolUse
from nacre.engine.loading import LoadedModel
from nacre.engine.numerics import PADDED_ROWS
from nacre.engine.packed import ATTENTION, PackedForward
from nacre.engine.recompute import RecomputeForward
from nacre.engine.rows import TIP, Admission, RowBlock, StepResult
from nacre.engine.scores import best_tokens, draft_scores
from nacre.errors import InvalidArgument, NacreError, Unimplemented
from nacre.sampling import RowContext
from nacre.sampling.race_noise import F32Array, I64Array

DEFAULT_KV_BYTES = 1 << 30
"""Enough for some 500,000 tokens of the bundled target, 8,000 of an 8B model."""

LINEARS = ("packed", "torch")

log = logging.getLogger("nacre.engine")


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a peer may want to know about an engine; all of it goes into the handshake or the fingerprint."""

    model_id: str
    revision: str
    tokenizer_fingerprint: str
    vocab_size: int
    max_positions: int
    eos_ids: tuple[int, ...]
    dtype: str
    device: str
    parameters: int
    numerics: str
    tree_mode: bool
    tree_refusal: str
    kv_bytes: int
    fingerprint: str


class Engine:
    """See the module's docstring. Not thread-safe: one owner calls it, from one thread at a time."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        kv_bytes: int = DEFAULT_KV_BYTES,
        linear: str = "packed",
        exact: bool = True,
        fused: bool = True,
        max_sequences: int = 4096,
        versions: Sequence[str] = (),
    ) -> None:
        """Takes over `loaded` (with `linear="packed"` its linear layers are replaced in place).

        `exact=False` is for draft models, whose bits decide nothing: no padding, no numerics probe, and where the
        model allows it the fused pass in 8 bits (`fused.py`; not with `fused=False` or `linear="torch"`).
        `versions` name whatever else decides tokens (sampler, noise field); they only go into the
        fingerprint.
        """
        if linear not in LINEARS:
            raise InvalidArgument(f"linear {linear!r} is not one of {', '.join(LINEARS)}", param="linear")
        built = (fused and not exact and _build_fused(loaded, kv_bytes, linear)) or _build(
            loaded, kv_bytes, linear, exact
        )
        self._forward = built.forward
        self._keeping: PackedForward | None = None
        mode = numerics.settle(built.forward, loaded, linears=built.linears, exact=exact, provable=built.provable)
        self._pool = KvPool(self._forward.slots, self._forward.slot_bytes, max_sequences)
        safe = conformance.safe_positions(loaded.model.config)
        self._vocab_size = loaded.vocab_size
        self._max_positions = loaded.max_positions if safe is None else min(safe, loaded.max_positions)
        self.info = EngineInfo(
            model_id=loaded.model_id,
            revision=loaded.revision,
            tokenizer_fingerprint=loaded.tokenizer_fingerprint,
            vocab_size=loaded.vocab_size,
            max_positions=self._max_positions,
            eos_ids=loaded.eos_ids,
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(loaded.device),
            parameters=loaded.parameters,
            numerics=mode,
            tree_mode=not built.refusal,
            tree_refusal=built.refusal,
            kv_bytes=self._forward.slots * self._forward.slot_bytes,
            fingerprint=_fingerprint(loaded, mode, versions),
        )

    # -- sequences -------------------------------------------------------------------------------------------

    def open(self, tenant: str, tokens: Sequence[int]) -> int:
        """A new sequence; `cached` says how many of `tokens` (never the last) its tenant has computed before."""
        self._check_text(tokens)
        return self._pool.open(tenant, tokens)

    def reopen(self, sequence: int, tokens: Sequence[int]) -> int:
        """After an eviction: starts over with the committed `tokens` as if newly opened. Returns `cached`."""
        self._check_text(tokens)
        return self._pool.reopen(sequence, tokens)

    def cached(self, sequence: int) -> int:
        """Committed tokens whose keys and values are present. 0 after an eviction: compute the prefix again."""
        return self._pool.held(sequence).length

    def next_row(self, sequence: int) -> int:
        """The id that the sequence's next row will get."""
        return self._pool.held(sequence).next_row

    def advance(self, sequence: int, path: Sequence[int]) -> None:
        """Commits a path of row ids, root first. Descendants of the last stay, other uncommitted rows go."""
        self._pool.advance(sequence, path)

    def close(self, sequence: int) -> None:
        """Frees all that the sequence owns. Its prefix stays in the tenant's cache while there is room."""
        self._pool.close(sequence)

    def use(self) -> PoolUse:
        """How full the KV pool is, in slots of `kv_bytes / slots` bytes."""
        return self._pool.use()

    # -- passes ----------------------------------------------------------------------------------------------

    def admit(self, blocks: Sequence[RowBlock]) -> Admission:
        """Which blocks, in order, can share the next pass, and why the others cannot."""
        sound: list[RowBlock] = []
        refused: list[tuple[RowBlock, NacreError]] = []
        for block in blocks:
            try:
                self.validate(block)
            except NacreError as error:
                refused.append((block, error))
            else:
                sound.append(block)
        fitting = self._pool.admit(sound)
        return Admission(fitting.accepted, (*refused, *fitting.refused))

    def step(self, blocks: Sequence[RowBlock]) -> StepResult:
        """Computes all blocks in one pass. Raises the first refusal of `admit` before anything has changed."""
        if not blocks:
            raise InvalidArgument("a pass needs at least one block", param="blocks")
        for block in blocks:
            self.validate(block)
        placed = self._pool.reserve(blocks)
        try:
            logits = self._forward(placed)
        except BaseException:
            self._pool.abandon(placed)
            raise
        self._pool.complete(placed)
        hidden = self._keeping.hidden if self._keeping is not None else None
        return StepResult(logits, tuple(placement.row_ids for placement in placed), hidden)

    def keep_hidden(self) -> None:
        """From now on passes tell the last hidden states, too. Raises Unimplemented where the way to pass has none."""
        if self._keeping is None:
            if not isinstance(self._forward, PackedForward):
                raise Unimplemented(f"{self.info.model_id!r} does not run packed: its hidden states cannot be had")
            self._forward.keep_hidden()
            self._keeping = self._forward

    def draft_scores(self, logits: F32Array, rows: Sequence[RowContext], top_m: int) -> tuple[I64Array, F32Array]:
        """What a drafter makes of its logits: `nacre.sampling.draft_scores`, by the fastest way there is."""
        return draft_scores(logits, rows, top_m)

    def best_tokens(self, logits: torch.Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
        """The `count` best (token, log-probability) of each row of `logits` [rows, vocab]."""
        return best_tokens(logits, count)

    def validate(self, block: RowBlock) -> None:
        """Raises what is wrong with one block by itself: NotFound or InvalidArgument. Room is another matter."""
        held = self._pool.held(block.sequence)
        count = len(block.tokens)
        if count == 0:
            raise InvalidArgument(f"the block of sequence {held.id} has no rows; leave it out", param="tokens")
        self._check_tokens(block.tokens, "tokens")
        if not 0 <= block.logits_from <= count:
            raise InvalidArgument(
                f"logits_from is {block.logits_from}; a block of {count} rows takes 0..{count}",
                param="logits_from",
            )
        if block.parents and len(block.parents) != count:
            raise InvalidArgument(
                f"{len(block.parents)} parents for {count} rows; give one each, or none for a chain",
                param="parents",
            )
        if block.commit and block.parents and block.parents != (TIP, *range(held.next_row, held.next_row + count - 1)):
            raise InvalidArgument(
                "the rows of a prompt chunk must be a chain from the tip; leave parents out", param="parents"
            )
        deepest = count if block.commit or not block.parents else self._depth(held, block)
        if held.length + deepest > self._max_positions:
            raise InvalidArgument(
                f"sequence {held.id} would reach {held.length + deepest} tokens; the model's context is "
                f"{self._max_positions}; shorten the text",
                param="tokens",
            )

    def _depth(self, held: Held, block: RowBlock) -> int:
        """How far below the tip the block's deepest row lies; checks every parent on the way."""
        depths: list[int] = []
        for index, parent in enumerate(block.parents):
            if parent == TIP:
                depths.append(1)
            elif 0 <= (inside := parent - held.next_row) < index:
                depths.append(depths[inside] + 1)
            elif (row := held.rows.get(parent)) is not None:
                depths.append(len(row.path) + 1)
            else:
                raise InvalidArgument(
                    f"parents[{index}] of sequence {held.id} is {parent}, which is no uncommitted row above it; "
                    f"use {TIP} for the tip or the id of an earlier row",
                    param="parents",
                )
        return max(depths)

    def _check_text(self, tokens: Sequence[int]) -> None:
        self._check_tokens(tokens, "tokens")
        if len(tokens) > self._max_positions:
            raise InvalidArgument(
                f"the text has {len(tokens)} tokens; the model's context is {self._max_positions}; shorten it",
                param="tokens",
            )

    def _check_tokens(self, tokens: Sequence[int], param: str) -> None:
        if tokens and not (min(tokens) >= 0 and max(tokens) < self._vocab_size):
            index, bad = next((i, t) for i, t in enumerate(tokens) if not 0 <= t < self._vocab_size)
            raise InvalidArgument(
                f"{param}[{index}] is {bad}; the model's vocabulary is 0..{self._vocab_size - 1}", param=param
            )


@dataclass(frozen=True, slots=True)
class _Built:
    forward: PackedForward | RecomputeForward | FusedForward
    linears: str
    provable: bool = True
    refusal: str = ""


def _build_fused(loaded: LoadedModel, kv_bytes: int, linear: str) -> _Built | None:
    """The fused pass; None, with the reason in the log, if the model has none."""
    if linear != "packed":
        return None
    try:
        return _Built(build_fused(loaded, kv_bytes=kv_bytes), "fused8")
    except Unimplemented as problem:
        log.info("%s drafts by way of transformers: %s", loaded.model_id, problem.message)
        return None


def _build(loaded: LoadedModel, kv_bytes: int, linear: str, exact: bool) -> _Built:
    """The packed pass if the model's class and the model itself conform, else the slow way with the reason."""
    model = loaded.model
    before = model.config._attn_implementation
    refusal = conformance.check(model.config).refusal
    if not refusal:
        try:
            plain = numerics.plain_logits(loaded)
            model.set_attn_implementation(ATTENTION)
            built, forward = _build_packed(loaded, kv_bytes, linear, exact)
        except Unimplemented as problem:
            refusal = problem.message
        else:
            if numerics.agrees_with(plain, forward, loaded.vocab_size):
                return built
            refusal = f"packed logits of {loaded.model_id!r} are not those of the plain model"
        model.set_attn_implementation(before)
    return _Built(RecomputeForward(model, kv_bytes=kv_bytes), "torch", refusal=refusal)


def _build_packed(loaded: LoadedModel, kv_bytes: int, linear: str, exact: bool) -> tuple[_Built, PackedForward]:
    model, threads = loaded.model, loaded.threads
    # Fused experts see only the rows routed to them: their row count depends on every row of the pass.
    routed = any(parameter.dim() > 2 for parameter in model.parameters())
    left, fused, word = True, False, "torch"
    if linear == "packed":
        report = pack_model(model, threads=threads)
        left = bool(report.left)
        if report.packed:
            word = "mixed" if left else "packed"
        fused = fuse_rowwise(model, threads=threads).mlps > 0
    uniform = not exact or numerics.is_aligned(model, threads) or activations.steady(model, fused)
    min_rows = PADDED_ROWS if exact and (left or not uniform) else 1
    forward = PackedForward(model, kv_bytes=kv_bytes, min_rows=min_rows, threads=threads)
    # Element-wise ops are torch's: its instruction set belongs to the name even where the linears' bits do
    # not care.
    linears = f"{word}-{torch.backends.cpu.get_cpu_capability().lower()}"
    return _Built(forward, linears, provable=not routed and (uniform or threads == 1)), forward


def _fingerprint(loaded: LoadedModel, mode: str, versions: Sequence[str]) -> str:
    """Equal on two engines that are to be trusted to give the same tokens for the same request."""
    parts = (
        loaded.revision,
        loaded.tokenizer_fingerprint,
        mode,
        torch.__version__,
        transformers.__version__,
        *versions,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
