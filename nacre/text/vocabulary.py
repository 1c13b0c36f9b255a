"""A model's tokenizer as gateway and client need it: text to ids, ids to text, and the bytes behind one id.

Needs the `tokenizers` library only; the file comes from the verifier. Ids the file does not know (a padded
vocabulary) stand for no text, as they do when the library decodes a whole sequence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from nacre.errors import FailedPrecondition
from nacre.ids import vocabulary_fingerprint

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"


class Vocabulary:
    """Wraps one `tokenizer.json`. Raises FailedPrecondition if the bytes are none."""

    def __init__(self, tokenizer_json: bytes) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
            description = json.loads(tokenizer_json)
        except Exception as error:  # noqa: BLE001  the Rust side raises bare Exception for every kind of bad file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise FailedPrecondition(f"the verifier's tokenizer cannot be read ({reason}); give it another") from None
        # A length limit or padding in the file would change prompts silently; limits are checked where they apply.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        kinds = _decoder_kinds(description.get("decoder"))
        #: Every id stands for fixed bytes and the text is those bytes, joined.
        self.byte_level = kinds == ["ByteLevel"]
        self._byte_fallback = "ByteFallback" in kinds
        self._special = frozenset(
            token["id"] for token in description.get("added_tokens", ()) if token.get("special", False)
        )
        self.fingerprint = vocabulary_fingerprint(self._tokenizer.get_vocab(with_added_tokens=True))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a whole sequence, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def is_special(self, token: int) -> bool:
        return token in self._special

    def is_byte(self, token: int) -> bool:
        """Whether the token is one byte of a character that the vocabulary lacks (`<0x0A>`)."""
        return self._byte_fallback and _BYTE_TOKEN.fullmatch(self._spelling(token)) is not None

    def spelling_of_special(self, token: int) -> str:
        """How a chat template writes a special token; empty if there is no such token."""
        return self._spelling(token)

    def leading_special(self) -> str:
        """The token the tokenizer itself puts before every text (often called BOS); empty if there is none."""
        ids = self._tokenizer.encode("", add_special_tokens=True).ids
        return self._spelling(ids[0]) if ids else ""

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; the bytes of all tokens, joined, are the text's."""
        spelling = self._spelling(token)
        if self.byte_level:
            if all(char in _BYTE_OF for char in spelling):
                return bytes(_BYTE_OF[char] for char in spelling)
            return spelling.encode("utf-8", "replace")
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(spelling)):
            return bytes([int(match[1], 16)])
        return spelling.replace(_WORD_START, " ").encode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        r"""A token on its own: its text, or `bytes:\xe2\x82` where its bytes are not whole characters."""
        raw = self.token_bytes(token)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _spelling(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or ""


def _decoder_kinds(decoder: dict | None) -> list[str]:
    if not decoder:
        return []
    if decoder.get("type") == "Sequence":
        return [kind for part in decoder.get("decoders", ()) for kind in _decoder_kinds(part)]
    return [decoder.get("type", "")]


def _byte_alphabet() -> dict[str, int]:
    """Byte-level vocabularies spell each byte as one printable character: itself, or the next one past 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


_BYTE_OF = _byte_alphabet()
