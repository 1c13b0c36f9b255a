"""What guessing from tables costs: `python -m nacre.bench.table_drafting [--ngrams 1000000] [--methods stand,aded]`.

Each proposer is filled with that many n-grams of made-up text, and then asked for trees of 32 guesses after random
stretches of it, one at a time, so that what it needs is seldom in the processor's caches. Told are microseconds a
proposal, from the call to the list of guesses, and how many guesses there were; last, what one more token costs the
suffix index. Needs no model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

import numpy as np

from nacre.drafting.aded import AdedGrowthProposer, AdedProposer, TrigramTable
from nacre.drafting.adjacency import AdjacencyTable
from nacre.drafting.lookahead import LookaheadProposer, lookahead_pool
from nacre.drafting.lookup import LookupProposer
from nacre.drafting.ouroboros import OuroborosProposer, ouroboros_pool
from nacre.drafting.phrases import PhrasePool
from nacre.drafting.plateau import PlateauProposer, chunk_pool
from nacre.drafting.proposer import CONTEXT_TOKENS, DraftContext, Expansion, Observation, Proposer
from nacre.drafting.recycling import RecyclingGrowthProposer, RecyclingProposer
from nacre.drafting.rest import RestProposer
from nacre.drafting.rest_datastore import RestDatastore, build
from nacre.drafting.rows import weight_byte
from nacre.drafting.stand import StandProposer, StandTable
from nacre.drafting.suffix import SuffixProposer
from nacre.drafting.suffix_index import SuffixIndex
from nacre.drafting.tr_jacobi import LEVELS, TrJacobiProposer
from nacre.sampling import SamplingParams

NODES = 32
STRETCH = 16  # tokens before a proposal: as far as any method looks back
#: How likely a token's followers are in the made-up text; the rest of the probability is for none of them.
RANK_CHANCES = (0.45, 0.2, 0.1, 0.07, 0.05, 0.04, 0.03, 0.02)
_FINGERPRINT = "made-up"


class MadeUpText:
    """A vocabulary an eighth of the n-grams; every token has eight followers, so there are as many pairs as n-grams."""

    def __init__(self, ngrams: int) -> None:
        self.ngrams = ngrams
        vocabulary = max(64, ngrams // len(RANK_CHANCES))
        token, rank = np.arange(vocabulary)[:, None], np.arange(len(RANK_CHANCES))
        self.followers: list[list[int]] = ((token * 40503 + rank * 7919 + 12345) % vocabulary).tolist()
        self.rows = [tuple(zip(row, map(weight_byte, RANK_CHANCES), strict=True)) for row in self.followers]
        chances = np.array(RANK_CHANCES)
        ranks = np.random.default_rng(1).choice(len(chances), ngrams, p=chances / chances.sum())
        self.tokens = [1]
        for follower in ranks.tolist():
            self.tokens.append(self.followers[self.tokens[-1]][follower])


@dataclass(frozen=True, slots=True)
class Filled:
    """A proposer, how many n-grams it holds, and the text that a session is opened with.

    `told`: what a pass that ended with a stretch of text told of it. Each proposal then follows such a pass.
    """

    proposer: Proposer
    stored: int
    opened: Sequence[int] = (1, 2, 3)
    key: int | None = None
    told: Callable[[Sequence[int]], list[Observation]] | None = None


def _stand(key: int | None, text: MadeUpText, folder: Path) -> Filled:
    table = StandTable(2 * text.ngrams)
    table.merge(((token,), row) for token, row in enumerate(text.rows))
    table.merge(
        ((token, follower), text.rows[follower]) for token, row in enumerate(text.followers) for follower in row[:-1]
    )
    return Filled(StandProposer(table, rows=NODES), len(table), key=key)


def _aded(kind: type[AdedProposer] | type[AdedGrowthProposer], text: MadeUpText, folder: Path) -> Filled:
    table = TrigramTable(2 * text.ngrams)
    table.merge(
        ((token, follower), text.rows[follower]) for token, row in enumerate(text.followers) for follower in row
    )
    return Filled(kind(table, rows=NODES), len(table))


def _recycling(kind: type[RecyclingProposer] | type[RecyclingGrowthProposer], text: MadeUpText, folder: Path) -> Filled:
    table = AdjacencyTable(len(text.rows))
    table.merge(((token,), row) for token, row in enumerate(text.rows))
    return Filled(kind(table, rows=NODES), sum(map(len, text.rows)))


def _phrases(pool: Callable[..., PhrasePool], kind: Any, text: MadeUpText, folder: Path) -> Filled:
    filled = pool(keys=text.ngrams)
    filled.learn(text.tokens)
    return Filled(kind(filled, rows=NODES), len(filled.export()))


def _suffix(text: MadeUpText, folder: Path) -> Filled:
    corpus = SuffixIndex(text.ngrams + STRETCH)
    corpus.add(text.tokens)
    return Filled(SuffixProposer(corpus, rows=NODES), len(corpus))


def _lookup(text: MadeUpText, folder: Path) -> Filled:
    return Filled(LookupProposer(), text.ngrams, text.tokens[: text.ngrams // 4])  # n-grams of four lengths


def _rest(text: MadeUpText, folder: Path) -> Filled:
    stored = build(folder / "datastore", [text.tokens], _FINGERPRINT)
    return Filled(RestProposer(RestDatastore(folder / "datastore", _FINGERPRINT), rows=NODES), stored)


def _tr_jacobi(text: MadeUpText, folder: Path) -> Filled:
    def told(stretch: Sequence[int]) -> list[Observation]:
        """A chain of guesses was wrong from the last token on."""
        nothing = (0.0,) * len(RANK_CHANCES)
        context = tuple(stretch[-CONTEXT_TOKENS - 1 : -1])
        seen = [Observation(context, tuple(text.followers[context[-1]]), nothing, walked=True)]
        for _ in range(LEVELS):
            context = (*context[1:], text.followers[context[-1]][-1])
            seen.append(Observation(context, tuple(text.followers[context[-1]]), nothing, walked=False))
        return seen

    opened = text.tokens[: text.ngrams // 3]  # n-grams of three lengths
    return Filled(TrJacobiProposer(rows=NODES), text.ngrams, opened, told=told)


METHODS: dict[str, Callable[[MadeUpText, Path], Filled]] = {
    "stand": partial(_stand, None),
    "stand-race": partial(_stand, 7),
    "aded": partial(_aded, AdedProposer),
    "aded-growth": partial(_aded, AdedGrowthProposer),
    "recycling": partial(_recycling, RecyclingProposer),
    "recycling-growth": partial(_recycling, RecyclingGrowthProposer),
    "suffix": _suffix,
    "lookup": _lookup,
    "lookahead": partial(_phrases, lookahead_pool, LookaheadProposer),
    "ouroboros": partial(_phrases, ouroboros_pool, OuroborosProposer),
    "plateau": partial(_phrases, chunk_pool, PlateauProposer),
    "rest": _rest,
    "tr-jacobi": _tr_jacobi,
}
#: Not a proposal: one more token for the suffix index.
SUFFIX_UPDATE = "suffix-update"


def proposal_us(filled: Filled, text: MadeUpText, proposals: int) -> dict[str, float]:
    """Microseconds a proposal, after stretches of the text chosen at random."""
    proposer = filled.proposer
    opened = tuple(filled.opened)
    proposer.open(1, DraftContext(opened, len(opened), SamplingParams(temperature=0.8), filled.key))
    starts = np.random.default_rng(2).integers(0, len(text.tokens) - STRETCH, proposals + proposals // 10).tolist()
    taken_us: list[float] = []
    guesses: list[int] = []
    for turn, start in enumerate(starts):
        path = tuple(text.tokens[start : start + STRETCH])
        wanted = [Expansion(1, STRETCH, path, tuple(range(STRETCH)))]
        if filled.told is not None:
            proposer.committed(1, path, ())
            proposer.observed(1, filled.told(path))
            wanted = [Expansion(1, 0, (), ())]
        began_ns = time.perf_counter_ns()
        (found,) = proposer.propose(wanted)
        if turn >= proposals // 10:  # the first ones warm up
            taken_us.append((time.perf_counter_ns() - began_ns) / 1e3)
            guesses.append(len(found))
    return _told(taken_us) | {"guesses": round(fmean(guesses), 1), "stored": filled.stored}


def update_us(text: MadeUpText, updates: int) -> dict[str, float]:
    """Microseconds for one more token in a suffix index that holds the text."""
    index = SuffixIndex(text.ngrams + updates)
    index.extend(text.tokens)
    taken_us: list[float] = []
    for token in text.tokens[:updates]:
        began_ns = time.perf_counter_ns()
        index.append(token)
        taken_us.append((time.perf_counter_ns() - began_ns) / 1e3)
    return _told(taken_us) | {"stored": len(index)}


def _told(taken_us: Sequence[float]) -> dict[str, float]:
    return {"median_us": round(median(taken_us), 1), "p95_us": round(quantiles(taken_us, n=20)[-1], 1)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nacre.bench.table_drafting", description="What guessing from tables costs."
    )
    parser.add_argument("--ngrams", type=int, default=1_000_000, help="n-grams that are stored (default a million)")
    parser.add_argument("--proposals", type=int, default=2000, help="proposals per method (default 2000)")
    parser.add_argument("--methods", default=",".join([*METHODS, SUFFIX_UPDATE]), help="only these, by commas")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args(argv)
    names = args.methods.split(",")
    unknown = [name for name in names if name not in METHODS and name != SUFFIX_UPDATE]
    if unknown:
        parser.error(f"unknown methods {', '.join(unknown)}; choose from {', '.join([*METHODS, SUFFIX_UPDATE])}")
    text = MadeUpText(args.ngrams)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name == SUFFIX_UPDATE:
                results[name] = update_us(text, args.proposals)
            else:
                results[name] = proposal_us(METHODS[name](text, Path(folder)), text, args.proposals)
            if not args.json:
                figures = "  ".join(f"{what} {value:>9}" for what, value in results[name].items())
                sys.stdout.write(f"{name:18} {figures}\n")
                sys.stdout.flush()
    if args.json:
        sys.stdout.write(json.dumps({"ngrams": args.ngrams, "nodes": NODES, "results": results}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
