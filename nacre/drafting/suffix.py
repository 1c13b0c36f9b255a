"""Suffix decoding: what followed the longest matches of the last tokens, in this session and in those before it.

Source: SuffixDecoding (Oliaro et al. 2024) and SAM-Decoding (Hu et al. 2024). Guarantee: exact (a guess never
decides). Needs no model and no torch.

Rule: matches of the text's last tokens are looked up in the session's own index (prompt and output) and in the corpus
(outputs of earlier sessions, where one is given). Each match of m tokens proposes the tokens that followed it and
weighs m squared / 4; at a node, a child's survival is the weight of the matches that go on with it over the weight of
all that reach the node plus 1, what remains being for tokens never seen there. A match that goes on grows with every
token, so copies are surer the longer they are. Several match lengths vote at once, where the papers choose one.

Update: one token costs O(1) (`suffix_index`). A session's output joins the corpus when it closes; so do outputs that a
store tells of, but for those that are there already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.drafting.growth import Children, checked_rows, grow, likeliest_lowest
from nacre.drafting.proposer import DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.drafting.rows import Row
from nacre.drafting.suffix_index import LONGEST, SuffixIndex, tail_hashes
from nacre.errors import InvalidArgument

#: Tokens of a session's own index, and of a tenant's corpus; the oldest are forgotten beyond that.
SESSION_TOKENS = 1 << 17
CORPUS_TOKENS = 1 << 19
#: Of an index there is room for so many more than the prompt's from the start.
SPARE_TOKENS = 512
MOST_DEPTH = 64
#: Outputs that are known again when a store tells of them.
MOST_KNOWN = 1024

# The weight of a match by its length; lengths grow with the guesses below it.
_WEIGHTS = [0.25 * m * m for m in range(LONGEST + MOST_DEPTH + 1)]

#: (tokens below the extended node, the matches that agree with them: what followed each, and its length there).
_State = tuple[int, list[tuple[list[int], int]]]


@dataclass(slots=True)
class _Text:
    index: SuffixIndex
    tail: list[int]
    output: list[int]
    unread: int  # tokens of the prompt that are still to come


class SuffixProposer:
    """Trees of what followed before. `corpus` is shared by the sessions of one tenant; None: each stands alone.

    The `matches` longest decide; a guess lies at most `depth` below the extended node.
    """

    def __init__(
        self,
        corpus: SuffixIndex | None = None,
        *,
        rows: int = 32,
        matches: int = 12,
        depth: int = 24,
    ) -> None:
        if not 1 <= matches <= 256:
            raise InvalidArgument(f"matches is {matches}; it must be 1 to 256")
        if not 1 <= depth <= MOST_DEPTH:
            raise InvalidArgument(f"depth is {depth}; it must be 1 to {MOST_DEPTH}")
        self._corpus = corpus
        self._rows = checked_rows(rows)
        self._matches = matches
        self._depth = depth
        self._texts: dict[int, _Text] = {}
        self._known: OrderedDict[int, None] = OrderedDict()  # hashes of outputs

    @classmethod
    def remembering(cls) -> SuffixProposer:
        """With a corpus of its own, for all its sessions."""
        return cls(SuffixIndex(CORPUS_TOKENS))

    @property
    def size_bytes(self) -> int:
        """Of the corpus; what a session has written goes when it closes."""
        return self._corpus.size_bytes if self._corpus is not None else 0

    def shrink(self) -> None:
        if self._corpus is not None:
            self._corpus = self._corpus.halved()
            self._known.clear()

    @property
    def traits(self) -> ProposerTraits:
        teachable = self._corpus is not None
        return ProposerTraits(name="suffix", shape="tree", batch=1, reach=self._depth, teachable=teachable)

    def open(self, session: int, context: DraftContext) -> None:
        index = SuffixIndex(SESSION_TOKENS, room=context.prompt_length + SPARE_TOKENS)
        index.extend(context.tokens)
        output = list(context.tokens[context.prompt_length :])
        unread = max(0, context.prompt_length - len(context.tokens))
        self._texts[session] = _Text(index, list(context.tokens[-LONGEST:]), output, unread)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        text = self._texts[session]
        text.index.extend(tokens)
        text.tail = [*text.tail, *tokens][-LONGEST:]
        if self._corpus is not None:
            text.output.extend(tokens[text.unread :])
        text.unread = max(0, text.unread - len(tokens))

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass  # it learns from text alone

    def taught(self, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        for output in outputs:
            if hash(output) not in self._known:
                self._remember(output)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [self._continue(self._texts[item.session], item.path_tokens) for item in wanted]

    def close(self, session: int) -> None:
        text = self._texts.pop(session, None)
        if text is not None:
            self._remember(tuple(text.output))

    def _remember(self, output: tuple[int, ...]) -> None:
        if self._corpus is not None and output:
            self._corpus.add(output)
            self._known[hash(output)] = None
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def _continue(self, text: _Text, path: tuple[int, ...]) -> list[Guess]:
        tail = [*text.tail, *path][-LONGEST:]
        hashes = tail_hashes(tail)
        own, corpus = text.index, self._corpus
        found = [(-m, 0, -position) for position, m in own.matches(tail, self._matches, hashes=hashes)]
        if corpus is not None:
            # Of equal matches the session's own go first.
            found += [(-m, 1, -position) for position, m in corpus.matches(tail, self._matches, hashes=hashes)]
            found.sort()
        if not found:
            return []
        members = [
            ((corpus if shared and corpus is not None else own).continuation(-position, self._depth), -matched)
            for matched, shared, position in found[: self._matches]
        ]
        return grow((0, members), _children, _step, self._rows, depth=self._depth)


def _children(state: _State) -> Children:
    level, members = state
    if len(members) == 1:  # most nodes of a copy
        (followed, matched) = members[0]
        if level >= len(followed):
            return ()
        weight = _WEIGHTS[matched + level]
        return ((followed[level], weight / (weight + 1.0)),)
    totals: dict[int, float] = {}
    for followed, matched in members:
        if level < len(followed):
            token = followed[level]
            totals[token] = totals.get(token, 0.0) + _WEIGHTS[matched + level]
    whole = sum(totals.values()) + 1.0
    if len(totals) == 1:
        return [(token, weight / whole) for token, weight in totals.items()]
    return sorted([(token, weight / whole) for token, weight in totals.items()], key=likeliest_lowest)


def _step(state: _State, token: int) -> _State:
    level, members = state
    if len(members) == 1:
        return level + 1, members
    return level + 1, [member for member in members if level < len(member[0]) and member[0][level] == token]
