"""REST: what followed the last tokens in a corpus on disk.

Source: REST (He et al. 2024). Guarantee: exact under the race rule, one draw per node. (The released code draws once
per path, so a shared node gets several tries and too much is accepted.) Needs no model and no torch.

Rule: the longest suffix of the text, 16 to 2 tokens, that occurs in the datastore (`rest_datastore`) decides. Of at
most `hits` occurrences, spread evenly over all, the 10 tokens that follow are counted by prefix; the most frequent
prefixes are the tree. No occurrence, no guess. Nothing is learned: a corpus is built on purpose.
"""

from __future__ import annotations

from nacre.drafting.growth import checked_rows, grow_phrases
from nacre.drafting.proposer import Guess, ProposerTraits
from nacre.drafting.rest_datastore import LONGEST, RestDatastore
from nacre.drafting.tail import Tail, TailProposer
from nacre.errors import InvalidArgument

DEPTH = 10
MOST_HITS = 5000


class RestProposer(TailProposer):
    """Trees from a datastore. More `hits` count better and take longer: 64 take a quarter of a millisecond at most."""

    needs_datastore = True

    def __init__(self, datastore: RestDatastore | None = None, *, rows: int = 32, hits: int = 48) -> None:
        if datastore is None:
            raise InvalidArgument("method rest needs a datastore: build one with `nacre store build` and name it")
        if not 1 <= hits <= MOST_HITS:
            raise InvalidArgument(f"hits is {hits}; it must be 1 to {MOST_HITS}")
        super().__init__(LONGEST)
        self._datastore = datastore
        self._rows = checked_rows(rows)
        self._hits = hits

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="rest", shape="tree", batch=1, reach=DEPTH)

    def _guess(self, tail: Tail, last: tuple[int, ...], position: int) -> list[Guess]:
        matched, first, end = self._datastore.find(last)
        if not matched:
            return []
        found = self._datastore.continuations(matched, first, end, self._hits, DEPTH)
        # A match of m tokens is worth m / 2 times its count against what the corpus has never seen.
        return grow_phrases([(tokens, 0.5 * matched) for tokens in found if tokens], self._rows)
