"""Prometheus metrics of the drafter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from nacre.runtime.draft_worker import DraftWorker


class DrafterMetrics:
    """Counters follow the worker's own totals; gauges are sampled."""

    def __init__(self, method: str) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nacre_{name}", text, labels, registry=self.registry)

        self._steps = counter("draft_steps", "Draft steps.")
        self._tokens = counter("draft_tokens", "Guesses made.", "method").labels(method)
        self._sent = counter("draft_tokens_sent", "Guesses sent.", "method").labels(method)
        self._right = counter("draft_tokens_right", "Guesses that were committed.", "method").labels(method)
        self._wasted = counter("draft_tokens_wasted", "Guesses contradicted by a commit.", "reason").labels("rejected")
        self._ended = counter("drafted_sessions", "Sessions left, by outcome.", "outcome")
        self._sessions = Gauge("nacre_draft_sessions_running", "Sessions drafted for now.", registry=self.registry)
        self._seen = dict.fromkeys(("steps", "guessed", "sent", "right", "lost"), 0)

    def session_ended(self, outcome: str) -> None:
        self._ended.labels(outcome).inc()

    def sample(self, worker: DraftWorker) -> None:
        """Takes over what the worker has counted since the last call."""
        self._sessions.set(worker.session_count)
        pairs = (
            ("steps", self._steps),
            ("guessed", self._tokens),
            ("sent", self._sent),
            ("right", self._right),
            ("lost", self._wasted),
        )
        for name, metric in pairs:
            total = getattr(worker.totals, name)
            metric.inc(total - self._seen[name])
            self._seen[name] = total
