"""What a text is like, in one word out of two dozen: code, or prose in a script or, where that is Latin, a language.

Rule: counting characters and the commonest words is enough to tell which of several drafters may be at home in a text;
nothing here needs a model. A wrong word costs speed and nothing else.

Code is told by its symbols (braces, brackets, operators), which make up a tenth of it and a hundredth of prose, and
where they are few, by the shape of its lines. Prose is told by the script most of its letters have. Japanese is written
in two: some kana among Han characters make it kana.

Bound: only the last `MOST_CHARS` characters are looked at; what follows a text is most like its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from nacre.text.language import LANGUAGES, language_of

MOST_CHARS = 2000

CODE = "code"
LATIN = "latin"  # in a language that is not known, or too short to tell
OTHER = "other"  # no letters, or those of a script without a name here

#: First code point of a block of letters, and its script; what lies between the named blocks is "other".
_BLOCKS = (
    (0x0000, LATIN),
    (0x0250, OTHER),
    (0x0370, "greek"),
    (0x0400, "cyrillic"),
    (0x0530, OTHER),
    (0x0590, "hebrew"),
    (0x0600, "arabic"),
    (0x0700, OTHER),
    (0x0750, "arabic"),
    (0x0780, OTHER),
    (0x08A0, "arabic"),
    (0x0900, "devanagari"),
    (0x0980, OTHER),
    (0x1100, "hangul"),
    (0x1200, OTHER),
    (0x1C80, "cyrillic"),
    (0x1C90, OTHER),
    (0x1E00, LATIN),
    (0x1F00, "greek"),
    (0x2000, OTHER),
    (0x2C60, LATIN),
    (0x2C80, OTHER),
    (0x2DE0, "cyrillic"),
    (0x2E00, OTHER),
    (0x3005, "han"),
    (0x3040, "kana"),
    (0x3100, OTHER),
    (0x3130, "hangul"),
    (0x3190, OTHER),
    (0x31F0, "kana"),
    (0x3200, OTHER),
    (0x3400, "han"),
    (0x4DC0, OTHER),
    (0x4E00, "han"),
    (0xA000, OTHER),
    (0xA720, LATIN),
    (0xA800, OTHER),
    (0xA8E0, "devanagari"),
    (0xA900, OTHER),
    (0xAC00, "hangul"),
    (0xD7B0, OTHER),
    (0xF900, "han"),
    (0xFB00, LATIN),
    (0xFB10, OTHER),
    (0xFB1D, "hebrew"),
    (0xFB50, "arabic"),
    (0xFE00, OTHER),
    (0xFE70, "arabic"),
    (0xFEFF, OTHER),
    (0xFF21, LATIN),
    (0xFF5B, OTHER),
    (0xFF66, "kana"),
    (0xFFA0, "hangul"),
    (0xFFDD, OTHER),
    (0x20000, "han"),
    (0x32000, OTHER),
)
_STARTS = [start for start, _ in _BLOCKS]
#: All words there are.
DOMAINS = (CODE, *sorted({script for _, script in _BLOCKS} - {OTHER}), *LANGUAGES, OTHER)

_SYMBOLS = frozenset("{}[]()<>=;_+*/\\&|#@$^~`%")
_LINE_ENDS = ("{", "}", ";", "(", "[", ":", "\\", "=>", "->")
#: Share of symbols from which a text is code, and from which it is if its lines look like it.
_SURELY, _POSSIBLY = 0.07, 0.03
_CODE_LINES = 0.4
#: A short text has to say more: so many characters without a symbol are thought to precede it.
_MODESTY = 40
#: Share of kana among kana and Han characters from which a text is Japanese.
_KANA = 0.1


def domain_of(text: str) -> str:
    """One of `DOMAINS`, by the last `MOST_CHARS` characters: long texts take no longer."""
    tail = text[-MOST_CHARS:]
    counts = Counter(tail)
    if _is_code(tail, counts):
        return CODE
    script = _script(counts)
    return language_of(tail) or LATIN if script == LATIN else script


def _is_code(tail: str, counts: Counter[str]) -> bool:
    visible = sum(count for char, count in counts.items() if not char.isspace())
    share = sum(counts[char] for char in _SYMBOLS) / (visible + _MODESTY)
    if share < _POSSIBLY:
        return False
    return share >= _SURELY or _lines_like_code(tail) >= _CODE_LINES


def _lines_like_code(tail: str) -> float:
    """Share of lines that are indented or end as statements do."""
    lines = [line for line in tail.splitlines() if line.strip()]
    alike = sum(line.startswith(("  ", "\t")) or line.rstrip().endswith(_LINE_ENDS) for line in lines)
    return alike / max(1, len(lines))


def _script(counts: Counter[str]) -> str:
    letters: Counter[str] = Counter()
    for char, count in counts.items():
        if char.isalpha():
            letters[_BLOCKS[bisect_right(_STARTS, ord(char)) - 1][1]] += count
    if not letters:
        return OTHER
    east = letters["han"] + letters["kana"]
    if east and letters["kana"] >= _KANA * east:
        letters["kana"], letters["han"] = east, 0
    return max(letters, key=lambda script: letters[script])
