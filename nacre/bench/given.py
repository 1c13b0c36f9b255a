"""What some drafting methods are given in the benchmark: a corpus on disk, an answer that is expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nacre.drafting.rest_datastore import build
from nacre.models import standard_library
from nacre.text import Vocabulary

#: The datastore of `rest` has one in so many of the modules that the target was trained on.
REST_ONE_IN = 3
#: The prediction is the true answer with one token in so many wrong.
DAMAGED_ONE_IN = 16


def write_corpus(path: Path, vocabulary: Vocabulary) -> None:
    """A datastore of a part of the text that the target was trained on; nothing of what the prompts are from."""
    seen = [module for module in standard_library() if not module.held_out][::REST_ONE_IN]
    documents = (vocabulary.encode(module.text(), add_special_tokens=False) for module in seen)
    build(path, documents, vocabulary.fingerprint)


def expected_answer(text: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    """The text with the last of every `DAMAGED_ONE_IN` tokens replaced by the next token id."""
    return tuple(
        (token + 1) % vocab_size if place % DAMAGED_ONE_IN == DAMAGED_ONE_IN - 1 else token
        for place, token in enumerate(text)
    )
