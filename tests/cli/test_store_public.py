"""`nacre store build --public`: what comes often in a corpus is in every tenant's tables, unless it knows better."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nacre.cli.corpus_ngrams import NgramCounts
from nacre.cli.store_build import DEFAULT_ROWS
from nacre.engine.loading import weights_revision
from nacre.errors import InvalidArgument
from nacre.ids import tokenizer_fingerprint
from nacre.models import bundled
from nacre.runtime.store_reader import MOST_PUBLIC_ROWS, StoreReader, table_rows
from nacre.store import PUBLIC, LocalStore, Namespace, Row
from nacre.store.keys import read_keys, write_key_file
from nacre.store.redis_store import RedisStore
from nacre.store.store import Store
from nacre.text.vocabulary import Vocabulary
from tests.cli.conftest import Nacre
from tests.store.redis_server import RedisServer

TARGET = bundled("demo-target")
MODEL = ("demo-target", weights_revision(TARGET), tokenizer_fingerprint(TARGET / "tokenizer.json"))
SHARED, SPACE = Namespace(PUBLIC, *MODEL), Namespace("acme", *MODEL)
TEXT = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n" * 4


def counted(texts: Sequence[Sequence[int]]) -> dict[tuple[int, ...], Counter[int]]:
    """What followed each context of one to three tokens, counted the plain way."""
    found: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for text in texts:
        for length in (1, 2, 3):
            for at in range(length, len(text)):
                found[tuple(text[at - length : at])][text[at]] += 1
    return found


def row_of(context: tuple[int, ...], followers: Counter[int]) -> Row:
    best = sorted(followers.items(), key=lambda item: (-item[1], item[0]))[:8]
    weights = [(token, round(255 * count / followers.total())) for token, count in best]
    return Row("ngram", context, tuple(entry for entry in weights if entry[1]), followers.total())


def tokens(text: str) -> list[int]:
    return Vocabulary((TARGET / "tokenizer.json").read_bytes()).encode(text, add_special_tokens=False)


def taught(store: Store, namespace: Namespace) -> dict[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """What a drafter's tables have of each context after a session of this tenant has begun, and a round."""
    table: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {}

    async def work() -> None:
        reader = StoreReader(store, lambda tag, rows, outputs: table.update(rows))
        await reader.begin(namespace, 1)
        await reader.follow()
        await store.close()

    asyncio.run(work())
    return table


def kept(path: str) -> LocalStore:
    store = LocalStore(snapshot=Path(path))
    store.load()
    return store


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


# -- counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold_tokens", [1, 100, 10_000])
def test_rows_are_those_of_plain_counting(fold_tokens: int) -> None:
    dice = random.Random(1)
    texts = [[dice.choice((0, 1, 2, 3, 40_000)) for _ in range(dice.randrange(60))] for _ in range(50)]
    texts += [list(range(12)), [11, *range(11)]]  # contexts that come once, or twice with many followers
    counts = NgramCounts(fold_tokens=fold_tokens)
    for text in texts:
        counts.add(text)
    found, contexts = counts.rows(10_000)
    expected = {context: followers for context, followers in counted(texts).items() if followers.total() >= 2}
    assert {row.context: row for row in found} == {context: row_of(context, expected[context]) for context in expected}
    assert [row.count for row in found] == sorted((row.count for row in found), reverse=True)
    assert (contexts, counts.tokens, counts.forgotten) == (len(expected), sum(map(len, texts)), 0)
    assert counts.rows(7) == (found[:7], contexts)


def test_too_many_ngrams_cost_the_rarest() -> None:
    counts = NgramCounts(most_pairs=4, fold_tokens=1)
    for text in [[1, 2]] * 10 + [[3, 4], [4, 5], [5, 6], [6, 7]]:
        counts.add(text)
    assert counts.forgotten == 4
    assert counts.rows(10) == ([Row("ngram", (1,), ((2, 255),), 10)], 1)


def test_a_corpus_without_tokens_has_no_rows_and_one_of_impossible_tokens_is_refused() -> None:
    counts = NgramCounts()
    counts.add([])
    counts.add([5])
    assert counts.rows(10) == ([], 0)
    with pytest.raises(InvalidArgument, match="token ids outside 0 to"):
        counts.add([1, 1 << 21])


def test_what_is_built_is_what_readers_take() -> None:
    assert DEFAULT_ROWS == MOST_PUBLIC_ROWS


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_corpus_becomes_rows_that_every_tenant_is_taught(nacre: Nacre) -> None:
    Path("folder").mkdir()
    Path("folder/a.py").write_text(TEXT)
    Path("folder/b.bin").write_bytes(b"\0")
    done = nacre("store", "build", "folder", "--public", "--target", "demo-target", "--snapshot", "rows", "--json")
    expected = {context: row_of(context, found) for context, found in counted([tokens(TEXT)]).items()}
    expected = {context: row for context, row in expected.items() if row.count >= 2}
    assert json.loads(done.out) == {
        "tenant": "public",
        "target": MODEL[0],
        "revision": MODEL[1],
        "tokenizer_fingerprint": MODEL[2],
        "rows": len(expected),
        "contexts": len(expected),
        "tokens": len(tokens(TEXT)),
        "documents": 1,
        "files": 1,
        "left_out": 1,
    }
    assert "1 files could not be used as text" in done.err
    assert len(expected) > 20
    assert taught(kept("rows"), SPACE) == dict(table_rows(list(expected.values())))
    assert taught(kept("rows"), Namespace("acme", "demo-target", "another", MODEL[2])) == {}


