"""Prometheus metrics of the gateway, under the names the field's dashboards expect.

Rule: every label has few values, all known in advance but the model's name and the upstreams' addresses; never a user,
a request or a session.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nacre.v1 import session_pb2 as pb

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKEN_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048)
#: Paths that get a label of their own; everything else is "other".
KNOWN_PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/models", "/healthz", "/readyz", "/metrics"})
_KNOWN_METHODS = frozenset({"GET", "POST"})


class GatewayMetrics:
    """Counters and histograms of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.model_name = ""  # set once a verifier has said what it serves
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._http = counter("http_requests", "HTTP requests answered.", "path", "method", "code")
        self._grpc = counter("grpc_requests", "gRPC calls answered.", "method", "code")
        self._disconnects = counter("client_disconnects", "Clients that left before their answer was complete.")
        self._rate_limited = counter("rate_limited", "Requests refused because the queue was full.")
        model = ("model_name",)
        self._ttft = histogram("time_to_first_token_seconds", "From request to first token.", _SECONDS, *model)
        self._itl = histogram("inter_token_latency_seconds", "Gap between commits sent on.", _TOKEN_SECONDS, *model)
        self._tpot = histogram(
            "request_time_per_output_token_seconds", "(E2E - TTFT) / (tokens - 1) of a request.", _TOKEN_SECONDS, *model
        )
        self._e2e = histogram("e2e_request_latency_seconds", "From request to last token.", _SECONDS, *model)
        self._queue = histogram("request_queue_time_seconds", "Wait for a turn at the gateway.", _SECONDS, *model)
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens taken.", *model)
        self._tokens = counter("generation_tokens", "Output tokens delivered.", *model)
        self._success = counter("request_success", "Generations that ended well.", *model, "finished_reason")
        self._failures = counter("request_failures", "Generations that ended with an error.", *model, "reason")
        self._drafts = counter("spec_decode_num_drafts", "Verify passes of finished generations.", *model)
        self._draft_tokens = counter("spec_decode_num_draft_tokens", "Guesses verified.", *model)
        self._accepted = counter("spec_decode_num_accepted_tokens", "Guesses found right.", *model)
        self._failovers = counter("failovers", "Lost verifier streams and what became of them.", "stage", "outcome")
        self._gap = histogram("failover_gap_seconds", "From a lost stream to its successor.", _SECONDS)
        self._attaches = counter("drafter_attaches", "Drafters asked to join a session.", "outcome")
        self._choices = counter(
            "gateway_drafter_choices", "Drafters chosen among several kinds, by kind of text.", "method", "domain"
        )
        self._contradictions = counter(
            "contradictions",
            "Commits that differed from what was committed before: never, unless a verifier is broken.",
        )
        self._healthy = gauge("upstream_healthy", "1 if it takes sessions, else 0.", "role", "address")
        self._refused = counter("upstream_refusals", "Upstreams that do not fit the model served.", "role")
        self.running = gauge("num_requests_running", "Generations running now.")
        self.waiting = gauge("num_requests_waiting", "Generations waiting for their turn.")

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    # -- faces ---------------------------------------------------------------------------------------------------

    def http_answered(self, path: str, method: str, code: int) -> None:
        known = path if path in KNOWN_PATHS else "/v1/models" if path.startswith("/v1/models/") else "other"
        self._http.labels(known, method if method in _KNOWN_METHODS else "other", str(code)).inc()

    def grpc_answered(self, method: str, code: str) -> None:
        self._grpc.labels(method, code).inc()

    def client_left(self) -> None:
        self._disconnects.inc()

    def rate_limited(self) -> None:
        self._rate_limited.inc()

    # -- generations ---------------------------------------------------------------------------------------------

    def queued(self, seconds: float) -> None:
        self._queue.labels(self.model_name).observe(seconds)

    def first_token(self, seconds: float) -> None:
        self._ttft.labels(self.model_name).observe(seconds)

    def next_tokens(self, seconds: float) -> None:
        self._itl.labels(self.model_name).observe(seconds)

    def finished(self, reason: str, *, prompt_tokens: int, tokens: int, first_token_s: float, total_s: float) -> None:
        name = self.model_name
        self._success.labels(name, reason).inc()
        self._prompt_tokens.labels(name).inc(prompt_tokens)
        self._tokens.labels(name).inc(tokens)
        self._e2e.labels(name).observe(total_s)
        if tokens > 1:
            self._tpot.labels(name).observe((total_s - first_token_s) / (tokens - 1))

    def speculated(self, statistics: pb.SessionStatistics) -> None:
        name = self.model_name
        self._drafts.labels(name).inc(statistics.passes)
        self._draft_tokens.labels(name).inc(statistics.verified_guesses)
        self._accepted.labels(name).inc(statistics.accepted_guesses)

    def failed(self, reason: str) -> None:
        self._failures.labels(self.model_name, reason).inc()

    # -- upstreams -----------------------------------------------------------------------------------------------

    def failover(self, stage: str, outcome: str) -> None:
        """`stage`: rejoin or reopen; `outcome`: success or failure."""
        self._failovers.labels(stage, outcome).inc()

    def failover_gap(self, seconds: float) -> None:
        self._gap.observe(seconds)

    def contradiction(self) -> None:
        self._contradictions.inc()

    def attached(self, outcome: str) -> None:
        self._attaches.labels(outcome).inc()

    def drafter_chosen(self, method: str, domain: str) -> None:
        self._choices.labels(method, domain).inc()

    def upstream(self, role: str, address: str, healthy: bool) -> None:
        self._healthy.labels(role, address).set(int(healthy))

    def upstream_refused(self, role: str) -> None:
        self._refused.labels(role).inc()

    # -- construction --------------------------------------------------------------------------------------------

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nacre_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"nacre_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"nacre_{name}", text, labels, buckets=buckets, registry=self.registry)
