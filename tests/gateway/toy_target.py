"""A toy language: a tiny byte-level tokenizer, and a target whose next token is a pure hash of all tokens before it.

Any token that goes missing, is doubled or changed alters everything after it, so equality of texts proves a lot.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from nacre.sampling import Choice, SamplingParams

EOS = 0
CORPUS = [
    "def count(words): return {word: words.count(word) for word in words}",
    "for line in open(path): print(line.strip(), end='\\n')",
    "naïve café, 東京 🦪 nacre: mother of pearl",
] * 4


@functools.cache
def tokenizer_json() -> bytes:
    """A byte-level BPE of at most 400 tokens; all 256 bytes are tokens, id 0 is the end of the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken("<|end|>", special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str().encode()


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json().decode())


def vocab_size() -> int:
    return tokenizer().get_vocab_size()


def decode(ids: Sequence[int]) -> str:
    return tokenizer().decode(list(ids), skip_special_tokens=True)


def text_of_choices(choices: Sequence[Choice]) -> str:
    return decode([choice.token for choice in choices])


def encode(text: str) -> list[int]:
    return tokenizer().encode(text).ids


def choose(tokens: Sequence[int], params: SamplingParams, key: int, top_logprobs: int, *, eos_share: int = 0) -> Choice:
    """The token after `tokens`; at temperature 0 the key does not matter. One step in `eos_share` ends it."""
    noise = 0 if params.greedy else key
    digest = hashlib.blake2b(struct.pack(f"<Qd{len(tokens)}I", noise, params.temperature, *tokens)).digest()
    drawn = struct.unpack("<8Q", digest)
    allowed = params.allowed_ids or range(1, vocab_size())
    candidates = [token for token in allowed if token not in params.banned_ids]
    token = candidates[drawn[0] % len(candidates)]
    if eos_share and drawn[1] % eos_share == 0:
        token = EOS
    if top_logprobs < 0:
        return Choice(token)
    logprob = -(drawn[2] % 4096) / 1024
    top = tuple((1 + (drawn[3] + rank) % (vocab_size() - 1), -0.5 - rank / 4) for rank in range(top_logprobs))
    return Choice(token, logprob, top)


def reference(
    prompt: Sequence[int],
    count: int,
    *,
    key: int = 0,
    params: SamplingParams | None = None,
    eos_share: int = 0,
    top_logprobs: int = -1,
) -> list[Choice]:
    """What the toy target alone would write after `prompt`."""
    params = params or SamplingParams()
    tokens = list(prompt)
    chosen: list[Choice] = []
    while len(chosen) < count:
        choice = choose(tokens, params, key, top_logprobs, eos_share=eos_share)
        chosen.append(choice)
        tokens.append(choice.token)
        if choice.token == EOS:
            break
    return chosen
