"""The text of the bundled pair: the Python standard library of the running interpreter, split by module.

Rule: whether a module is held out depends on nothing but its dotted name (a stable hash), so every
interpreter, on every machine, at every time, agrees on which text the bundled models never saw. A module
that an interpreter lacks is left out of that interpreter's list; it never moves another one across the
line.

Left out altogether: tests, codec and generated tables, grammar tables, IDLE. Needs no other package.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nacre.errors import InvalidArgument, NotFound

#: Kinds of prompts: code with some documentation, code alone, documentation alone.
TEXTS = ("mixed", "code", "prose")

HELD_OUT_ONE_IN = 12
MAX_MODULE_BYTES = 1_000_000

_LEFT_OUT_FOLDERS = frozenset(
    {
        "__pycache__",
        "_bundled",
        "encodings",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
    }
)
_GENERATED = frozenset({"html.entities", "stringprep", "opcode", "_opcode_metadata", "token", "keyword"})


@dataclass(frozen=True, slots=True)
class Module:
    """One standard library module: its dotted name (`json.decoder`) and the file that holds it."""

    name: str
    path: Path

    @property
    def held_out(self) -> bool:
        return is_held_out(self.name)

    def text(self) -> str:
        """The source, decoded as the interpreter would; '' where it is too long or not decodable."""
        try:
            if self.path.stat().st_size > MAX_MODULE_BYTES:
                return ""
            with tokenize.open(self.path) as file:
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            return ""

    def documentation(self) -> str:
        """Its documentation strings without their indentation, outer ones first; '' where it has none."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a library that is not ours
                tree = ast.parse(self.text())
        except (SyntaxError, ValueError):
            return ""
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
        return "\n\n".join(text for text in found if text)


def is_held_out(name: str) -> bool:
    """True for one module name in twelve, by a hash that no interpreter's `PYTHONHASHSEED` changes."""
    digest = hashlib.sha256(b"nacre held-out split 1\x00" + name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def standard_library(root: Path | None = None) -> list[Module]:
    """Every usable module below `root` (default: the running interpreter's library), sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    return sorted(_modules(root), key=lambda module: module.name)


def _modules(root: Path) -> Iterator[Module]:
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if _LEFT_OUT_FOLDERS.intersection(parts) or any(part.startswith("config-") for part in parts):
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and name not in _GENERATED and not name.startswith("_sysconfigdata"):
            yield Module(name, path)


def prompts_from(modules: Sequence[Module], count: int, *, characters: int = 600, text: str = "mixed") -> list[str]:
    """`count` excerpts of about `characters`, rotating through `modules` and spread evenly over each of them.

    Of text `mixed` every fourth starts at a documentation string; of `code` all start at a line of the source; `prose`
    is cut from documentation alone. Modules with less than four excerpts of such text give none; NotFound if all have,
    InvalidArgument for a text of another name.
    """
    if text not in TEXTS:
        raise InvalidArgument(f"text is {text!r}; it must be one of {', '.join(TEXTS)}")
    read = Module.documentation if text == "prose" else Module.text
    texts = [found for module in modules if len(found := read(module)) >= 4 * characters]
    if not texts:
        raise NotFound("this interpreter has no standard library source to take prompts from; give a prompt")
    rounds = -(-count // len(texts))
    excerpts = []
    for index in range(count):
        turn, place = divmod(index, len(texts))
        start = (len(texts[place]) - 2 * characters) * (2 * turn + 1) // (2 * rounds)
        at_string = text == "mixed" and index % 4 == 3
        excerpts.append(_excerpt(texts[place], start, characters, at_string=at_string))
    return excerpts


def _excerpt(text: str, start: int, characters: int, *, at_string: bool) -> str:
    """About `characters` from the first line (or the first documentation string) after `start`."""
    begin = text.find("\n", start) + 1
    if at_string:
        quotes = text.find('"""', start)
        if 0 <= quotes < len(text) - characters:
            begin = text.rfind("\n", 0, quotes) + 1
    return text[begin : begin + characters]
