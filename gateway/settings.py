"""Settings of the gateway: one frozen dataclass, parsed once at the edge; every bound of the process is one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nacre.errors import InvalidArgument
from nacre.runtime.settings import Contradiction, setting

#: Value of `chat_template` that asks for the built-in plain-text dialogue.
PLAIN_CHAT_TEMPLATE = "plain"


@dataclass(frozen=True)
class GatewaySettings:
    """The gateway: one address for many verifiers and drafters, over HTTP and gRPC."""

    http_host: str = setting("127.0.0.1", "address to serve HTTP on")
    http_port: int = setting(8000, "HTTP port; 0 picks a free one", least=0, most=65535)
    grpc_host: str = setting("127.0.0.1", "address to serve gRPC on")
    grpc_port: int = setting(8001, "gRPC port; 0 picks a free one", least=0, most=65535)
    verifiers: tuple[str, ...] = setting((), "verifiers, host:port, comma separated; at least one")
    drafters: tuple[str, ...] = setting((), "drafters, host:port, comma separated")
    drafters_reach: tuple[str, ...] = setting(
        (), "VERIFIER=ADDRESS pairs: where drafters reach a verifier, if not at the address given above"
    )
    model_name: str = setting("", "name of the model over HTTP; empty takes the verifiers' model id")
    chat_template: str = setting(
        "", "Jinja file used instead of the model's own chat template, or 'plain' for a plain-text dialogue"
    )
    api_keys: tuple[str, ...] = setting((), "keys of which clients must send one; empty lets everyone in")
    seed: int = setting(0, "seed of requests that bring none; 0 draws one for each", least=0, most=(1 << 63) - 1)
    log_level: str = setting("info", "debug, info, warning or error")

    # Load.
    max_concurrency: int = setting(64, "most generations running at a time", least=1, most=100_000)
    max_queue: int = setting(256, "most generations waiting for their turn", least=0, most=100_000)
    queue_timeout_s: float = setting(30.0, "longest wait for a turn", least=0, most=3600)
    max_streams: int = setting(1024, "most gRPC session streams of clients and drafters", least=1, most=100_000)
    drain_s: float = setting(30.0, "seconds running generations may take to finish after SIGTERM", least=0, most=3600)

    # Drafters.
    drafters_per_session: int = setting(1, "drafters asked to join a generation that names no number", least=0, most=8)
    max_drafters: int = setting(8, "most drafters a generation may ask for", least=0, most=64)
    attach_timeout_s: float = setting(5.0, "longest wait for a drafter's answer", least=0.1, most=60)
    drafter_choice: bool = setting(
        True, "learn which kind of drafter is the fastest for which text, if there are several"
    )

    # Failover.
    poll_s: float = setting(1.0, "seconds between two looks at a verifier or drafter", least=0.02, most=60)
    poll_timeout_s: float = setting(2.0, "longest wait for the answer to a look", least=0.05, most=60)
    poll_failures: int = setting(3, "looks in a row that must fail before a peer counts as gone", least=1, most=100)
    open_timeout_s: float = setting(10.0, "longest wait for a verifier to admit a generation", least=0.1, most=600)
    rejoin_timeout_s: float = setting(
        2.0, "longest wait for a verifier to take its lost owner back", least=0.1, most=60
    )
    progress_timeout_s: float = setting(
        120.0, "longest silence of a verifier before its generation moves elsewhere", least=0.1, most=3600
    )
    failover_wait_s: float = setting(30.0, "longest wait for a verifier to come back", least=0, most=3600)
    max_failovers: int = setting(8, "most moves of one generation", least=0, most=100)
    owner_grace_s: float = setting(
        30.0, "seconds a gRPC generation keeps its place without its owner", least=0, most=3600
    )

    # Limits on one request.
    max_body_bytes: int = setting(4 << 20, "largest HTTP request body", least=1024, most=1 << 30)
    max_message_bytes: int = setting(256 << 10, "largest gRPC message but Open", least=1024, most=4 << 20)
    max_choices: int = setting(16, "largest n", least=1, most=128)
    max_prompts: int = setting(64, "most prompts in one request", least=1, most=4096)
    max_stops: int = setting(4, "most stop strings", least=1, most=64)
    max_stop_chars: int = setting(256, "longest stop string, in characters", least=1, most=65536)
    ping_s: float = setting(15.0, "seconds of silence after which a stream gets a comment line", least=0.05, most=600)

    contradictions: ClassVar[tuple[Contradiction, ...]] = (
        Contradiction(
            "grpc_port",
            "http_port",
            lambda chosen: chosen.grpc_port == chosen.http_port != 0 and chosen.grpc_host == chosen.http_host,
            "two listeners cannot share a port: change one of them",
        ),
        Contradiction(
            "drafters_per_session",
            "max_drafters",
            lambda chosen: chosen.drafters_per_session > chosen.max_drafters,
            "a generation that names no number would be refused: lower drafters_per_session or raise max_drafters",
        ),
        Contradiction(
            "queue_timeout_s",
            "max_queue",
            lambda chosen: chosen.queue_timeout_s == 0 and chosen.max_queue > 0,
            "who is to wait needs time to do so: raise queue_timeout_s or set max_queue to 0",
        ),
        Contradiction(
            "failover_wait_s",
            "poll_s",
            lambda chosen: 0 < chosen.failover_wait_s < chosen.poll_s,
            "the wait would be over before anyone looks: raise failover_wait_s, set it to 0 or lower poll_s",
        ),
    )

    def __post_init__(self) -> None:
        for name in ("verifiers", "drafters"):
            addresses = getattr(self, name)
            for address in addresses:
                _check_address(name, address)
            if len(set(addresses)) < len(addresses):
                raise InvalidArgument(f"{name} names an address twice; give each once", param=name)
        for pair in self.drafters_reach:
            verifier, equals, address = pair.partition("=")
            if not equals or verifier not in self.verifiers:
                raise InvalidArgument(
                    f"drafters_reach is {pair!r}; it must be VERIFIER=ADDRESS with one of the verifiers given",
                    param="drafters_reach",
                )
            _check_address("drafters_reach", address)

    def address_for_drafters(self, verifier: str) -> str:
        """Where drafters reach the verifier that the gateway reaches at `verifier`."""
        for pair in self.drafters_reach:
            if pair.startswith(f"{verifier}="):
                return pair.partition("=")[2]
        return verifier


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"{name} has {address!r}; an address is host:port, the port 1 to 65535", param=name)
