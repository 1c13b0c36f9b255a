"""Two tokenizers are the same if they map the same ids to the same tokens."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from nacre.errors import FailedPrecondition, NotFound
from nacre.ids import tokenizer_fingerprint, vocabulary_fingerprint


def save(path: Path, names: list[str], added: tuple[str, ...] = ()) -> Path:
    tokenizer = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[0]))
    tokenizer.add_special_tokens([AddedToken(name) for name in added])
    tokenizer.save(str(path))
    return path


def test_layout_and_name_of_the_file_do_not_matter(tmp_path: Path) -> None:
    one = save(tmp_path / "one.json", ["a", "b", "c"])
    two = tmp_path / "two.json"
    two.write_text(json.dumps(json.loads(one.read_text()), indent=7))
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(str(two))
    assert len(tokenizer_fingerprint(one)) == 32


def test_every_entry_counts(tmp_path: Path) -> None:
    vocabularies = [["a", "b", "c"], ["a", "c", "b"], ["a", "b"], ["a", "b", "d"], ["a", "bc", "c"], ["ab", "", "c"]]
    prints = {tokenizer_fingerprint(save(tmp_path / f"{i}.json", names)) for i, names in enumerate(vocabularies)}
    assert len(prints) == len(vocabularies)


def test_added_tokens_count_and_where_they_are_declared_does_not(tmp_path: Path) -> None:
    plain = save(tmp_path / "plain.json", ["a", "b"])
    added = save(tmp_path / "added.json", ["a", "b"], ("<end>",))
    inside = save(tmp_path / "inside.json", ["a", "b", "<end>"])
    assert tokenizer_fingerprint(added) != tokenizer_fingerprint(plain)
    assert tokenizer_fingerprint(added) == tokenizer_fingerprint(inside)


def test_it_has_a_known_answer() -> None:
    stream = b"\0\0\0\0\1\0\0\0a" + b"\1\0\0\0\2\0\0\0\xc3\xa9"
    assert vocabulary_fingerprint({"é": 1, "a": 0}) == hashlib.sha256(stream).hexdigest()[:32]
    assert vocabulary_fingerprint({"a": 0, "é": 1}) == "d33bb9fd7d6aa3ed6c6dc3a7272ee031"


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no tokenizer file at"):
        tokenizer_fingerprint(tmp_path / "tokenizer.json")
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    with pytest.raises(FailedPrecondition, match="not a readable tokenizer"):
        tokenizer_fingerprint(broken)


def test_it_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = save(tmp_path / "tokenizer.json", ["a", "b"])
    code = (
        "import sys; from nacre.ids import tokenizer_fingerprint as f; print(f(sys.argv[1]));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tokenizer_fingerprint(path)
