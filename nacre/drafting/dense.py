"""Dense retrieval: what followed where the target's hidden state was most like the present one.

Source: DReSD (Gritta et al. 2025) for `DenseProposer`; NEST (Li et al. 2024) for the lexical first stage of
`NestProposer`. Guarantee: exact (a guess never decides; NEST's own relaxed acceptance is not used). Needs hidden
states, which only the verifier has: these run as its local sources.

State: for every token that a session of the tenant has had chosen, the hidden state that chose it (`dense_keys`) and
the text after it. Query: the state that chose the last token. Of the nearest states those count that chose the same
token, as in DReSD; what followed them is merged into a tree, each continuation weighing its similarity to the fourth
power. NEST first chooses the texts that share most of the prompt's rare tokens and looks at no others.

Differences: nothing is built beforehand, the memory grows with what is verified; and a random projection stands for
DReSD's principal components, which would need the corpus first.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from nacre.drafting.dense_keys import KEY_BYTES, DenseKeys
from nacre.drafting.growth import checked_rows, grow_phrases
from nacre.drafting.proposer import DraftContext, Expansion, Guess, HiddenStates, Observation, ProposerTraits
from nacre.errors import InvalidArgument

#: Tokens of a tenant that have keys, and tokens of all its texts for each of those, prompts included: the oldest texts
#: are forgotten beyond that.
MOST_TOKENS = 1 << 16
_TOKENS_PER_KEY = 16
DEPTH = 16
#: Texts that a prompt is taken to be about, and of how many; the share of keys asked for beyond those that are used.
_PASSAGES, _CONSIDERED, _SPARE = 8, 512, 4
_WEIGHT = 4.0


@dataclass(slots=True, eq=False)
class _Text:
    """A text and the labels of its tokens' keys. From `next_key` on tokens have none; some before it may have none."""

    tokens: array[int]  # a number for each token: prompts may be long
    next_key: int
    labels: list[int] = field(default_factory=list)
    open: bool = True
    #: What chose the last token, and how many tokens there were then.
    state: HiddenStates | None = None
    passages: frozenset[int] = frozenset()
    words: frozenset[int] = frozenset()  # of a text that is over, for `nest`


class DenseProposer:
    """Trees from what followed the `neighbours` nearest states. One tenant's."""

    #: Keys of all tenants together; a tenant alone may have half of it.
    most_bytes = 128 << 20

    def __init__(self, *, rows: int = 32, neighbours: int = 8, most_tokens: int = MOST_TOKENS) -> None:
        if not 1 <= neighbours <= 256:
            raise InvalidArgument(f"neighbours is {neighbours}; it must be 1 to 256")
        self._rows = checked_rows(rows)
        self._neighbours = neighbours
        self._most_tokens = most_tokens
        self._keys = DenseKeys()
        self._texts: OrderedDict[int, _Text] = OrderedDict()  # oldest first
        self._where: dict[int, tuple[int, int]] = {}  # label -> (text, place of its token)
        self._number_of: dict[int, int] = {}  # session -> text
        self._next_text = self._next_label = 1
        self._tokens = 0  # of all texts

    @property
    def size_bytes(self) -> int:
        return KEY_BYTES * len(self._where)

    def shrink(self) -> None:
        """Texts of open sessions stay, without keys for what they have said so far."""
        self._most_tokens //= 2
        self._keys = DenseKeys()
        self._where.clear()
        for number, text in list(self._texts.items()):
            text.labels.clear()
            if not text.open:
                self._tokens -= len(self._texts.pop(number).tokens)

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="dense", shape="tree", batch=1, reach=DEPTH, encodes=True)

    def open(self, session: int, context: DraftContext) -> None:
        text = _Text(array("I", context.tokens), len(context.tokens))
        self._tokens += len(context.tokens)
        text.passages = frozenset(self._passages(context.tokens[: context.prompt_length]))
        self._number_of[session] = self._next_text
        self._texts[self._next_text] = text
        self._next_text += 1

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self._texts[self._number_of[session]].tokens.extend(tokens)
        self._tokens += len(tokens)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass  # the states say more

    def encoded(self, session: int, states: HiddenStates) -> None:
        number = self._number_of[session]
        text = self._texts[number]
        end = states.position + len(states.states)
        if end != len(text.tokens):  # of a pass that is not the last one
            return
        text.state = states
        if states.position >= text.next_key:  # beyond it where a pass was missed: its tokens have no keys
            labels = range(self._next_label, self._next_label + len(states.states))
            self._next_label = labels.stop
            text.next_key = end
            self._keys.add(labels, states.states)
            text.labels.extend(labels)
            self._where.update(zip(labels, ((number, place) for place in range(states.position, end)), strict=True))
            self._make_room()

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        return [[] if item.path_tokens else self._continue(self._number_of[item.session]) for item in wanted]

    def close(self, session: int) -> None:
        number = self._number_of.pop(session, None)
        if number is not None:
            self._texts[number].open = False
            self._texts[number].state = None
            if not self._texts[number].labels:
                self._tokens -= len(self._texts.pop(number).tokens)

    def _passages(self, prompt: Sequence[int]) -> Iterable[int]:
        return ()

    def _admits(self, text: _Text, number: int) -> bool:
        return True

    def _continue(self, number: int) -> list[Guess]:
        text = self._texts[number]
        state = text.state
        if state is None or state.position + len(state.states) != len(text.tokens):
            return []
        phrases: list[tuple[Sequence[int], float]] = []
        for label, similarity in self._keys.nearest(state.states[-1], _SPARE * self._neighbours):
            source, place = self._where.get(label, (0, 0))
            found = self._texts.get(source)
            if found is None or not self._admits(text, source) or found.tokens[place] != text.tokens[-1]:
                continue
            following = found.tokens[place + 1 : place + 1 + DEPTH]
            if following and similarity > 0:
                phrases.append((following, _WEIGHT * similarity**4))
                if len(phrases) == self._neighbours:
                    break
        return grow_phrases(phrases, self._rows)

    def _make_room(self) -> None:
        """Forgets the oldest texts that are over, as long as there are too many tokens."""
        while len(self._where) > self._most_tokens or self._tokens > _TOKENS_PER_KEY * self._most_tokens:
            number = next((number for number, text in self._texts.items() if not text.open), None)
            if number is None:
                return
            gone = self._texts.pop(number)
            self._tokens -= len(gone.tokens)
            self._keys.remove(gone.labels)
            for label in gone.labels:
                del self._where[label]


class NestProposer(DenseProposer):
    """The same in two stages: only texts that share most of the prompt's rare tokens, by inverse document frequency.

    They are looked for among the newest that are over; a session opens between two passes.
    """

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="nest", shape="tree", batch=1, reach=DEPTH, encodes=True)

    def close(self, session: int) -> None:
        number = self._number_of.get(session, 0)
        super().close(session)
        text = self._texts.get(number)
        if text is not None:
            text.words = frozenset(text.tokens)

    def _passages(self, prompt: Sequence[int]) -> Iterable[int]:
        asked = frozenset(prompt)
        newest = islice(reversed(self._texts.items()), _CONSIDERED)
        shared = {number: asked & text.words for number, text in newest if text.words}
        frequency = Counter(chain.from_iterable(shared.values()))
        scores = {
            number: sum(math.log(1 + len(shared) / frequency[token]) for token in tokens)
            for number, tokens in shared.items()
        }
        return sorted(scores, key=lambda number: (-scores[number], number))[:_PASSAGES]

    def _admits(self, text: _Text, number: int) -> bool:
        # Its own text is the passage nearest to a prompt.
        return number in text.passages or self._texts[number] is text
