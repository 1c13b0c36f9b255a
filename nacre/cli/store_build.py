"""`nacre store build`: a datastore for method `rest` from text that was written before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nacre.cli import options as flags


def build(
    corpus: Annotated[list[Path], typer.Argument(help="Text files, folders of them, or .jsonl files.")],
    out: Annotated[Path, flags.word("--out", "The datastore to write.", "FILE")],
    target: flags.Target = None,
    field: Annotated[str, flags.word("--field", "What holds the text in a line of .jsonl.", "NAME")] = "text",
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Build a datastore from a corpus: what method `rest` guesses from. It fits one tokenizer, the target's.

    Takes memory for 40 bytes a token while it sorts, and 8 bytes a token on disk.

    \b
    nacre store build docs src --out corpus.rest
    nacre store build answers.jsonl --field completion --target ./my-model --out corpus.rest
    """
    from nacre.cli.corpus_files import CorpusFiles
    from nacre.cli.output import Steps, note, print_json
    from nacre.drafting.rest_datastore import build as write
    from nacre.errors import NotFound, ResourceExhausted
    from nacre.text.vocabulary import Vocabulary

    if not out.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {out.absolute().parent} for {out}; make it first")
    vocabulary = Vocabulary(_tokenizer(target, config).read_bytes())
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
    if files.left_out:
        note(f"{len(files.left_out)} files are no text and were left out, the first is {files.left_out[0]}")
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
