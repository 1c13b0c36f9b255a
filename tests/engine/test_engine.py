"""The engine from outside: right logits, bounded memory, typed errors that harm nobody else."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch

from nacre.engine import TIP, Engine, LoadedModel, RowBlock, conformance
from nacre.errors import InvalidArgument, NacreError, NotFound, ResourceExhausted

VOCABULARY = 96
TEXT = tuple(random.Random(5).randrange(VOCABULARY) for _ in range(60))


def chunk(engine: Engine, sequence: int, tokens: Sequence[int]) -> None:
    engine.step([RowBlock(sequence, tuple(tokens), logits_from=len(tokens), commit=True)])


def truth(loaded: LoadedModel, tokens: Sequence[int]) -> torch.Tensor:
    """The plain model's logits after the last token."""
    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].float()


# -- logits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", ["packed", "torch"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt_oss", "gpt2", "llama4"])
def test_every_row_of_a_tree_gets_the_plain_models_logits(
    family: str, linear: str, new_engine: Callable[..., Engine], plain: Callable[..., LoadedModel]
) -> None:
    engine, loaded = new_engine(family, linear=linear), plain(family)
    me, other = engine.open("me", ()), engine.open("other", ())
    engine.step([RowBlock(me, TEXT[:9], logits_from=9, commit=True), RowBlock(other, TEXT[30:34], commit=True)])
    first = engine.next_row(me)
    tree = RowBlock(me, (3, 4, 5, 6, 7), (TIP, first, first, first + 2, TIP))
    paths = [(3,), (3, 4), (3, 5), (3, 5, 6), (7,)]
    result = engine.step([RowBlock(other, (1, 2)), tree])
    assert result.row_ids[1] == range(first, first + 5)
    engine.advance(me, (first, first + 2))
    after = engine.step([RowBlock(me, (8, 9), (first + 3, TIP))])
    got = torch.cat([result.logits[2:], after.logits])
    for row, path in zip(got, [*paths, (3, 5, 6, 8), (3, 5, 9)], strict=True):
        expected = truth(loaded, TEXT[:9] + path)
        assert row.dtype == torch.float32
        assert float((row - expected).abs().max()) < 1e-4 * max(1.0, float(expected.abs().max()))
        assert int(row.argmax()) == int(expected.argmax())


