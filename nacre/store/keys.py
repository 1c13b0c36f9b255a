"""Tenant keys: what a shared store's names and values are hidden with.

A key file has one line per tenant: its name and 64 hex digits. A line named `*` is a root from which the keys of all
tenants not listed are derived: what verifiers of many tenants hold. A tenant's own machines get that tenant's line
only. The public tier's key is a constant: what is public hides nothing, and nobody needs to be given it.

Rule: a key file that others on the machine could read is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound
from nacre.store.rows import PUBLIC

KEY_BYTES = 32
ROOT = "*"
_PUBLIC_KEY = hashlib.blake2b(b"nacre public tier", digest_size=KEY_BYTES).digest()
MAX_TENANTS = 100_000


class TenantKeys:
    """Keys by tenant, and perhaps the root of all others."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        if PUBLIC in keys:
            raise InvalidArgument(f"{PUBLIC!r} is the tier that everyone reads; no tenant can have that name")
        self._keys = dict(keys)

    def key_of(self, tenant: str) -> bytes:
        """Raises NotFound naming the tenant."""
        if tenant == PUBLIC:
            return _PUBLIC_KEY
        key = self._keys.get(tenant)
        if key is not None:
            return key
        root = self._keys.get(ROOT)
        if root is None:
            raise NotFound(f"the key file has no key of tenant {tenant!r}; add its line, or a line for {ROOT!r}")
        return hashlib.blake2b(tenant.encode(), digest_size=KEY_BYTES, key=root, person=b"nacre tenant").digest()

    @property
    def tenants(self) -> tuple[str, ...]:
        """Those listed by name."""
        return tuple(sorted(name for name in self._keys if name != ROOT))


def read_keys(path: Path) -> TenantKeys:
    """Raises NotFound, or FailedPrecondition for a file that is open to others or has a line that is no key."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no key file {path}; make one with `nacre store key FILE`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPrecondition(f"the key file {path} cannot be read ({error})") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise FailedPrecondition(
            f"the key file {path} is open to others (mode {mode & 0o777:o}); run: chmod 600 {path}"
        )
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            name, digits = words
            key = bytes.fromhex(digits)
        except ValueError:
            raise FailedPrecondition(f"{path}:{number} is no tenant and key; write a name and 64 hex digits") from None
        if len(key) != KEY_BYTES or name in keys:
            what = f"names {name!r} twice" if name in keys else f"has a key of {len(key)} bytes instead of {KEY_BYTES}"
            raise FailedPrecondition(f"{path}:{number} {what}")
        keys[name] = key
        if len(keys) > MAX_TENANTS:
            raise FailedPrecondition(f"{path} has more than {MAX_TENANTS} tenants; use a line for {ROOT!r}")
    if not keys:
        raise FailedPrecondition(f"the key file {path} is empty; make one with `nacre store key FILE`")
    return TenantKeys(keys)


def write_key_file(path: Path, tenants: tuple[str, ...] = (ROOT,)) -> None:
    """A new file with fresh keys, readable by its owner only. Raises InvalidArgument if there is one, or for a name
    that could not be read back.
    """
    for tenant in tenants:
        if tenant.split() != [tenant] or tenant.startswith("#") or tenant == PUBLIC:
            raise InvalidArgument(
                f"{tenant!r} cannot be a tenant's name in a key file: it is one word, without # at its beginning, and "
                f"not {PUBLIC}",
                param="tenant",
            )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidArgument(f"{path} exists; what its keys hide could never be read again: choose another") from None
    except OSError as error:
        raise InvalidArgument(f"cannot write {path} ({error.strerror or error}); choose another place") from None
    with os.fdopen(descriptor, "w") as stream:
        stream.writelines(f"{tenant} {secrets.token_hex(KEY_BYTES)}\n" for tenant in tenants)
