"""API keys: who may come in, and as which tenant.

Rule: keys are compared as digests in constant time, and nothing but the digest is kept. Everyone with the same key is
one tenant; cached prefixes are shared within a tenant only.
"""

from __future__ import annotations

import hashlib
import hmac

from nacre.errors import Unauthenticated
from nacre.ids import tenant_name


class ApiKeys:
    """Empty: everyone may come in, with any key or none."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def tenant(self, authorization: str | None) -> str:
        """The tenant behind an `Authorization` header; empty if there are no keys. Raises Unauthenticated."""
        if not self._digests:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("no API key was sent; send the header 'Authorization: Bearer KEY'")
        digest = _digest(key.strip())
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):  # all of them, every time
            raise Unauthenticated("the API key is not known here; check it")
        return tenant_name(key.strip())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
