"""Where everything lies in Redis. Commands of Redis 6.2 only; Valkey has the same.

    nc:{T.s}:N:n0<b>   hash   n-grams of a bucket, generation 0 or 1: field -> covered row
    nc:{T.d}:N:delta   stream blocks of rows as merged, for readers that follow
    nc:{T.d}:N:log     stream finished outputs, for suffix indexes
    nc:{T.d}:dir       hash   the tenant's namespaces, covered

T and N are keyed hashes of tenant and namespace, s is the bucket modulo 16: a tenant spreads over sixteen cluster
slots, and every script touches one of them. A bucket holds at most 64 fields of at most 48 bytes, so Redis
keeps it as one packed list (`hash-max-ziplist-entries` and `-value` at their defaults or above).

Generations take turns by the clock: a bucket expires at the end of the generation after its own, so what was not
written for between one and two periods is gone, without a TTL per field.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacre.store.packing import key_of
from nacre.store.rows import Row
from nacre.store.sealing import Seal, tenant_tag

PREFIX = b"nc:"
SPREAD = 16
#: With 64 fields each, 262,144 n-grams in each generation of a namespace.
BUCKETS = 4096
MAX_FIELDS = 64
#: The one field of a stream entry.
BLOCK = b"b"
#: What a follower that was away may have missed before it has to begin anew; 6 MB in a namespace that is written to
#: all the time. The newest of them is what a session is seeded with, so they live as long as the rows.
DELTA_ENTRIES = 256
LOG_ENTRIES = 4096
LOG_MS = 86_400_000

#: What is stored of some rows of one slot. KEYS: each bucket of the present generation, then the same of the past;
#: ARGV[1]: per row two bytes, the number of its bucket's key, and its field. Returns one string, per row a byte (0:
#: there is none, 1: of the present, 2: of the past), and if there is one two bytes of length and the value. Strings and
#: not lists, because the client takes longer to read a list than we to read what is in it. What is far too long to be
#: a row is junk, and counts as none.
READ = """
local out = {}
local rows = ARGV[1]
for at = 1, #rows, 8 do
  local low, high = string.byte(rows, at, at + 1)
  local key = low + 256 * high
  local name = string.sub(rows, at + 2, at + 7)
  local mark, value = '\\1', redis.call('HGET', KEYS[key], name)
  if not value then
    mark, value = '\\2', redis.call('HGET', KEYS[key + 1], name)
  end
  if value and #value < 65536 then
    out[#out + 1] = mark .. string.char(#value % 256, math.floor(#value / 256)) .. value
  else
    out[#out + 1] = '\\0'
  end
end
return table.concat(out)
"""

#: Compare and set, row by row. KEYS: buckets of one slot; ARGV: when they expire (ms), most fields of a bucket, and per
#: row two bytes, the number of its bucket's key, its field, a byte and four: 1 and the nonce the writer had read, or
#: zeros for none, then two bytes of length and the new value. Returns a byte per row, 1 if it was set. A full bucket
#: gives up a field, whichever comes first. The server cannot merge: it cannot read.
WRITE = """
local done = {}
local rows = ARGV[3]
local at = 1
while at <= #rows do
  local low, high = string.byte(rows, at, at + 1)
  local key = KEYS[low + 256 * high]
  local name = string.sub(rows, at + 2, at + 7)
  local nonce = ''
  if string.byte(rows, at + 8) == 1 then
    nonce = string.sub(rows, at + 9, at + 12)
  end
  low, high = string.byte(rows, at + 13, at + 14)
  local size = low + 256 * high
  local old = redis.call('HGET', key, name)
  if (old and #old < 65536 and string.sub(old, 1, 4) or '') == nonce then
    if not old and redis.call('HLEN', key) >= tonumber(ARGV[2]) then
      redis.call('HDEL', key, redis.call('HKEYS', key)[1])
    end
    redis.call('HSET', key, name, string.sub(rows, at + 15, at + 14 + size))
    done[#done + 1] = '\\1'
  else
    done[#done + 1] = '\\0'
  end
  at = at + 15 + size
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIREAT', key, ARGV[1])
end
return table.concat(done)
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """By the clock: number, and when its buckets expire (Unix time, ms)."""

    number: int
    expires_ms: int

    @classmethod
    def at(cls, now_s: float, period_s: float) -> Generation:
        number = int(now_s // period_s)
        return cls(number, int((number + 2) * period_s * 1000))

    @property
    def letter(self) -> bytes:
        return b"01"[self.number & 1 : (self.number & 1) + 1]

    @property
    def before(self) -> bytes:
        return b"10"[self.number & 1 : (self.number & 1) + 1]


class Layout:
    """The names of one namespace."""

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self._tenant = seal.tenant_tag.encode()
        self._space = seal.tag.encode()
        self.delta = self._own(b"delta")
        self.log = self._own(b"log")

    def locate(self, row: Row) -> tuple[int, bytes]:
        """The number of the row's bucket, and its field."""
        place, field = self.seal.place(key_of(row))
        return place % BUCKETS, field

    def bucket(self, number: int, generation: bytes) -> bytes:
        return b"%b{%b.%x}:%b:n%b%x" % (PREFIX, self._tenant, number % SPREAD, self._space, generation, number)

    def _own(self, name: bytes) -> bytes:
        return b"%b{%b.d}:%b:%b" % (PREFIX, self._tenant, self._space, name)


def directory(tenant_key: bytes) -> bytes:
    return b"%b{%b.d}:dir" % (PREFIX, tenant_tag(tenant_key).encode())


def all_of(tenant_key: bytes) -> bytes:
    """A pattern of all keys of a tenant."""
    return b"%b{%b.*" % (PREFIX, tenant_tag(tenant_key).encode())
