"""The prefix cache: committed tokens whose keys and values outlive the sequence that computed them.

Tokens are cached in blocks of 16. A block's name is a hash chain (tenant, all earlier blocks, its own
tokens), so equal names mean equal prefixes of one tenant; a tenant can neither reuse nor even probe another
one's prompts.

Rule: a block is in use by `users` sequences or it is idle; only idle blocks are evicted, least recently used
first. Sequences give their blocks back last block first, hence a block always leaves before the one that it
continues.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_TOKENS = 16


@dataclass(slots=True, eq=False)
class Block:
    """Sixteen committed tokens: where their keys and values are, and how many sequences read them."""

    name: bytes
    slots: np.ndarray  # int32 [BLOCK_TOKENS]
    users: int


def root_name(tenant: str) -> bytes:
    """The name that a tenant's first blocks continue."""
    return hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16, person=b"nacre-tenant").digest()


def next_name(parent: bytes, tokens: np.ndarray) -> bytes:
    """The name of the block that holds `tokens` (int32 [BLOCK_TOKENS]) after the block called `parent`."""
    return hashlib.blake2b(parent + tokens.tobytes(), digest_size=16, person=b"nacre-block").digest()


class PrefixCache:
    """All blocks of all tenants by name. Bounded by the pool it draws its slots from."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, Block] = {}
        self._idle: OrderedDict[bytes, Block] = OrderedDict()

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    @property
    def idle_blocks(self) -> int:
        return len(self._idle)

    def slots(self) -> list[np.ndarray]:
        """The slots of every block (for the invariant checks)."""
        return [block.slots for block in self._blocks.values()]

    def match(self, tenant: str, tokens: Sequence[int]) -> list[Block]:
        """The longest cached prefix of `tokens`, now in use by one more sequence.

        Stops before the last token: a prompt has to compute at least one row to get logits.
        """
        found: list[Block] = []
        name = root_name(tenant)
        whole_blocks = (len(tokens) - 1) // BLOCK_TOKENS
        for index in range(whole_blocks):
            start = index * BLOCK_TOKENS
            name = next_name(name, np.asarray(tokens[start : start + BLOCK_TOKENS], np.int32))
            block = self._blocks.get(name)
            if block is None:
                break
            self._use(block)
            found.append(block)
        return found

    def share(self, parent: bytes, tokens: np.ndarray, slots: np.ndarray) -> Block:
        """Offers freshly committed slots. Returns the block to use from now on, in use by one more sequence.

        If another sequence was first, its block is returned and the caller still owns `slots`.
        """
        name = next_name(parent, tokens)
        block = self._blocks.get(name)
        if block is None:
            block = self._blocks[name] = Block(name, slots.copy(), users=1)
        else:
            self._use(block)
        return block

    def release(self, blocks: list[Block]) -> None:
        """One sequence no longer reads these blocks (given in token order)."""
        for block in reversed(blocks):
            block.users -= 1
            if block.users == 0:
                self._idle[block.name] = block

    def evict(self) -> np.ndarray:
        """Forgets the least recently used idle block and returns its slots. KeyError if there is none."""
        name, block = self._idle.popitem(last=False)
        del self._blocks[name]
        return block.slots

    def _use(self, block: Block) -> None:
        if block.users == 0:
            del self._idle[block.name]
        block.users += 1