def test_a_tenants_own_rows_win(nacre: Nacre) -> None:
    Path("a.txt").write_text(TEXT)
    nacre("store", "build", "a.txt", "--public", "--snapshot", "rows")
    before = taught(kept("rows"), SPACE)
    context = next(iter(before))
    own = Row("ngram", context, ((999, 255),), 2)

    async def write() -> None:
        store = kept("rows")
        await store.put(SPACE, [own])
        await store.close()

    asyncio.run(write())
    assert taught(kept("rows"), SPACE) == {**before, **dict(table_rows([own]))}
    assert taught(kept("rows"), Namespace("other", *MODEL)) == before


def test_the_most_frequent_contexts_are_kept(nacre: Nacre) -> None:
    Path("a.txt").write_text(TEXT)
    told = nacre("store", "build", "a.txt", "--public", "--rows", "3", "--snapshot", "rows").out
    assert told.startswith(f"{SHARED}: 3 rows, of ")
    most = sorted((followers.total() for followers in counted([tokens(TEXT)]).values()), reverse=True)[:3]

    async def counts() -> list[int]:
        return [row.count async for page in kept("rows").pages(SHARED) for row in page]

    assert sorted(asyncio.run(counts()), reverse=True) == most


def test_a_redis_serves_them_to_a_tenant_with_its_own_key_only(nacre: Nacre, redis_server: RedisServer) -> None:
    Path("a.txt").write_text(TEXT)
    write_key_file(Path("keys"))
    write_key_file(Path("acme.key"), ("acme",))
    there = ["--url", redis_server.url, "--key-file", "keys"]
    done = nacre("store", "build", "a.txt", "--public", *there, "--json")
    assert "build again before" in done.err
    (told,) = json.loads(nacre("store", "stats", *there, "--json").out)["namespaces"]
    assert (told["tenant"], told["target"]) == ("public", "demo-target")
    store = RedisStore(redis_server.url, read_keys(Path("acme.key")), timeout_s=5.0)
    assert len(taught(store, SPACE)) == json.loads(done.out)["rows"]
    assert "keys removed" in nacre("store", "purge", "--tenant", "public", *there).out
    assert json.loads(nacre("store", "stats", *there, "--json").out)["namespaces"] == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"ab\0cd", "a.bin is no text: it has zero bytes"),
        ("a.txt", b"abc\xff\xfe", "a.txt is no UTF-8 text (byte 3)"),
        ("a.jsonl", b'{"text": 7}', "a.jsonl:1 has no text under 'text'"),
        ("a.txt", b"", "the corpus has 0 tokens and nothing in it comes twice"),
    ],
)
def test_what_is_no_text_is_told_and_nothing_is_written(nacre: Nacre, name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    done = nacre("store", "build", name, "--public", "--snapshot", "rows")
    assert done.code == 2
    assert message in done.err
    assert not Path("rows").exists()


def test_mistakes_are_one_line(nacre: Nacre) -> None:
    Path("a.txt").write_text(TEXT)
    Path("empty").mkdir()
    build = ["store", "build", "a.txt"]
    assert "--out FILE" in nacre(*build).mistake()
    assert "one of both" in nacre(*build, "--out", "a.rest", "--public").mistake()
    assert "--rows is about the store" in nacre(*build, "--out", "a.rest", "--rows", "5").mistake()
    assert "--snapshot is about the store" in nacre(*build, "--out", "a.rest", "--snapshot", "rows").mistake()
    assert "--rows is 0" in nacre(*build, "--public", "--rows", "0").mistake()
    assert "set url or snapshot" in nacre(*build, "--public").mistake()
    assert "make it first" in nacre(*build, "--public", "--snapshot", "none/rows").mistake()
    there = ["--public", "--snapshot", "rows"]
    assert "there is no file b.txt" in nacre("store", "build", "b.txt", *there).mistake()
    assert "empty has no tokenizer.json" in nacre(*build, *there, "--target", "empty").mistake()
    assert not Path("rows").exists()


def test_a_damaged_snapshot_is_told_before_anything_is_counted(nacre: Nacre) -> None:
    Path("a.txt").write_text(TEXT)
    Path("rows").write_bytes(b"no store")
    assert "is no store file" in nacre("store", "build", "a.txt", "--public", "--snapshot", "rows").mistake()
    assert Path("rows").read_bytes() == b"no store"
