"""Channel and server arguments, each with the reason it is not the default.

`grpc.keepalive_timeout_ms` alone does not notice a peer that hangs without closing its socket; the HTTP/2 ping timeout
does. The server key for the least ping interval is `min_ping_interval_without_data_ms`: the similar-looking name of
the C macro is ignored silently.
"""

from __future__ import annotations

#: Session messages are small; only Open carries a whole prompt.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

_SHARED = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.http2.max_pings_without_data", 0),
]

CHANNEL_OPTIONS = [
    *_SHARED,
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # A verifier that comes back should be found again within seconds, not after the default two minutes.
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

SERVER_OPTIONS = [
    *_SHARED,
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Two servers on one port would split its connections between them; a port in use must be an error instead.
    ("grpc.so_reuseport", 0),
]
