"""REST: a corpus on disk, refused when it is not the right one, and trees of what is frequent in it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess
from nacre.drafting.rest import RestProposer
from nacre.drafting.rest_datastore import HEADER_BYTES, RestDatastore, build, suffix_array
from nacre.errors import FailedPrecondition, InvalidArgument, NotFound
from nacre.sampling import SamplingParams
from nacre.sim.dice import Dice

NAME = "f00d"


def built(folder: Path, documents: Sequence[Sequence[int]]) -> Path:
    path = folder / "corpus.rest"
    build(path, documents, NAME)
    return path


def guesses(path: Path, tokens: Sequence[int], **settings: int) -> list[Guess]:
    proposer = RestProposer(RestDatastore(path, NAME), **settings)
    proposer.open(1, DraftContext(tuple(tokens), len(tokens), SamplingParams(), None))
    (found,) = proposer.propose([Expansion(1, 0, (), ())])
    return found


def test_the_most_frequent_continuations_of_the_longest_match_are_the_tree(tmp_path: Path) -> None:
    path = built(tmp_path, [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6], [9, 2, 7], [2, 7]])
    found = guesses(path, [8, 1, 2])
    # "1 2" was followed by 3 twice and 6 once; "2 7" is not asked, for "1 2" is longer. A match of 2 weighs 1.
    assert {guess.token: guess.survival for guess in found if guess.parent == TIP} == pytest.approx(
        {3: 2 / 4, 6: 1 / 4}
    )
    assert [guess.token for guess in found] == [3, 6, 4, 5]
    assert [guess.token for guess in guesses(path, [8, 1, 2], rows=1)] == [3]


def test_no_occurrence_no_guess_and_no_match_across_documents(tmp_path: Path) -> None:
    path = built(tmp_path, [[1, 2, 3], [4, 5, 6]])
    assert guesses(path, [7, 8]) == guesses(path, [3, 4]) == guesses(path, [3]) == guesses(path, [5, 6]) == []
    assert [guess.token for guess in guesses(path, [4, 5])] == [6]


@pytest.mark.parametrize("seed", range(8))
def test_it_finds_what_a_search_finds(seed: int, tmp_path: Path) -> None:
    dice = Dice(seed)
    documents = [[dice.below(4) for _ in range(dice.below(60))] for _ in range(6)] + [[1, 2]]
    store = RestDatastore(built(tmp_path, documents), NAME)
    for _ in range(40):
        tail = [dice.below(4) for _ in range(1 + dice.below(20))]
        expected: list[list[int]] = []
        length = 0
        for n in range(min(16, len(tail)), 1, -1):
            expected = [
                d[i + n : i + n + 3] for d in documents for i in range(len(d) - n + 1) if d[i : i + n] == tail[-n:]
            ]
            if expected:
                length = n
                break
        matched, first, last = store.find(tail)
        assert matched == length
        if matched:
            assert sorted(store.continuations(matched, first, last, 5000, 3)) == sorted(expected)
            assert len(store.continuations(matched, first, last, 4, 3)) <= 4


def test_the_suffix_array_is_sorted_by_sixteen_tokens() -> None:
    text = np.array([Dice(3).child(i).below(3) for i in range(300)], dtype=np.uint32)
    order = suffix_array(text).tolist()
    keys = [text[i : i + 16].tolist() for i in order]
    assert sorted(order) == list(range(300))
    assert keys == sorted(keys)


def test_another_tokenizers_datastore_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="was built for tokenizer f00d, the target has beef: build it again"):
        RestDatastore(built(tmp_path, [[1, 2, 3]]), "beef")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no datastore at"):
        RestDatastore(tmp_path / "none", NAME)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        RestDatastore(tmp_path, NAME)


@pytest.mark.parametrize("length", [0, 5, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 9])
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    path = built(tmp_path, [[1, 2, 3]])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FailedPrecondition, match=r"is no datastore|bytes where"):
        RestDatastore(path, NAME)


@pytest.mark.parametrize("place", [*range(0, HEADER_BYTES - 4, 7), HEADER_BYTES, HEADER_BYTES + 20, -1])
def test_a_flipped_bit_anywhere_is_refused(place: int, tmp_path: Path) -> None:
    path = built(tmp_path, [[1, 2, 3, 4]])
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(FailedPrecondition):
        RestDatastore(path, NAME)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = built(tmp_path, [[1, 2, 3]])
    data = bytearray(path.read_bytes())
    data[8:12] = struct.pack("<I", 9)
    path.write_bytes(data)
    with pytest.raises(FailedPrecondition, match="has version 9, this program reads 1"):
        RestDatastore(path, NAME)


@pytest.mark.parametrize(
    ("documents", "name", "message"),
    [
        ([], NAME, "the corpus has no tokens"),
        ([[], []], NAME, "the corpus has no tokens"),
        ([[1, -1]], NAME, "token ids outside"),
        ([[1, 1 << 32]], NAME, "token ids outside"),
        ([[1]], "", "fingerprint has 0 bytes"),
        ([[1]], "x" * 97, "fingerprint has 97 bytes"),
    ],
)
def test_what_cannot_be_built_is_refused_and_leaves_no_file(
    documents: list[list[int]], name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        build(tmp_path / "corpus", documents, name)
    assert list(tmp_path.iterdir()) == []


def test_the_proposer_says_what_it_needs() -> None:
    with pytest.raises(InvalidArgument, match="method rest needs a datastore"):
        RestProposer()