def test_bf16_stays_close_to_the_plain_model(
    new_engine: Callable[..., Engine], plain: Callable[..., LoadedModel]
) -> None:
    engine, loaded = new_engine("llama", "bfloat16"), plain("llama", "bfloat16")
    me = engine.open("me", ())
    row = engine.step([RowBlock(me, TEXT[:20], logits_from=19, commit=True)]).logits[0]
    expected = truth(loaded, TEXT[:20])
    assert float((row - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_only_the_rows_that_ask_get_logits_in_block_order(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    a, b, c = (engine.open(name, ()) for name in "abc")
    blocks = [RowBlock(a, TEXT[:5], logits_from=4, commit=True), RowBlock(b, TEXT[:3], logits_from=3, commit=True)]
    result = engine.step([*blocks, RowBlock(c, TEXT[:5], logits_from=3)])
    assert result.logits.shape == (3, VOCABULARY)
    assert torch.equal(result.logits[0], result.logits[2])
    assert result.row_ids == (range(5), range(3), range(5))
    assert engine.step([RowBlock(b, (1,), logits_from=1)]).logits.shape == (0, VOCABULARY)


def test_a_model_that_cannot_run_packed_says_why_and_still_serves(
    new_engine: Callable[..., Engine], plain: Callable[..., LoadedModel]
) -> None:
    engine = new_engine("llama4")
    assert not engine.info.tree_mode
    assert "llama4_text" in engine.info.tree_refusal
    assert engine.info.numerics == "exact/recompute/fp32"
    me = engine.open("me", ())
    chunk(engine, me, TEXT[:30])
    both = engine.step([RowBlock(me, (4, 5))])
    engine.advance(me, both.row_ids[0][:1])
    again = engine.step([RowBlock(me, (5,))])
    assert torch.equal(both.logits[1], again.logits[0])
    assert torch.equal(again.logits[0], truth(plain("llama4"), (*TEXT[:30], 4, 5)))


def test_a_class_wrongly_taken_to_conform_is_caught_on_the_model_itself(
    new_engine: Callable[..., Engine], plain: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "check", lambda _: conformance.Verdict(True, "", 0.0))
    engine = new_engine("llama4")
    assert not engine.info.tree_mode
    assert "are not those of the plain model" in engine.info.tree_refusal
    me = engine.open("me", ())
    row = engine.step([RowBlock(me, TEXT[:20], logits_from=19, commit=True)]).logits[0]
    torch.testing.assert_close(row, truth(plain("llama4"), TEXT[:20]), rtol=1e-4, atol=1e-4)


# -- memory --------------------------------------------------------------------------------------------------


def small_engine(new_engine: Callable[..., Engine], slots: int) -> Engine:
    probe = new_engine(exact=False)
    return new_engine(exact=False, kv_bytes=slots * (probe.info.kv_bytes // probe.use().slots))


def test_the_pool_never_exceeds_its_bytes_and_makes_room_by_evicting(new_engine: Callable[..., Engine]) -> None:
    engine = small_engine(new_engine, 100)
    assert engine.use().slots == 100
    sequences = [engine.open(f"tenant-{index}", ()) for index in range(6)]
    for sequence in sequences:
        chunk(engine, sequence, TEXT[:45])
    assert [engine.cached(sequence) for sequence in sequences] == [0, 0, 0, 0, 45, 45]
    for sequence in sequences:
        engine.close(sequence)
    use = engine.use()
    assert use.free_slots + use.idle_block_slots == 100


def test_an_evicted_sequence_can_be_opened_again_and_reuses_what_is_left(new_engine: Callable[..., Engine]) -> None:
    engine = small_engine(new_engine, 60)
    me, other = engine.open("me", ()), engine.open("other", ())
    chunk(engine, me, TEXT[:40])
    chunk(engine, other, TEXT[:30])
    assert engine.cached(me) == 0
    with pytest.raises(InvalidArgument, match="no uncommitted row"):
        engine.step([RowBlock(me, (1, 2), (TIP, 0))])
    assert engine.reopen(me, TEXT[:40]) == 16
    engine.close(other)
    chunk(engine, me, TEXT[16:40])
    assert engine.cached(me) == 40


def test_a_block_that_cannot_fit_is_refused_and_the_others_go_ahead(new_engine: Callable[..., Engine]) -> None:
    engine = small_engine(new_engine, 50)
    me, big = engine.open("me", ()), engine.open("big", ())
    chunk(engine, me, TEXT[:30])
    blocks = [RowBlock(me, (1, 2)), RowBlock(big, TEXT[:40], commit=True)]
    with pytest.raises(ResourceExhausted, match="raise kv_bytes"):
        engine.step(blocks)
    assert engine.cached(me) == 30
    admission = engine.admit(blocks)
    assert admission.accepted == (blocks[0],)
    assert [block.sequence for block, _ in admission.refused] == [big]
    assert engine.step(admission.accepted).logits.shape[0] == 2


def test_a_pass_that_fails_inside_the_model_leaves_no_trace(
    new_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(exact=False)
    me, other = engine.open("me", ()), engine.open("other", ())
    chunk(engine, me, TEXT[:10])
    free = engine.use().free_slots

    def fail(*_: object) -> torch.Tensor:
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forward", fail)
        with pytest.raises(MemoryError):
            engine.step([RowBlock(me, (1, 2)), RowBlock(other, TEXT[:5], commit=True)])
    assert engine.use().free_slots == free
    assert (engine.cached(me), engine.cached(other), engine.next_row(me)) == (10, 0, 10)
    assert engine.step([RowBlock(me, (1, 2))]).row_ids == (range(10, 12),)


def test_too_many_sequences_are_refused(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(exact=False, max_sequences=2)
    first = engine.open("a", ())
    engine.open("a", ())
    with pytest.raises(ResourceExhausted, match="the bound is 2"):
        engine.open("a", ())
    engine.close(first)
    engine.open("a", ())


# -- bad input -----------------------------------------------------------------------------------------------

BAD_BLOCKS: dict[str, tuple[Callable[[int], RowBlock], type[NacreError], str]] = {
    "unknown sequence": (lambda me: RowBlock(99, (1,)), NotFound, "sequence 99 is not open"),
    "no rows": (lambda me: RowBlock(me, ()), InvalidArgument, "no rows"),
    "token too large": (lambda me: RowBlock(me, (1, 96)), InvalidArgument, r"tokens\[1\] is 96; .* 0\.\.95"),
    "negative token": (lambda me: RowBlock(me, (-1,)), InvalidArgument, r"tokens\[0\] is -1"),
    "parent count": (lambda me: RowBlock(me, (1, 2), (TIP,)), InvalidArgument, "1 parents for 2 rows"),
    "parent unknown": (lambda me: RowBlock(me, (1,), (77,)), InvalidArgument, r"parents\[0\] .* is 77"),
    "parent is itself": (lambda me: RowBlock(me, (1, 2), (TIP, 5)), InvalidArgument, r"parents\[1\] .* is 5"),
    "parent committed": (lambda me: RowBlock(me, (1,), (2,)), InvalidArgument, r"parents\[0\] .* is 2"),
    "parent below the tip mark": (lambda me: RowBlock(me, (1,), (-2,)), InvalidArgument, r"parents\[0\] .* is -2"),
    "logits_from": (lambda me: RowBlock(me, (1, 2), logits_from=3), InvalidArgument, "logits_from is 3"),
    "branching chunk": (
        lambda me: RowBlock(me, (1, 2), (TIP, TIP), commit=True),
        InvalidArgument,
        "must be a chain from the tip",
    ),
    "context": (lambda me: RowBlock(me, (1,) * 253, commit=True), InvalidArgument, "257 tokens; .* context is 256"),
}


@pytest.mark.parametrize("case", BAD_BLOCKS)
def test_a_bad_block_is_refused_by_name_and_harms_no_other(case: str, new_engine: Callable[..., Engine]) -> None:
    make, error, message = BAD_BLOCKS[case]
    engine = new_engine(exact=False)
    me, good = engine.open("me", ()), engine.open("good", ())
    chunk(engine, me, TEXT[:4])
    bad, fine = make(me), RowBlock(good, TEXT[:4], commit=True)
    before = engine.use()
    for attempt in (lambda: engine.validate(bad), lambda: engine.step([fine, bad])):
        with pytest.raises(error, match=message) as caught:
            attempt()
        assert "\n" not in caught.value.message
    assert engine.use() == before
    admission = engine.admit([bad, fine])
    assert admission.accepted == (fine,)
    assert engine.step(admission.accepted).logits.shape[0] == 4


def test_the_context_bound_counts_the_depth_of_a_tree_not_its_rows(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(exact=False)
    me = engine.open("me", ())
    chunk(engine, me, TEXT[:50] * 5)
    engine.step([RowBlock(me, tuple(range(40)), (TIP,) * 40)])
    engine.step([RowBlock(me, (1,) * 6)])
    with pytest.raises(InvalidArgument, match="257 tokens"):
        engine.step([RowBlock(me, (1,) * 7)])
    with pytest.raises(InvalidArgument, match="257 tokens"):
        engine.step([RowBlock(me, (1,), (engine.next_row(me) - 1,))])


def test_two_blocks_of_one_sequence_and_an_empty_pass_are_refused(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(exact=False)
    me = engine.open("me", ())
    with pytest.raises(InvalidArgument, match="two blocks"):
        engine.step([RowBlock(me, (1,)), RowBlock(me, (2,))])
    with pytest.raises(InvalidArgument, match="at least one block"):
        engine.step([])


def test_prompts_outside_vocabulary_or_context_are_refused_at_open(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(exact=False)
    with pytest.raises(InvalidArgument, match=r"tokens\[2\] is 96"):
        engine.open("me", (1, 2, 96))
    with pytest.raises(InvalidArgument, match="has 257 tokens; the model's context is 256"):
        engine.open("me", (1,) * 257)


# -- identity ------------------------------------------------------------------------------------------------


def test_info_describes_the_model(new_engine: Callable[..., Engine]) -> None:
    info = new_engine("llama", "bfloat16").info
    assert (info.vocab_size, info.max_positions, info.eos_ids, info.dtype) == (VOCABULARY, 256, (1,), "bfloat16")
    assert info.tree_mode
    assert info.tree_refusal == ""
    assert info.parameters > 10_000
    assert info.kv_bytes <= 1 << 20
    assert len(info.revision) == 16
    assert len(info.tokenizer_fingerprint) == 32


def test_the_fingerprint_changes_with_model_dtype_and_sampler_version(new_engine: Callable[..., Engine]) -> None:
    prints = [
        new_engine(*case, exact=False, versions=versions).info.fingerprint
        for case, versions in (
            (("llama",), ()),
            (("llama", "bfloat16"), ()),
            (("qwen3",), ()),
            (("llama",), ("race-1",)),
            (("llama",), ("race-2",)),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert new_engine("llama", exact=False).info.fingerprint == prints[0]


def test_an_unknown_kind_of_linear_is_refused(new_engine: Callable[..., Engine]) -> None:
    with pytest.raises(InvalidArgument, match="packed, torch"):
        new_engine(linear="int8")
