"""Admission on second sighting: a small sketch of what has been seen once.

Most n-grams of a text never come again. A row is kept from its second sighting on, which removes most of them at the
price of learning one sighting later. Two bitmaps take turns: when the present one is half full it becomes the past
and the older is forgotten, so memory is constant and old sightings fade. A false "seen before" costs one row.
"""

from __future__ import annotations

DEFAULT_BITS = 1 << 20


class Sightings:
    """Bits of memory: twice `bits`."""

    def __init__(self, bits: int = DEFAULT_BITS) -> None:
        self._bits = bits
        self._present = bytearray(bits // 8)
        self._past = bytearray(bits // 8)
        self._set = 0

    def seen_before(self, key: bytes) -> bool:
        """Whether `key` was seen, and now it was."""
        place = hash(key) % self._bits
        byte, bit = place >> 3, 1 << (place & 7)
        if self._present[byte] & bit:
            return True
        before = bool(self._past[byte] & bit)
        self._present[byte] |= bit
        self._set += 1
        if self._set * 2 > self._bits:
            self._past, self._present, self._set = self._present, bytearray(self._bits // 8), 0
        return before
