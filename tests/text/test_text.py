"""Tokens to text: whole characters, stop strings, and the same result however the tokens are cut into commits."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from nacre.errors import FailedPrecondition
from nacre.text import Vocabulary
from nacre.text.output import Detokenizer, OutputText, Released, find_stop, held_back
from tests.gateway import toy_target


@functools.cache
def byte_level() -> Vocabulary:
    return Vocabulary(toy_target.tokenizer_json())


@functools.cache
def sentencepiece_like() -> Vocabulary:
    """As Llama 2 has it: words begin with a mark, rare characters are runs of byte tokens, a leading space is cut."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁the", "▁pearl", "s", "é", "▁▁", "n", "▁n", "acre", ".", "東"]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return Vocabulary(tokenizer.to_str().encode())


def detokenized(vocabulary: Vocabulary, ids: list[int]) -> str:
    detokenizer = Detokenizer(vocabulary)
    return "".join(detokenizer.push(token) for token in ids) + detokenizer.finish()


@pytest.mark.parametrize("vocabulary", [byte_level(), sentencepiece_like()], ids=["byte level", "byte fallback"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_text_released_token_by_token_is_the_decoding_of_the_whole(vocabulary: Vocabulary, data: st.DataObject) -> None:
    size = 400 if vocabulary.byte_level else 270
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=60))
    assert detokenized(vocabulary, ids) == vocabulary.decode(ids)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_real_text_is_released_in_whole_characters_only(text: str) -> None:
    vocabulary = byte_level()
    ids = vocabulary.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(vocabulary)
    shown = ""
    for token in ids:
        shown += detokenizer.push(token)
        assert text.startswith(shown)
    assert shown + detokenizer.finish() == text


def test_a_long_run_of_bytes_is_not_held_back_for_ever() -> None:
    vocabulary = sentencepiece_like()
    run = [3 + byte for byte in "🦪".encode() * 100]
    detokenizer = Detokenizer(vocabulary)
    shown = "".join(detokenizer.push(token) for token in run)
    assert len(shown) >= 80
    assert shown + detokenizer.finish() == "🦪" * 100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 399), max_size=30))
def test_the_bytes_of_all_tokens_joined_are_the_bytes_of_the_text(ids: list[int]) -> None:
    vocabulary = byte_level()
    joined = b"".join(vocabulary.token_bytes(token) for token in ids)
    assert joined.decode("utf-8", "replace") == vocabulary.decode(ids)


def test_a_token_that_is_no_whole_character_is_spelled_in_bytes() -> None:
    vocabulary = byte_level()
    first, *_ = vocabulary.encode("é", add_special_tokens=False)[:1] or [0]
    half = next(token for token in range(1, 400) if vocabulary.token_bytes(token) == b"\xf0")
    assert vocabulary.token_text(half) == "bytes:\\xf0"
    assert vocabulary.token_text(first) == "é"
    assert vocabulary.token_text(vocabulary.encode("A", add_special_tokens=False)[0]) == "A"


def test_a_file_that_is_no_tokenizer_is_refused_in_one_line() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Vocabulary(b'{"model": 7}')
    assert "\n" not in caught.value.message


def test_a_length_limit_inside_the_tokenizer_file_does_not_cut_prompts() -> None:
    tokenizer = Tokenizer.from_str(toy_target.tokenizer_json().decode())
    tokenizer.enable_truncation(3)
    vocabulary = Vocabulary(tokenizer.to_str().encode())
    assert len(vocabulary.encode("a b c d e f g h", add_special_tokens=False)) > 3


def released(vocabulary: Vocabulary, ids: list[int], stops: list[str]) -> tuple[list[Released], OutputText, int]:
    output = OutputText(vocabulary, stops)
    parts: list[Released] = []
    used = 0
    for token in ids:
        parts.append(output.push(token, -1.0))
        used += 1
        if output.stopped:
            break
    parts.append(output.finish())
    return parts, output, used


def first_stop(text: str, stops: list[str]) -> int:
    """By definition: the shortest prefix that ends with a stop string, and the longest such string there."""
    for end in range(len(text) + 1):
        matching = [stop for stop in stops if text[:end].endswith(stop)]
        if matching:
            return end - max(map(len, matching))
    return len(text)


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="ab n", max_size=40), stops=st.lists(st.text("ab n", min_size=1, max_size=4), max_size=4))
def test_text_ends_right_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]) -> None:
    vocabulary = byte_level()
    ids = [vocabulary.encode(char, add_special_tokens=False)[0] for char in text]
    parts, output, _ = released(vocabulary, ids, stops)
    end = first_stop(text, stops)
    assert "".join(part.text for part in parts) == text[:end]
    assert output.stopped == (end < len(text))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_entries_follow_the_text_and_none_leaks_past_a_stop_string(seed: int) -> None:
    drawn = random.Random(seed)
    vocabulary = byte_level()
    ids = [drawn.randrange(1, toy_target.vocab_size()) for _ in range(30)]
    whole = vocabulary.decode(ids)
    start = drawn.randrange(len(whole))
    stop = whole[start : start + drawn.randrange(1, 5)]
    parts, output, used = released(vocabulary, ids, [stop])
    assert output.stopped
    shown = "".join(part.text for part in parts)
    entries = [entry for part in parts for entry in part.entries]
    assert [entry.token for entry in entries] == ids[: len(entries)]
    assert len(entries) <= used
    assert all(entry.start < len(shown) for entry in entries)
    assert [entry.start for entry in entries] == sorted(entry.start for entry in entries)
    following = ids[len(entries)] if len(entries) < used else None
    if following is not None:  # the first token left out begins at or after the cut
        assert len(detokenized(vocabulary, ids[: len(entries)])) >= len(shown)


def test_what_may_become_a_stop_string_is_held_back_and_nothing_else() -> None:
    assert held_back("the pea", ["pearl"]) == 3
    assert held_back("the pearl", ["pearl"]) == 0
    assert held_back("aaa", ["aab"]) == 2
    assert held_back("text", []) == 0
    assert find_stop("abc", ["abc", "b"]) == 1
    assert find_stop("xab", ["ab", "xab"]) == 0


def test_a_stop_string_across_token_borders_is_found() -> None:
    vocabulary = byte_level()
    ids = [token for piece in ("ab", "c", "de", "f") for token in vocabulary.encode(piece, add_special_tokens=False)]
    parts, output, used = released(vocabulary, ids, ["cd"])
    assert output.stopped
    assert "".join(part.text for part in parts) == "ab"
    assert used < len(ids)


def test_a_stop_string_that_only_the_end_of_the_text_completes_still_stops() -> None:
    vocabulary = byte_level()
    half = vocabulary.encode("東", add_special_tokens=False)[:1]
    parts, output, _ = released(vocabulary, [*vocabulary.encode("a", add_special_tokens=False), *half], ["\ufffd"])
    assert output.stopped
    assert "".join(part.text for part in parts) == "a"
