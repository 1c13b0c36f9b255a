"""What a store keeps: rows that any table-based proposer can learn from, and the namespace they belong to.

    ngram  context of 1..3 tokens  -> up to 8 (token, weight)      adjacency is the row of a 1-token context

A weight is a probability in steps of 1/255. What is written is an observation, not a state: two rows of one key are
merged, whatever their order, into what was seen by both.

Rule: `merged` needs nothing but the two rows, and its result is as small as either bound. Invariant: a merged row is
valid if both were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nacre.errors import InvalidArgument

#: The one kind of row there is.
NGRAM = "ngram"
MAX_CONTEXT = 3
MAX_ENTRIES = 8
MAX_TOKEN = (1 << 24) - 1
MAX_COUNT = (1 << 16) - 1
MAX_WEIGHT = 255
#: Sightings that the past counts for at most when rows are merged: knowledge stays able to change.
MEMORY = 64
#: The tenant of corpora that were built to be shared by all; verifiers never write there.
PUBLIC = "public"
MAX_NAME_CHARS = 256

Entry = tuple[int, int]


class Row(NamedTuple):
    """One row. `kind` is `NGRAM`; `entries` are (token, weight), heaviest first; `count` sightings.

    A tuple rather than a dataclass: tens of thousands are made when a session is seeded.
    """

    kind: str
    context: tuple[int, ...]
    entries: tuple[Entry, ...] = ()
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody calls


@dataclass(frozen=True, slots=True)
class Namespace:
    """Whose rows, for which model. Another revision or tokenizer is another namespace: nothing is ever shared."""

    tenant: str
    target: str
    revision: str
    tokenizer_fingerprint: str

    def __post_init__(self) -> None:
        for name in ("tenant", "target", "tokenizer_fingerprint"):
            if not getattr(self, name):
                raise InvalidArgument(f"a namespace of the store needs a {name}; it is empty", param=name)
        for name in ("tenant", "target", "revision", "tokenizer_fingerprint"):
            value = getattr(self, name)
            if len(value) > MAX_NAME_CHARS or "\0" in value:
                raise InvalidArgument(
                    f"{name} {value[:40]!r}… cannot name a namespace; it must be at most {MAX_NAME_CHARS} characters "
                    "without NUL",
                    param=name,
                )

    def __str__(self) -> str:
        return f"{self.tenant}/{self.target}@{self.revision or '-'}/{self.tokenizer_fingerprint[:8]}"


def check(row: Row) -> Row:
    """Raises InvalidArgument naming what no store could keep."""
    kind, context, entries, count = row
    if kind != NGRAM:
        raise InvalidArgument(f"a row's kind is {kind!r}; it must be {NGRAM!r}")
    if not 1 <= len(context) <= MAX_CONTEXT:
        raise InvalidArgument(f"a row's context has {len(context)} tokens; it must have 1 to {MAX_CONTEXT}")
    if not 1 <= count <= MAX_COUNT:
        raise InvalidArgument(f"a row's count is {count}; it must be 1 to {MAX_COUNT}")
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise InvalidArgument(f"a row has {len(entries)} entries; it must have 1 to {MAX_ENTRIES}")
    tokens = [*context, *(token for token, _ in entries)]
    if min(tokens) < 0 or max(tokens) > MAX_TOKEN:
        raise InvalidArgument(f"a row names token {min(tokens)} or {max(tokens)}; ids must be 0 to {MAX_TOKEN}")
    for _, weight in entries:
        if not 0 <= weight <= MAX_WEIGHT:
            raise InvalidArgument(f"a row's weight is {weight}; it must be 0 to {MAX_WEIGHT}")
    return row


def merged(older: Row, newer: Row) -> Row:
    """Both observations of one context as one row: weights are means over sightings."""
    past, present = min(older.count, MEMORY), min(newer.count, MEMORY)
    count = min(older.count + newer.count, MAX_COUNT)
    return Row(NGRAM, older.context, tuple(_mean(older.entries, past, newer.entries, present)), count)


def _mean(old: Iterable[Entry], past: int, new: Iterable[Entry], present: int) -> list[Entry]:
    """The heaviest of both, weighed by sightings; ties go to the smaller token, so that all readers agree."""
    sums = {token: weight * past for token, weight in old}
    for token, weight in new:
        sums[token] = sums.get(token, 0) + weight * present
    total = past + present
    ranked = sorted(((-((weight + total // 2) // total), token) for token, weight in sums.items()))
    kept = [(token, -weight) for weight, token in ranked[:MAX_ENTRIES] if weight]
    return kept or [(ranked[0][1], 0)]
