"""`nacre store` with a snapshot and with a real Redis: what goes out comes back, and only where it fits."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.auth import ApiKeys
from nacre.engine.loading import weights_revision
from nacre.ids import tenant_name, tokenizer_fingerprint
from nacre.models import bundled
from nacre.store import LocalStore, Namespace, Row
from nacre.store.keys import write_key_file
from nacre.store.store import Store
from tests.cli.conftest import Nacre
from tests.store.redis_server import RedisServer

DEMO = tokenizer_fingerprint(bundled("demo-target") / "tokenizer.json")
SPACE = Namespace("acme", "target", "r1", DEMO)
OTHER = Namespace("other", "target", "r1", "f" * 32)
#: As a verifier that serves the bundled target would name it.
SERVED = Namespace("acme", "demo-target", weights_revision(bundled("demo-target")), DEMO)


def fill(store: Store, spaces: Sequence[Namespace] = (SPACE, OTHER)) -> None:
    async def work() -> None:
        for space in spaces:
            await store.put(space, [Row("ngram", (number,), ((9, 255),), 2) for number in range(10)], [(1, 2, 3)])
        await store.close()

    asyncio.run(work())


@pytest.fixture
def snapshot() -> Path:
    path = Path("rows")
    fill(LocalStore(snapshot=path))
    return path


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def test_a_snapshot_is_shown_exported_imported_and_purged(nacre: Nacre, snapshot: Path):
    told = json.loads(nacre("store", "stats", "--snapshot", snapshot, "--json").out)
    assert (told["kind"], told["rows"], len(told["namespaces"])) == ("local", 20, 2)
    assert "10 rows  acme/target@r1" in nacre("store", "stats", "--snapshot", snapshot, "--tenant", "acme").out
    out = json.loads(nacre("store", "export", "file", "--snapshot", snapshot, "--tenant", "acme", "--json").out)
    assert (out["rows"], out["outputs"], out["namespaces"]) == (10, 1, 1)
    merged = nacre("store", "import", "file", "--snapshot", "new", "--json")
    assert json.loads(merged.out)["rows"] == 10
    assert "no model is named (--model)" in merged.err
    assert json.loads(nacre("store", "stats", "--snapshot", "new", "--json").out)["rows"] == 10
    assert nacre("store", "purge", "--tenant", "acme", "--snapshot", snapshot).out == "acme: 10 rows removed\n"
    left = json.loads(nacre("store", "stats", "--snapshot", snapshot, "--json").out)
    assert [space["tenant"] for space in left["namespaces"]] == ["other"]


def test_a_damaged_snapshot_is_told_and_left_alone(nacre: Nacre, snapshot: Path):
    data = snapshot.read_bytes()
    snapshot.write_bytes(data[:-1])
    assert "is damaged: its checksum is wrong" in nacre("store", "stats", "--snapshot", snapshot).mistake()
    assert "is damaged" in nacre("store", "purge", "--tenant", "acme", "--snapshot", snapshot).mistake()
    assert snapshot.read_bytes() == data[:-1]


def test_rows_of_the_model_are_taken(nacre: Nacre):
    fill(LocalStore(snapshot=Path("rows")), [SERVED])
    nacre("store", "export", "file", "--snapshot", "rows")
    merged = nacre("store", "import", "file", "--snapshot", "new", "--model", "demo-target")
    assert merged.out == f"10 rows and 1 outputs merged into 1 namespaces\n  {SERVED}\n"


@pytest.mark.parametrize("known", ["by a flag", "by the settings"])
def test_rows_of_another_target_or_revision_are_refused_by_name(nacre: Nacre, snapshot: Path, known: str):
    nacre("store", "export", "file", "--snapshot", snapshot, "--tenant", "acme")
    flags = ["--model", "demo-target"]
    if known == "by the settings":
        flags = []
        Path("nacre.toml").write_text('[verifier]\ntarget = "demo-target"\n')
    message = nacre("store", "import", "file", "--snapshot", "new", *flags).mistake()
    assert "these rows are of target@r1" in message
    assert f"demo-target is demo-target@{SERVED.revision}" in message
    assert "--other-models adopt" in message
    assert not Path("new").exists()


def test_rows_of_another_revision_are_adopted_only_when_told(nacre: Nacre, snapshot: Path):
    nacre("store", "export", "file", "--snapshot", snapshot, "--tenant", "acme")
    there = ["--snapshot", "new", "--other-models", "adopt"]
    assert "say which with --model" in nacre("store", "import", "file", *there).mistake()
    adopted = nacre("store", "import", "file", *there, "--model", "demo-target", "--json")
    assert json.loads(adopted.out)["namespaces"] == [str(SERVED)]
    told = json.loads(nacre("store", "stats", "--snapshot", "new", "--json").out)
    assert [(space["target"], space["revision"], space["rows"]) for space in told["namespaces"]] == [
        ("demo-target", SERVED.revision, 10)
    ]


@pytest.mark.parametrize("others", ["refuse", "adopt"])
def test_rows_of_another_tokenizer_are_never_a_models_own(nacre: Nacre, snapshot: Path, others: str):
    nacre("store", "export", "file", "--snapshot", snapshot, "--tenant", "other")
    flags = ["--model", "demo-target", "--other-models", others]
    message = nacre("store", "import", "file", "--snapshot", "new", *flags).mistake()
    assert f"tokenizer_fingerprint {'f' * 32}" in message
    assert not Path("new").exists()


def test_a_whole_store_is_moved_as_it_is(nacre: Nacre, snapshot: Path):
    Path("nacre.toml").write_text('[verifier]\ntarget = "demo-target"\n')
    nacre("store", "export", "file", "--snapshot", snapshot)
    moved = nacre("store", "import", "file", "--snapshot", "new", "--other-models", "keep", "--json")
    assert sorted(json.loads(moved.out)["namespaces"]) == sorted(map(str, (SPACE, OTHER)))
    assert json.loads(moved.out)["rows"] == 20


def test_redis_is_shown_exported_imported_and_purged(nacre: Nacre, redis_server: RedisServer, snapshot: Path):
    write_key_file(Path("keys"), ("acme", "*"))
    there = ["--url", redis_server.url, "--key-file", "keys"]
    nacre("store", "export", "file", "--snapshot", snapshot)
    assert json.loads(nacre("store", "import", "file", *there, "--json").out)["rows"] == 20
    told = json.loads(nacre("store", "stats", *there, "--json").out)
    assert told["kind"] == "redis"
    assert [space["tenant"] for space in told["namespaces"]] == ["acme"]  # those the key file names
    out = json.loads(nacre("store", "export", "again", *there, "--tenant", "other", "--json").out)
    assert (out["rows"], out["outputs"]) == (10, 1)
    assert "keys removed" in nacre("store", "purge", "--tenant", "acme", *there).out
    assert json.loads(nacre("store", "stats", *there, "--json").out)["namespaces"] == []


def test_a_redis_that_cannot_be_asked_is_one_line(nacre: Nacre, redis_server: RedisServer):
    write_key_file(Path("keys"))
    there = ["--url", redis_server.url, "--key-file", "keys"]
    assert "say which with --tenant" in nacre("store", "export", "file", *there).mistake()
    redis_server.kill()
    for command in (["stats"], ["export", "file", "--tenant", "a"], ["purge", "--tenant", "a"]):
        assert "cannot be reached" in nacre("store", *command, *there).mistake()
    for url, said in (
        ("http://h", "redis://host:6379/0"),
        ("redis://h/abc", "redis://host:6379/0"),
        ("redis://h?socket_timeout=x", "option 'socket_timeout'"),
        ("unix:///s?decode_responses=yes", "option 'decode_responses'"),
        ("redis://h?ssl_cert_reqs=none", "with rediss://"),
    ):
        assert said in nacre("store", "stats", "--url", url, "--key-file", "keys").mistake(), url


def test_what_a_key_file_without_names_cannot_tell_is_said(nacre: Nacre, redis_server: RedisServer, snapshot: Path):
    write_key_file(Path("keys"))
    there = ["--url", redis_server.url, "--key-file", "keys"]
    nacre("store", "export", "file", "--snapshot", snapshot)
    nacre("store", "import", "file", *there)
    told = nacre("store", "stats", *there)
    assert "no rows in the public tier" in told.out
    assert "say --tenant NAME" in told.err
    assert "10 rows  acme/target@r1" in nacre("store", "stats", *there, "--tenant", "acme").out


def test_the_name_of_a_tenant_is_told(nacre: Nacre, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NACRE_API_KEY", "secret")
    name = nacre("store", "tenant").out
    assert name == f"{tenant_name('secret')}\n"
    assert json.loads(nacre("store", "tenant", "--json").out) == {"tenant": name.strip()}
    assert ApiKeys(("other", "secret")).tenant("Bearer secret") == name.strip()
    monkeypatch.delenv("NACRE_API_KEY")
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert nacre("store", "tenant").out == name
    assert "no API key was given" in nacre("store", "tenant").mistake()


def test_a_snapshot_that_is_not_there_is_not_made_by_a_purge(nacre: Nacre):
    assert (
        "there is no snapshot rows yet" in nacre("store", "purge", "--tenant", "acme", "--snapshot", "rows").mistake()
    )
    assert not Path("rows").exists()


def test_a_snapshot_in_use_is_not_changed(nacre: Nacre, snapshot: Path):
    before = snapshot.read_bytes()
    with LocalStore(snapshot=snapshot).claimed():
        assert "stop it first" in nacre("store", "purge", "--tenant", "acme", "--snapshot", snapshot).mistake()
        assert json.loads(nacre("store", "stats", "--snapshot", snapshot, "--json").out)["rows"] == 20
    assert snapshot.read_bytes() == before


@pytest.mark.parametrize("name", ["two words", "#1", "public", ""])
def test_a_key_file_has_only_names_that_can_be_read_back(nacre: Nacre, name: str):
    assert "cannot be a tenant's name" in nacre("store", "key", "keys", "--tenant", name).mistake()
    assert not Path("keys").exists()


def test_a_key_file_is_the_owners_and_made_once(nacre: Nacre):
    assert json.loads(nacre("store", "key", "keys", "--json").out) == {"file": "keys", "tenant": "*"}
    assert os.stat("keys").st_mode & 0o077 == 0
    assert "keys exists" in nacre("store", "key", "keys").mistake()


def test_a_url_is_shown_without_its_password(nacre: Nacre, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NACRE_STORE_URL", "redis://user:secret@host:6379/0")
    out = nacre("config", "show", "--service", "store").out
    assert "secret" not in out
    assert "redis://(set)@host:6379/0" in out
