"""Text from files, folders and JSON lines, for a datastore or the public tier.

Rules: a file that is named must be text, and is an error if it is not; what is found in a folder is left out and told.
Hidden files and folders are not looked into. The list of files is made, and every named one looked at, before the first
document is handed out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound

#: A document is read whole; a .jsonl file is not.
MAX_FILE_BYTES = 256 << 20
_LOOK_BYTES = 8192


class CorpusFiles:
    """The files of a corpus. `field` holds the text in a line of a `.jsonl` file. Raises NacreError."""

    def __init__(self, named: Sequence[Path], field: str = "text") -> None:
        self._field = field
        self.left_out: list[Path] = []
        self._files: list[Path] = []
        for path in named:
            if path.is_dir():
                self._files += _inside(path)
            else:
                _look_at(path)
                self._files.append(path)
        self._named = frozenset(named)
        if not self._files:
            raise NotFound(f"there are no files in {', '.join(map(str, named))}; give files or folders with text")
        self._sizes = {path: _size_bytes(path) for path in self._files}
        self.size_bytes = sum(self._sizes.values())

    def __len__(self) -> int:
        """Files used, once all documents have been handed out."""
        return len(self._files) - len(self.left_out)

    def documents(self, read: Callable[[int], None] = lambda size_bytes: None) -> Iterator[str]:
        """All texts. `read` is told how many bytes of files each has taken."""
        for path in self._files:
            try:
                if path.suffix == ".jsonl":  # what comes before a bad line is used
                    yield from self._lines(path, read)
                else:
                    yield from self._whole(path, read)
            except (FailedPrecondition, InvalidArgument, NotFound):
                if path in self._named:
                    raise
                self.left_out.append(path)

    def _whole(self, path: Path, read: Callable[[int], None]) -> Iterator[str]:
        try:
            text = _text_of(path)
        finally:
            read(self._sizes[path])
        if text:
            yield text

    def _lines(self, path: Path, read: Callable[[int], None]) -> Iterator[str]:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    read(len(line))
                    if line.strip():
                        yield self._text_in(line, f"{path}:{number}")
        except OSError as error:
            raise FailedPrecondition(f"{path} cannot be read ({error.strerror or error})") from None

    def _text_in(self, line: bytes, where: str) -> str:
        try:
            value = json.loads(line)
        except ValueError:
            raise FailedPrecondition(f"{where} is no JSON; a .jsonl file has one value a line") from None
        text = value.get(self._field) if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise FailedPrecondition(f"{where} has no text under {self._field!r}; say what holds it with --field")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise FailedPrecondition(f"{where} has half of a character (a lone surrogate); leave it out") from None
        return text


def _inside(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _look_at(path: Path) -> None:
    """Raises what is wrong with a file, as far as its beginning tells."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_LOOK_BYTES)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}; give files or folders with text") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read ({error.strerror or error})") from None
    if b"\0" in beginning:
        raise FailedPrecondition(f"{path} is no text: it has zero bytes; leave it out")


def _text_of(path: Path) -> str:
    _look_at(path)
    if _size_bytes(path) > MAX_FILE_BYTES:
        raise InvalidArgument(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; split it, or make a .jsonl file of it")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"{path} is no UTF-8 text (byte {error.start}); convert it, or leave it out") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be read ({error.strerror or error})") from None


def _size_bytes(path: Path) -> int:
    """0 for a file that has gone meanwhile: reading it says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
