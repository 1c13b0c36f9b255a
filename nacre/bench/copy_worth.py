"""What copies could add to a draft model at best: `python -m nacre.bench.copy_worth [--temperature 0.7] [--text code]`.

Along texts that the target writes, at every token: which one the draft model names first in the race, and which one a
mixture with what a suffix index of the text so far says would, drawn with the same noise. For each length of the
longest match the weight of the copies is the one that is right most often, chosen with the answers known: no rule that
has to guess it can be right more often. Where that is hardly more often than the draft alone, fusing the two can gain
little.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from nacre.drafting.suffix_index import LENGTHS, LONGEST, SuffixIndex
from nacre.engine import LoadedModel, load_model
from nacre.errors import FailedPrecondition, InvalidArgument, NacreError
from nacre.models import TEXTS, held_out_prompts, located
from nacre.sampling import completion_key, race_scores
from nacre.sampling.race_noise import F32Array
from nacre.text import Vocabulary

#: Weights of the copies in a mixture.
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_MATCHES = 12


@dataclass(frozen=True, slots=True)
class Place:
    """A token of text: the longest match before it, and who names it first, by the copies' weight (0: the draft)."""

    matched: int
    right: dict[float, bool]


def places(
    target: LoadedModel, draft: LoadedModel, prompt: Sequence[int], tokens: int, temperature: float, key: int
) -> Iterator[Place]:
    """Of one text, written by the target with the noise of `key`."""
    inverse = 1.0 / temperature if temperature else 1.0
    text, noises = list(prompt), []
    with torch.inference_mode():
        past, fed = None, torch.tensor([text])
        for _ in range(tokens):
            answer = target.model(fed, past_key_values=past, use_cache=True)
            logits = answer.logits[0, -1].float().numpy()
            nothing = np.zeros_like(logits)
            noises.append(race_scores(nothing, key, len(text)) if temperature else nothing)
            token = int(np.argmax(logits * np.float32(inverse) + noises[-1]))
            if token in target.eos_ids:
                break
            text.append(token)
            past, fed = answer.past_key_values, torch.tensor([[token]])
        drafted = draft.model(torch.tensor([text])).logits[0].float().numpy()
    index = SuffixIndex(1 << 17)
    index.extend(prompt)
    for at in range(len(prompt), len(text)):
        copied, matched = _copied(index, text[max(0, at - LONGEST) : at], drafted.shape[1])
        own = _softmax(drafted[at - 1] * np.float32(inverse))
        yield Place(
            matched,
            {
                weight: int(np.argmax(np.log((1 - weight) * own + weight * copied) + noises[at - len(prompt)]))
                == text[at]
                for weight in ((0.0, *WEIGHTS) if matched else (0.0,))
            },
        )
        index.append(text[at])


def _copied(index: SuffixIndex, tail: Sequence[int], vocabulary: int) -> tuple[F32Array, int]:
    """How likely each token is after these, by votes like those of `suffix`, and the longest match."""
    votes = np.zeros(vocabulary, dtype=np.float32)
    longest = 0
    for position, matched in index.matches(tail, _MATCHES):
        for token in index.continuation(position, 1):
            votes[token] += matched * matched
            longest = max(longest, matched)
    return (votes / votes.sum() if longest else votes), longest


def _softmax(scores: F32Array) -> F32Array:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum() + np.float32(1e-12), dtype=np.float32)


def worth(found: Sequence[Place]) -> dict[str, Any]:
    """Shares of places where the token is named first: in all, and by the length of the match."""
    parts = []
    for matched, group in groupby(
        sorted(found, key=lambda place: place.matched), key=lambda place: _length(place.matched)
    ):
        members = list(group)
        shares = {weight: sum(place.right[weight] for place in members) for weight in members[0].right}
        best = max(shares, key=lambda weight: (shares[weight], -weight))
        parts.append(
            {
                "matched": matched,
                "places": len(members),
                "draft": round(shares[0.0] / len(members), 4),
                "mixture": round(shares[best] / len(members), 4),
                "weight": best,
            }
        )
    total = len(found)
    return {
        "places": total,
        "draft": round(sum(place.right[0.0] for place in found) / total, 4),
        "mixture": round(sum(part["mixture"] * part["places"] for part in parts) / total, 4),
        "by_match": parts,
    }


def _length(matched: int) -> int:
    """The greatest of the index's lengths within a match; 0 without one."""
    return max((length for length in LENGTHS if length <= matched), default=0)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Raises NacreError."""
    if not 0 <= args.temperature <= 2:
        raise InvalidArgument(f"temperature is {args.temperature}; it must be 0 to 2")
    target, draft = (
        load_model(located(source), dtype="float32", device="cpu", threads=args.threads)
        for source in (args.target, args.draft)
    )
    if target.tokenizer_path is None or target.tokenizer_fingerprint != draft.tokenizer_fingerprint:
        raise FailedPrecondition(f"{args.target} and {args.draft} need one tokenizer.json, the same for both")
    vocabulary = Vocabulary(target.tokenizer_path.read_bytes())
    found: list[Place] = []
    for number, prompt in enumerate(held_out_prompts(args.prompts, text=args.text)):
        ids = vocabulary.encode(prompt, add_special_tokens=True)
        found += places(target, draft, ids, args.tokens, args.temperature, completion_key(1 + number, 0))
    return {"text": args.text, "temperature": args.temperature, "draft_model": args.draft, **worth(found)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nacre.bench.copy_worth", description="What copies could add to a draft model at best."
    )
    parser.add_argument("--target", default="demo-target", help="what writes (default demo-target)")
    parser.add_argument("--draft", default="demo-draft", help="what guesses (default demo-draft)")
    parser.add_argument("--text", choices=TEXTS, default="code", help="kind of prompts (default code)")
    parser.add_argument("--temperature", type=float, default=0.7, help="default 0.7")
    parser.add_argument("--prompts", type=int, default=24, help="default 24")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a text (default 96)")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args(argv)
    try:
        told = measure(args)
    except NacreError as error:
        sys.stderr.write(f"copy_worth: {error.message}\n")
        sys.exit(1)
    if args.json:
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    sys.stdout.write("match   places   draft   best mixture   weight of the copies\n")
    for part in (*told["by_match"], {"matched": "all", "weight": "", **told}):
        shares = f"{part['draft']:>7.4f} {part['mixture']:>14.4f}"
        sys.stdout.write(f"{part['matched']!s:>5} {part['places']:>8,} {shares}   {part['weight']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
