"""`nacre store build`: from text that was written before, a datastore for method `rest`, or rows of the public tier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags
from nacre.cli.store_access import KeyFile, Snapshot, Url, in_store, put_rows, store_settings

if TYPE_CHECKING:
    from nacre.cli.corpus_files import CorpusFiles
    from nacre.cli.corpus_ngrams import NgramCounts
    from nacre.text.vocabulary import Vocabulary

#: What readers take of a public tier, and what a namespace in Redis has room for.
DEFAULT_ROWS, MOST_ROWS = 1 << 15, 1 << 18
#: Characters that are tokenized at once; what lies across a cut is not counted.
_PIECE_CHARS = 1 << 20


def build(
    corpus: Annotated[list[Path], typer.Argument(help="Text files, folders of them, or .jsonl files.")],
    out: Annotated[Path | None, flags.word("--out", "Write a datastore for method rest to this file.", "FILE")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Put n-grams into the store's public tier, which all tenants read.")
    ] = False,
    target: flags.Target = None,
    field: Annotated[str, flags.word("--field", "What holds the text in a line of .jsonl.", "NAME")] = "text",
    rows: Annotated[
        int | None, flags.whole("--rows", f"With --public: most rows; default: {DEFAULT_ROWS}.", 1, MOST_ROWS)
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Make guesses out of a corpus: a datastore for method `rest`, or rows of the store's public tier.

    With --out, a file with the corpus and its suffix array, for drafters with method `rest`. It fits one tokenizer, the
    target's. Takes memory for 40 bytes a token while it sorts, and 8 bytes a token on disk.

    With --public, what follows one, two and three tokens: the most frequent contexts that come at least twice, with up
    to 8 followers each. All drafters that learn from the store start with these rows, whoever the tenant is, as long as
    they serve the same target; a tenant's own rows win. Whatever is in the corpus may thus be guessed for everyone, so
    leave out what is secret. Building again merges; `nacre store purge --tenant public` removes. Takes some 400 MB of
    memory at most, besides the largest file.

    \b
    nacre store build docs src --out corpus.rest
    nacre store build answers.jsonl --field completion --target ./my-model --out corpus.rest
    nacre store build docs src --public --target ./my-model --url redis://127.0.0.1:6379/0 --key-file keys
    nacre store build docs --public --snapshot rows --rows 10000
    """
    from nacre.errors import InvalidArgument

    if public == (out is not None):
        raise InvalidArgument(
            "say what to build, one of both: --out FILE, a datastore for method rest, or --public, rows of the store"
        )
    if out is None:
        settings = store_settings(url, key_file, snapshot, config)
        _build_public(corpus, field, target, config, settings, rows or DEFAULT_ROWS, as_json)
        return
    given = {"--rows": rows, "--url": url, "--key-file": key_file, "--snapshot": snapshot}
    stray = [flag for flag, value in given.items() if value is not None]
    if stray:
        raise InvalidArgument(f"{stray[0]} is about the store and --out writes a file; leave out one of them")
    _build_datastore(corpus, field, out, _tokenizer(target, config), as_json)


def _build_datastore(corpus: list[Path], field: str, out: Path, tokenizer: Path, as_json: bool) -> None:
    from nacre.cli.corpus_files import CorpusFiles
    from nacre.cli.output import Steps, print_json
    from nacre.drafting.rest_datastore import build as write
    from nacre.errors import NotFound, ResourceExhausted
    from nacre.text.vocabulary import Vocabulary

    if not out.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {out.absolute().parent} for {out}; make it first")
    vocabulary = Vocabulary(tokenizer.read_bytes())
    files = CorpusFiles(corpus, field)
    documents = 0
    with Steps().step(f"building {out}", files.size_bytes) as advance:

        def tokenized() -> Iterator[list[int]]:
            nonlocal documents
            for text in files.documents(advance):
                documents += 1
                yield vocabulary.encode(text, add_special_tokens=False)

        try:
            tokens = write(out, tokenized(), vocabulary.fingerprint)
        except OSError as error:
            raise ResourceExhausted(f"cannot write {out} ({error.strerror or error})") from None
    _tell_left_out(files)
    done = {
        "file": str(out),
        "tokens": tokens,
        "documents": documents,
        "files": len(files),
        "left_out": len(files.left_out),
        "size_bytes": out.stat().st_size,
        "tokenizer_fingerprint": vocabulary.fingerprint,
    }
    if as_json:
        print_json(done)
        return
    print(f"{out}: {tokens:,} tokens of {documents:,} documents; use it with method rest and datastore = {str(out)!r}")


