"""Key files: readable by their owner only, and every mistake named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound
from nacre.store.keys import TenantKeys, read_keys, write_key_file
from nacre.store.rows import PUBLIC

GOOD = "ab" * 32


def key_file(folder: Path, text: str) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_written_file_is_read_and_never_written_over(tmp_path: Path):
    path = tmp_path / "keys"
    write_key_file(path, ("*", "acme"))
    keys = read_keys(path)
    assert keys.tenants == ("acme",)
    assert len({keys.key_of(tenant) for tenant in ("acme", "b", "c", PUBLIC)}) == 4
    assert read_keys(path).key_of("b") == keys.key_of("b")
    with pytest.raises(InvalidArgument, match="exists"):
        write_key_file(path)
    with pytest.raises(InvalidArgument, match="cannot write"):
        write_key_file(tmp_path / "no" / "keys")


def test_a_file_others_can_read_is_refused_with_the_remedy(tmp_path: Path):
    path = key_file(tmp_path, f"acme {GOOD}")
    path.chmod(0o640)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        read_keys(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("acme\n", ":1 is no tenant and key"),
        (f"acme {GOOD}\nb xyz\n", ":2 is no tenant and key"),
        ("acme abcd\n", "a key of 2 bytes instead of 32"),
        (f"acme {GOOD}\nacme {GOOD}\n", "names 'acme' twice"),
    ],
)
def test_a_line_that_is_no_key_is_named(tmp_path: Path, text: str, said: str):
    with pytest.raises(FailedPrecondition) as refused:
        read_keys(key_file(tmp_path, text))
    assert said in refused.value.message


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path):
    with pytest.raises(NotFound, match="nacre store key"):
        read_keys(tmp_path / "no")
    with pytest.raises(NotFound, match="no key of tenant 'b'"):
        TenantKeys({"acme": b"a" * 32}).key_of("b")
    with pytest.raises(InvalidArgument, match="everyone reads"):
        TenantKeys({PUBLIC: b"a" * 32})
