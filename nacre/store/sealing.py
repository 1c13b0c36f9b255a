"""How rows lie in a Redis that others can read: names are keyed hashes, values are masked and checked.

    place   BLAKE2b of the row's context under the namespace's key: 4 bytes choose the bucket, 6 name the field
    row     4 bytes nonce, then the packed row XOR SHAKE-256(mask key, nonce, field)
    block   8 bytes nonce, 8 bytes tag, then many rows or a text XOR SHAKE-256(mask key, nonce, what it is)

All keys come from the tenant's: without it, neither a dump nor another tenant's key says which tokens, contexts or
models are in there. A row is accepted only if its context hashes to the field it was found in, a block only if its tag
is right, so bytes made without the key are noticed. What stays visible: how many rows a tenant has, their lengths (so
the number of entries), and when they change. Who may write to Redis can replay or delete values; that costs speed.

Rule: a nonce is drawn anew for every value that is written; two values of one row share a mask once in four billion
pairs.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from nacre.store.packing import key_in
from nacre.store.rows import Namespace

NONCE_BYTES = 4
FIELD_BYTES = 6
_BLOCK_NONCE = 8
_TAG = 8


class Seal:
    """Of one namespace, made from its tenant's key."""

    def __init__(self, namespace: Namespace, tenant_key: bytes) -> None:
        self.namespace = namespace
        self.tenant_tag = _derive(tenant_key, b"tenant tag", b"")[:6].hex()
        about = "\0".join((namespace.target, namespace.revision, namespace.tokenizer_fingerprint)).encode()
        self.tag = _derive(tenant_key, b"namespace tag", about)[:4].hex()
        self._places = hashlib.blake2b(key=_derive(tenant_key, b"places", about), digest_size=4 + FIELD_BYTES)
        self._masks = hashlib.shake_256(_derive(tenant_key, b"masks", about).ljust(136, b"\0"))  # one whole block
        self._tags = _derive(tenant_key, b"tags", about)

    def place(self, key: bytes) -> tuple[int, bytes]:
        """Bucket (32 bits, to be cut) and field of a row's key."""
        digest = self._places.copy()
        digest.update(key)
        place = digest.digest()
        return int.from_bytes(place[:4], "little"), place[4:]

    def cover(self, field: bytes, packed: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._xor(nonce + field, packed)

    def uncover(self, field: bytes, value: bytes) -> bytes | None:
        """The packed row, or None if it was not covered under this key and field."""
        if len(value) < NONCE_BYTES + 6:
            return None
        packed = self._xor(value[:NONCE_BYTES] + field, value[NONCE_BYTES:])
        return packed if self.place(key_in(packed))[1] == field else None

    def cover_block(self, what: bytes, block: bytes) -> bytes:
        nonce = secrets.token_bytes(_BLOCK_NONCE)
        masked = self._xor(nonce + what, block)
        return nonce + self._tag(what, nonce, masked) + masked

    def uncover_block(self, what: bytes, value: bytes) -> bytes | None:
        nonce, tag = value[:_BLOCK_NONCE], value[_BLOCK_NONCE : _BLOCK_NONCE + _TAG]
        masked = value[_BLOCK_NONCE + _TAG :]
        if not hmac.compare_digest(tag, self._tag(what, nonce, masked)):
            return None
        return self._xor(nonce + what, masked)

    def _xor(self, salt: bytes, data: bytes) -> bytes:
        stream = self._masks.copy()
        stream.update(salt)
        size = len(data)
        mixed = int.from_bytes(data, "little") ^ int.from_bytes(stream.digest(size), "little")
        return mixed.to_bytes(size, "little")

    def _tag(self, what: bytes, nonce: bytes, masked: bytes) -> bytes:
        data = len(what).to_bytes(1, "little") + what + nonce + masked
        return hashlib.blake2b(data, key=self._tags, digest_size=_TAG).digest()


def tenant_tag(tenant_key: bytes) -> str:
    """What a tenant's keys in Redis begin with."""
    return _derive(tenant_key, b"tenant tag", b"")[:6].hex()


def directory_seal(tenant: str, tenant_key: bytes) -> Seal:
    """Covers the list of a tenant's namespaces, which belongs to none of them."""
    return Seal(Namespace(tenant, "\x01directory", "", "\x01directory"), tenant_key)


def _derive(key: bytes, purpose: bytes, about: bytes) -> bytes:
    return hashlib.blake2b(purpose + b"\0" + about, key=key, digest_size=32).digest()