def _build_public(
    corpus: list[Path], field: str, target: str | None, config: str | None, settings: Any, most: int, as_json: bool
) -> None:
    from nacre.cli.corpus_files import CorpusFiles
    from nacre.cli.corpus_ngrams import NgramCounts
    from nacre.cli.output import note, print_json
    from nacre.cli.served_model import model_or_default
    from nacre.errors import InvalidArgument, NotFound
    from nacre.store import PUBLIC
    from nacre.text.vocabulary import Vocabulary

    if settings.snapshot and not Path(settings.snapshot).expanduser().absolute().parent.is_dir():
        raise NotFound(f"there is no folder for the snapshot {settings.snapshot}; make it first")
    # What cannot be asked is told before anything is begun.
    in_store(settings, lambda store: store.namespaces(PUBLIC), creates=True)
    files = CorpusFiles(corpus, field)
    model = model_or_default(target, config)
    counts = NgramCounts()
    documents = _count(files, Vocabulary(model.tokenizer.read_bytes()), counts)
    found, repeated = counts.rows(most if settings.url else min(most, settings.max_rows))
    if not found:
        raise InvalidArgument(
            f"the corpus has {counts.tokens:,} tokens and nothing in it comes twice; give it more text"
        )
    namespace = model.namespace(PUBLIC)
    # The most frequent last: who reads the newest rows first has them first.
    in_store(settings, lambda store: put_rows(store, namespace, found[::-1], f"writing {namespace}"), creates=True)
    _tell_left_out(files)
    if counts.forgotten:
        note(f"the corpus has more n-grams than are counted at once: {counts.forgotten:,} rare ones were forgotten")
    if settings.url:
        hours = settings.ttl_s / 3600
        note(f"rows in Redis that nobody writes are gone after {hours / 2:g} to {hours:g} hours: build again before")
    done = {
        "tenant": PUBLIC,
        "target": model.target,
        "revision": model.revision,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "rows": len(found),
        "contexts": repeated,
        "tokens": counts.tokens,
        "documents": documents,
        "files": len(files),
        "left_out": len(files.left_out),
    }
    if as_json:
        print_json(done)
        return
    print(
        f"{namespace}: {len(found):,} rows, of {repeated:,} contexts that come at least twice in {counts.tokens:,} "
        f"tokens of {documents:,} documents"
    )


def _count(files: CorpusFiles, vocabulary: Vocabulary, counts: NgramCounts) -> int:
    """All the corpus; returns its number of documents."""
    from nacre.cli.output import Steps

    documents = 0
    with Steps().step("counting n-grams", files.size_bytes) as advance:
        for text in files.documents(advance):
            documents += 1
            for at in range(0, len(text), _PIECE_CHARS):
                counts.add(vocabulary.encode(text[at : at + _PIECE_CHARS], add_special_tokens=False))
    return documents


def _tell_left_out(files: CorpusFiles) -> None:
    from nacre.cli.output import note

    if files.left_out:
        note(
            f"{len(files.left_out)} files could not be used as text, or not to their end; the first is "
            f"{files.left_out[0]}: name it alone to be told why"
        )


def _tokenizer(target: str | None, config: str | None) -> Path:
    """The tokenizer file of a target; without one, of the verifier's settings'."""
    from nacre.cli.model_files import resolve
    from nacre.errors import NotFound
    from nacre.runtime.settings import VerifierSettings, load_settings

    given = {"--target": target, "--config": config}
    arguments = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    source = load_settings(VerifierSettings, "verifier", arguments, prog="nacre store build").settings.target
    file = Path(resolve(source)).expanduser() / "tokenizer.json"
    if not file.is_file():
        raise NotFound(f"{source} is no model directory with a tokenizer.json; give one with --target")
    return file
