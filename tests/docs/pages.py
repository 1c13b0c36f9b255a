"""The project's Markdown, read as a reader would use it: code blocks, links, tables, what stands in backticks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)
_HEADING = re.compile(r"^(#+) +(.*?) *#*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block. `language` is the first word of its info line, `tags` are the others."""

    page: Path
    line: int
    language: str
    tags: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All blocks of a language, in all pages."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        language, *tags = match["info"].split() or [""]
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, tuple(tags), match["body"])


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands in single backticks; a line break inside is a space."""
    return _INLINE.findall(re.sub(r"(?<=\S)\n(?=\S)", " ", prose(page)))


def links(page: Path) -> list[str]:
    """Targets of links that stay inside the repository."""
    without_code = _INLINE.sub("", prose(page))
    return [target for target in _LINK.findall(without_code) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as hosts of repositories make them."""
    found = set()
    for _, title in _HEADING.findall(prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    text = page.read_text("utf-8")
    start = next(match for match in _HEADING.finditer(text) if match[2] == title)
    for following in _HEADING.finditer(text, start.end()):
        if len(following[1]) <= len(start[1]):
            return text[start.end() : following.start()]
    return text[start.end() :]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows but the headings'."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.pop()  # what stood above the rule was the heading
        else:
            found.append(cells)
    return found


def commands(shell: str) -> list[list[str]]:
    """The simple commands of a shell text as words, without variables set before them and without redirections."""
    lexer = shlex.shlex(shell.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) <= set("|&;\n"):
            found.append([])
        elif set(word) <= set("<>"):
            next(words)
        elif found[-1] or not re.match(r"[A-Z_]+=", word):
            found[-1].append(word)
    return [command for command in found if command]
