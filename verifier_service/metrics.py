"""Prometheus metrics of the verifier, under the names the field's dashboards expect."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nacre.runtime.verifier_host import VerifierHost
from nacre.runtime.verify_pass import PassResult

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_POSITIONS = 16


class VerifierMetrics:
    """All metrics carry `model_name`; none carries a user, session or request."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model_name}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"nacre_{name}", text, ("model_name", *labels), registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nacre_{name}", text, ("model_name", *labels), registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"nacre_{name}", text, ("model_name",), buckets=buckets, registry=self.registry)

        running = gauge("num_requests_running", "Sessions open now.")
        waiting = gauge("num_requests_waiting", "Sessions whose owner is away.")
        self._running, self._waiting = running.labels(model_name), waiting.labels(model_name)
        self._kv = gauge("kv_cache_usage_perc", "Share of key/value slots in use, 0 to 1.").labels(model_name)
        self._tokens = counter("generation_tokens", "Output tokens committed.").labels(model_name)
        self._prompt = counter("prompt_tokens", "Prompt tokens computed.").labels(model_name)
        self._drafts = counter("spec_decode_num_drafts", "Passes that verified at least one guess.").labels(model_name)
        self._draft_tokens = counter("spec_decode_num_draft_tokens", "Guesses verified.").labels(model_name)
        self._accepted = counter("spec_decode_num_accepted_tokens", "Guesses found right.").labels(model_name)
        per_position = counter(
            "spec_decode_num_accepted_tokens_per_pos",
            "Guesses found right, by depth below the tip.",
            "position",
        )
        self._per_position = [per_position.labels(model_name, str(i)) for i in range(_POSITIONS)]
        self._rows = histogram("verify_batch_tokens", "Rows of a pass.", _ROWS).labels(model_name)
        self._seconds = histogram("verify_step_seconds", "Duration of a pass.", _SECONDS).labels(model_name)
        self._queued = histogram("verify_queue_seconds", "Wait of a session for its pass.", _SECONDS).labels(model_name)
        self._drafters = gauge("drafters", "Drafters joined now.", "method")
        self._stream_errors = counter("stream_errors", "Streams ended with an error.", "code")

    def drafters(self, method: str) -> Gauge:
        return self._drafters.labels(self._labels["model_name"], method)

    def stream_error(self, code: str) -> None:
        self._stream_errors.labels(self._labels["model_name"], code).inc()

    def observe(self, result: PassResult) -> None:
        """Counts one pass."""
        if not result.outcomes:
            return
        self._rows.observe(result.rows)
        self._seconds.observe(result.duration_ms / 1e3)
        for outcome in result.outcomes:
            self._queued.observe(outcome.item.queue_ms / 1e3)
            self._prompt.inc(outcome.prompt_rows)
            resolution = outcome.resolution
            if resolution is None:
                continue
            self._tokens.inc(len(resolution.commit.tokens))
            if resolution.planned:
                self._drafts.inc()
                self._draft_tokens.inc(resolution.planned)
                self._accepted.inc(resolution.matched)
                for depth in range(min(resolution.matched, _POSITIONS)):
                    self._per_position[depth].inc()

    def sample(self, host: VerifierHost, kv_usage: float) -> None:
        """Refreshes the gauges."""
        away = sum(1 for session in host.sessions if session.owner_lost_at is not None)
        self._running.set(host.session_count - away)
        self._waiting.set(away)
        self._kv.set(kv_usage)
