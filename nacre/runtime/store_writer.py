"""What a verifier tells the store: which tokens the target thought likely at each row of a pass, and finished outputs.

Contradicted rows count as much as walked ones: what the target said there is true all the same.

Rule: a pass costs a few references, and finding the best tokens no more than `SEARCH_SHARE` of the time of passes:
where it takes longer, some passes are not looked at. Rows are made when the store's own task comes to them, in the
share of time that is its own, and never if its queue is full by then. Invariant: a session is told of under its own
tenant, and nothing goes to the public tier.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from nacre.errors import InvalidArgument
from nacre.session.observed import Observed, ObservedRow
from nacre.store import PUBLIC, Namespace, Row, Store
from nacre.store.rows import MAX_CONTEXT, MAX_ENTRIES, MAX_WEIGHT, Entry

#: Of the time of passes, for finding what is kept of them; and seconds of it that can be saved up.
SEARCH_SHARE, MOST_SAVED_S = 0.004, 0.25
#: Best tokens of each row that are kept.
KEPT_BEST = MAX_ENTRIES
#: Tenants whose namespaces are at hand; the one named first gives way.
MAX_TENANTS = 1024
#: Less likely tokens weigh nothing in steps of 1/255.
_LEAST_LOGPROB = math.log(0.5 / MAX_WEIGHT)


class StoreWriter:
    """Writes for one target. Raises InvalidArgument if its names cannot be those of a namespace."""

    def __init__(self, store: Store, target: str, revision: str, tokenizer_fingerprint: str) -> None:
        self._store = store
        self._names = (target, revision, tokenizer_fingerprint)
        Namespace("any", *self._names)
        self._namespaces: dict[str, Namespace | None] = {}
        self._saved_s = MOST_SAVED_S

    def keeps(self, tenant: str) -> bool:
        """Whether what sessions of a tenant teach may be stored."""
        return self.namespace_of(tenant) is not None

    @property
    def wants(self) -> bool:
        """Whether the best tokens of the next pass are worth finding; what others ask for can be kept anyway."""
        return self._saved_s >= 0

    def passed(self, seconds: float, searching_s: float) -> None:
        """A pass took `seconds`, `searching_s` of them to find best tokens."""
        self._saved_s = min(MOST_SAVED_S, self._saved_s + SEARCH_SHARE * seconds - searching_s)

    def settled(self, tenant: str, tokens: Sequence[int], observed: Observed) -> None:
        """A pass of a session was resolved; `tokens` is all its text. The first two tokens of a text teach nothing."""
        namespace = self.namespace_of(tenant)
        if namespace is not None and observed.position >= MAX_CONTEXT:
            before = tuple(tokens[observed.position - MAX_CONTEXT : observed.position])
            self._store.write(namespace, _PassRows(before, observed.rows))

    def ended(self, tenant: str, output: Sequence[int]) -> None:
        """A session is over, whoever ended it: what it wrote is text of the target's."""
        namespace = self.namespace_of(tenant)
        if namespace is not None and output:
            self._store.log(namespace, output)

    def namespace_of(self, tenant: str) -> Namespace | None:
        """Whose rows a tenant's are; None for one that can have none."""
        if tenant not in self._namespaces:
            self._namespaces[tenant] = self._new_namespace(tenant)
            while len(self._namespaces) > MAX_TENANTS:
                del self._namespaces[next(iter(self._namespaces))]
        return self._namespaces[tenant]

    def _new_namespace(self, tenant: str) -> Namespace | None:
        try:
            return None if tenant == PUBLIC else Namespace(tenant, *self._names)
        except InvalidArgument:
            return None


class _PassRows(Collection[Row]):
    """N-grams of one pass, for contexts of 1, 2 and 3 tokens: made anew each time they are looked at.

    `before` are the last tokens committed before the pass. Rows without a likely token are left out, so there may be
    fewer than `len`.
    """

    __slots__ = ("_before", "_rows")

    def __init__(self, before: tuple[int, ...], rows: Sequence[ObservedRow]) -> None:
        self._before = before
        self._rows = rows

    def __len__(self) -> int:
        return MAX_CONTEXT * len(self._rows)

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)

    def __iter__(self) -> Iterator[Row]:
        paths: list[tuple[int, ...]] = []
        for index, row in enumerate(self._rows):
            path = (*paths[row.parent][1 - MAX_CONTEXT :], row.token) if index else self._before
            paths.append(path)
            entries = _entries(row.best)
            if entries:
                for length in range(1, MAX_CONTEXT + 1):
                    yield Row("ngram", path[-length:], entries)


def _entries(best: Sequence[tuple[int, float]]) -> tuple[Entry, ...]:
    return tuple(
        [
            (token, min(MAX_WEIGHT, round(MAX_WEIGHT * math.exp(logprob))))
            for token, logprob in best[:KEPT_BEST]
            if logprob > _LEAST_LOGPROB
        ]
    )
