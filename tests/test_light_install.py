"""What a small device needs runs without torch and transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['safetensors'] = None; "


@pytest.mark.parametrize(
    "work",
    [
        "import nacre.client",
        "import gateway.server",
        (
            "import drafter_service.server, nacre.store.redis_store; "
            "from nacre.runtime.proposers import build_proposer; "
            "from nacre.runtime.settings import DrafterSettings; "
            "assert all(build_proposer(DrafterSettings(method=name)).proposer.traits.name == name "
            "for name in ('lookup', 'stand', 'recycling-growth', 'suffix'))"
        ),
        "import nacre.cli.app",
    ],
    ids=["client", "gateway", "drafter without a model", "command line"],
)
def test_it_runs_without_torch(work: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED + work], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


#: Forty tenants, each with a session open and much to learn. Without a bound for all of them together that is 150 MB
#: (stand) to 310 MB (recycling-growth) beside the program's own. And all that reading from a store may keep besides.
CROWD = """
import psutil
import drafter_service.server, nacre.store.redis_store
from nacre.drafting import DraftContext
from nacre.runtime.proposers import build_proposer
from nacre.runtime.settings import DrafterSettings
from nacre.sampling import SamplingParams

proposer = build_proposer(DrafterSettings(method={method!r})).proposer
rows = [((number * 7919 % 150000,), ((number, 255),)) for number in range(2000)]
output = tuple(range(1 << 16))
for tenant in range(40):
    proposer.open(tenant, DraftContext((1, 2, 3), 3, SamplingParams(), None, tenant=tenant))
    proposer.teach(tenant, rows, [output])

from nacre.runtime import lessons, store_reader
from nacre.store import Row
from nacre.store.packing import pack

def row(number):
    entries = tuple((number * 3 + place, 250 - place) for place in range(8))
    return Row("ngram", (number, number + 1, number + 2), entries, 2)

tier = store_reader.PublicTier(None)
tier.take([pack(row(number)) for number in range(store_reader.MOST_PUBLIC_ROWS)], ())
heard = [store_reader.Followed(None, tenant, tier) for tenant in range(store_reader.MOST_TENANTS)]
for tenant, followed in enumerate(heard):
    followed.hear(list(tier.rows.values()), ())
    followed.own.update(hash((tenant, context)) for context in range(store_reader.MOST_OWN_CONTEXTS))
waiting = lessons.Lessons(proposer.teach)
for piece in range(lessons.MOST_PIECES):
    first = 1_000_000 + piece * lessons.PIECE_ROWS
    waiting.add(0, store_reader.table_rows(map(row, range(first, first + lessons.PIECE_ROWS))), ())
assert len(tier.rows) == store_reader.MOST_PUBLIC_ROWS
assert len(waiting) == lessons.MOST_PIECES
resident = psutil.Process().memory_info().rss
assert resident <= 150_000_000, resident
"""


@pytest.mark.parametrize("method", ["recycling-growth", "stand", "suffix", "suffix+recycling-growth+stand"])
def test_a_drafter_without_a_model_stays_small_however_many_tenants_it_learns_from(method: str) -> None:
    script = BLOCKED + CROWD.format(method=method)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
