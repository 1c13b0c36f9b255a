"""Which language a text in Latin script is written in, told by its commonest words.

Rule: a language is named only if its function words are frequent and clearly more so than any other's; short texts and
other languages have no name. A wrong name costs speed and nothing else.
"""

from __future__ import annotations

import re

_WORDS = {
    "dutch": "de het een en van is niet dat op te zijn met voor er aan ook die was bij naar om maar hij uit over",
    "english": "the of and to a in is that for it was with as be on this are by not he you at from or have which if an",
    "french": "le la les et est des une un du de pas que qui dans pour sur avec ne au ce il plus par vous nous sont à",
    "german": "der die das und ist nicht ein eine zu den mit von sich auf für dem auch wird im des sie es ich wir als",
    "italian": "il la di che è un una per non con sono del della si le dei gli lo in e da al come anche ma nel alla",
    "portuguese": "o a os as e é um uma que não para com em do da dos se por mais como foi ao na no ou das são sua",
    "spanish": "el la los las y es un una que en por con no para se del lo como de al más su pero fue son está una",
}
_FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
LANGUAGES = tuple(sorted(_WORDS))

#: Function words there must be, their share of all words, and how many times as many as of the next language.
_LEAST_WORDS, _LEAST_SHARE, _CLEARLY = 4, 0.15, 1.3
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str | None:
    """One of `LANGUAGES`; None if the words do not tell."""
    words = _WORD.findall(text.lower())
    counts = {language: sum(word in known for word in words) for language, known in _FUNCTION_WORDS.items()}
    first, second = sorted(counts, key=lambda language: counts[language], reverse=True)[:2]
    if counts[first] < max(_LEAST_WORDS, _LEAST_SHARE * len(words), _CLEARLY * counts[second]):
        return None
    return first
