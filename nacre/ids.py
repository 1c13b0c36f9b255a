"""Identities that both ends of a stream compare before they trust each other's numbers.

Rule: an identity is a hash of what is *used*, never of how it is spelled. Two tokenizer files that map the
same ids to the same tokens are the same tokenizer here, whatever their version, formatting or file name; a
vocabulary that differs in one entry is another one. Needs no torch and no transformers: a drafter without a
model shakes hands too.
"""

from __future__ import annotations

import hashlib
import os

from nacre.errors import FailedPrecondition, NotFound

_DIGEST_BYTES = 16
_TENANT_CHARS = 16


def tokenizer_fingerprint(path_to_tokenizer_json: str | os.PathLike[str]) -> str:
    """A hash (32 hex digits) of the id -> token map of a `tokenizer.json`, added tokens included.

    Raises NotFound if there is no such file and FailedPrecondition if it is no tokenizer.
    """
    from tokenizers import Tokenizer

    path = os.fspath(path_to_tokenizer_json)
    if not os.path.isfile(path):
        raise NotFound(f"no tokenizer file at {path!r}; give the path of a tokenizer.json")
    try:
        vocabulary = Tokenizer.from_file(path).get_vocab(with_added_tokens=True)
    except Exception as error:  # noqa: BLE001 - the Rust side raises bare Exception for every kind of bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FailedPrecondition(f"{path!r} is not a readable tokenizer.json ({reason}); fetch it again") from None
    return vocabulary_fingerprint(vocabulary)


def vocabulary_fingerprint(vocabulary: dict[str, int]) -> str:
    """The fingerprint of a token -> id map (what `tokenizer_fingerprint` computes after reading the file)."""
    digest = hashlib.sha256()
    for token, token_id in sorted(vocabulary.items(), key=lambda item: (item[1], item[0])):
        raw = token.encode("utf-8", "surrogatepass")
        # Lengths before bytes: no two maps can run together into the same stream.
        digest.update(token_id.to_bytes(4, "little") + len(raw).to_bytes(4, "little") + raw)
    return digest.hexdigest()[: 2 * _DIGEST_BYTES]


def tenant_name(api_key: str) -> str:
    """What a gateway calls whoever sends this API key: the tenant of its sessions, and of its rows in a store."""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()[:_TENANT_CHARS]
