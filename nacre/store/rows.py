"""What a store keeps: rows that any table-based proposer can learn from, and the namespace they belong to.

    ngram        context of 1..3 tokens  -> up to 8 (token, weight)      adjacency is the row of a 1-token context
    chunk        context of 2 tokens     -> up to 8 (run of tokens, weight)
    calibration  (source, bucket[, …])   -> how many guesses were judged, and how many came true

A weight is a probability in steps of 1/255. What is written is an observation, not a state: two rows of one key are
merged, whatever their order, into what was seen by both.

Rule: `merged` needs nothing but the two rows, and its result is as small as either bound. Invariant: a merged row is
valid if both were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nacre.errors import InvalidArgument

KINDS = ("ngram", "chunk", "calibration")
MAX_CONTEXT = 3
MAX_ENTRIES = 8
MAX_RUN = 16
MAX_TOKEN = (1 << 24) - 1
MAX_COUNT = (1 << 16) - 1
MAX_WEIGHT = 255
#: Sightings that the past counts for at most when rows are merged: knowledge stays able to change.
MEMORY = 64
#: The tenant of corpora that were built to be shared by all; verifiers never write there.
PUBLIC = "public"
MAX_NAME_CHARS = 256

Entry = tuple[int, int]
Run = tuple[tuple[int, ...], int]


class Row(NamedTuple):
    """One row. `entries` are (token, weight), `runs` (tokens, weight), both heaviest first; `count` sightings.

    A tuple rather than a dataclass: tens of thousands are made when a session is seeded.
    """

    kind: str
    context: tuple[int, ...]
    entries: tuple[Entry, ...] = ()
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    runs: tuple[Run, ...] = ()


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


def calibration(source: int, bucket: int, accepted: int, judged: int) -> Row:
    """`accepted` of `judged` guesses of a source, of one feature bucket, came true."""
    return Row("calibration", (source, bucket), ((accepted, 0),), judged)


def check(row: Row) -> Row:
    """Raises InvalidArgument naming what no store could keep."""
    kind, context, entries, count, runs = row
    if kind not in KINDS:
        raise InvalidArgument(f"a row's kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    if not 1 <= len(context) <= MAX_CONTEXT:
        raise InvalidArgument(f"a row's context has {len(context)} tokens; it must have 1 to {MAX_CONTEXT}")
    if not 1 <= count <= MAX_COUNT:
        raise InvalidArgument(f"a row's count is {count}; it must be 1 to {MAX_COUNT}")
    if max(len(entries), len(runs)) > MAX_ENTRIES:
        raise InvalidArgument(f"a row has {max(len(entries), len(runs))} entries; it may have {MAX_ENTRIES}")
    if (entries if kind == "chunk" else runs) or not (runs if kind == "chunk" else entries):
        raise InvalidArgument(
            f"a row of kind {kind} must have {'runs' if kind == 'chunk' else 'entries'} and only them"
        )
    tokens = [*context, *(token for token, _ in entries)]
    for run, _ in runs:
        if not 1 <= len(run) <= MAX_RUN:
            raise InvalidArgument(f"a run has {len(run)} tokens; it must have 1 to {MAX_RUN}")
        tokens += run
    if min(tokens) < 0 or max(tokens) > MAX_TOKEN:
        raise InvalidArgument(f"a row names token {min(tokens)} or {max(tokens)}; ids must be 0 to {MAX_TOKEN}")
    for _, weight in (*entries, *runs):
        if not 0 <= weight <= MAX_WEIGHT:
            raise InvalidArgument(f"a row's weight is {weight}; it must be 0 to {MAX_WEIGHT}")
    return row


def merged(older: Row, newer: Row) -> Row:
    """Both observations of one context as one row: weights are means over sightings, counters are sums."""
    count = older.count + newer.count
    if older.kind == "calibration":
        accepted = older.entries[0][0] + newer.entries[0][0]
        while count > MAX_COUNT:  # the ratio is what matters; halving keeps it and forgets slowly
            count, accepted = count // 2, accepted // 2
        return Row("calibration", older.context, ((accepted, 0),), count)
    past, present = min(older.count, MEMORY), min(newer.count, MEMORY)
    count = min(count, MAX_COUNT)
    if older.kind == "chunk":
        return Row("chunk", older.context, (), count, tuple(_mean(older.runs, past, newer.runs, present)))
    return Row("ngram", older.context, tuple(_mean(older.entries, past, newer.entries, present)), count)


def _mean(old: Sequence, past: int, new: Sequence, present: int) -> list:
    """The heaviest of both, weighed by sightings; ties go to the smaller token, so that all readers agree."""
    sums = {what: weight * past for what, weight in old}
    for what, weight in new:
        sums[what] = sums.get(what, 0) + weight * present
    total = past + present
    ranked = sorted(((-((weight + total // 2) // total), what) for what, weight in sums.items()))
    kept = [(what, -weight) for weight, what in ranked[:MAX_ENTRIES] if weight]
    return kept or [(ranked[0][1], 0)]
