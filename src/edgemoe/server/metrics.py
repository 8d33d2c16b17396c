"""Counts for Prometheus: vLLM's names where the meaning is the same, ours for what only we have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgemoe.engine.parking import Parking
from edgemoe.engine.stats import Stats
from edgemoe.server.events import Finish

if TYPE_CHECKING:
    from edgemoe.server.answers import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; answers of this engine take from milliseconds to an hour.
LONG = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600)
SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TOKENS = (1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads


class Metrics:
    """All series of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._prompt = self._counter("vllm:prompt_tokens", "Tokens of prompts.")
        self._generated = self._counter("vllm:generation_tokens", "Tokens of answers.")
        self._queries = self._counter("vllm:prefix_cache_queries", "Tokens of prompts looked up.")
        self._hits = self._counter("vllm:prefix_cache_hits", "Tokens of prompts known from before.")
        self._done = self._counter("vllm:request_success", "Answers, by how they ended.", "finished_reason")
        self._failed = Counter(
            "edgemoe_request_failures", "Requests refused or broken off.", ["status"], registry=self.registry
        )
        self._first = self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", LONG)
        self._next = self._histogram("vllm:inter_token_latency_seconds", "From token to token.", SHORT)
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", LONG)
        self._queued = self._histogram("vllm:request_queue_time_seconds", "Waiting for a place.", LONG)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", "Place to first token.", LONG)
        self._decode = self._histogram("vllm:request_decode_time_seconds", "First to last token.", LONG)
        self._prompts = self._histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", TOKENS)
        self._answers = self._histogram("vllm:request_generation_tokens", "Tokens of an answer.", TOKENS)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["model_name", *labels], registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(name, text, ["model_name"], buckets=tuple(buckets), registry=self.registry)

    def watch_queue(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Show how many answers run and wait."""
        Gauge("vllm:num_requests_running", "Answers being made.", registry=self.registry).set_function(
            running
        )
        Gauge("vllm:num_requests_waiting", "Requests waiting.", registry=self.registry).set_function(waiting)

    def watch_engine(self, stats: Callable[[], Stats | None]) -> None:
        """Show what the engine counts; None when no model is loaded."""
        self.registry.register(_EngineCollector(stats))

    def watch_parking(self, parking: Callable[[], Parking | None]) -> None:
        """Show what is parked on disk; None when nothing is."""
        self.registry.register(_ParkingCollector(parking))

    def first_token(self, record: Record) -> None:
        """A request's first token came."""
        assert record.first_s is not None
        assert record.started_s is not None
        self._first.labels(record.model).observe(record.first_s - record.arrived_s)
        self._queued.labels(record.model).observe(record.started_s - record.arrived_s)
        self._prefill.labels(record.model).observe(record.first_s - record.started_s)

    def next_token(self, model: str, elapsed_s: float) -> None:
        """Another token came."""
        self._next.labels(model).observe(elapsed_s)

    def answered(self, record: Record, finish: Finish, *, is_first: bool) -> None:
        """An answer is complete, the first to its prompt or one more."""
        usage, model = finish.usage, record.model
        if is_first:
            self._prompt.labels(model).inc(usage.num_prompt)
            self._queries.labels(model).inc(usage.num_prompt)
            self._hits.labels(model).inc(usage.num_cached)
            self._prompts.labels(model).observe(usage.num_prompt)
        self._generated.labels(model).inc(usage.num_completion)
        self._done.labels(model, finish.reason).inc()
        self._answers.labels(model).observe(usage.num_completion)
        if record.last_s is not None and record.first_s is not None:
            self._whole.labels(model).observe(record.last_s - record.arrived_s)
            self._decode.labels(model).observe(record.last_s - record.first_s)

    def failed(self, status: int) -> None:
        """A request was refused, or its answer broke off."""
        self._failed.labels(str(status)).inc()

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)


class _EngineCollector:
    """Reads the engine's counts when the page is asked for. Counts go on rising when models are swapped."""

    def __init__(self, stats: Callable[[], Stats | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        if stats is None:
            return
        for name, text, value in (
            ("edgemoe_expert_hits", "Experts that were resident when asked for.", stats.expert_hits),
            ("edgemoe_expert_misses", "Experts that were not.", stats.expert_misses),
            ("edgemoe_read_bytes", "Bytes of experts read.", stats.bytes_read),
            ("edgemoe_far_bytes", "Of a store at a URL: bytes over the network.", stats.far_bytes),
            (
                "edgemoe_tier_bytes",
                "Of a store at a URL: bytes from its copy on this disk.",
                stats.tier_bytes,
            ),
            ("edgemoe_prefetch_wasted_bytes", "Bytes read ahead in vain.", stats.wasted_bytes),
            ("edgemoe_stall_seconds", "Time spent waiting for reads.", stats.waited_s),
            ("vllm:spec_decode_num_draft_tokens", "Tokens guessed and computed.", stats.num_drafted),
            ("vllm:spec_decode_num_accepted_tokens", "Of these, accepted.", stats.num_accepted),
        ):
            yield CounterMetricFamily(name, text, value=value)
        energy = CounterMetricFamily(
            "edgemoe_energy_joules", "Energy, by what says it: a counter, or an estimate.", labels=["source"]
        )
        energy.add_metric([stats.energy_source], stats.joules)
        yield energy
        yield GaugeMetricFamily("edgemoe_resident_bytes", "Memory of the process.", stats.resident_bytes)
        yield GaugeMetricFamily("edgemoe_budget_bytes", "The cap on it.", stats.budget_bytes)


class _ParkingCollector:
    """Reads what is parked when the page is asked for; counts are the loaded model's."""

    def __init__(self, parking: Callable[[], Parking | None]) -> None:
        self._parking = parking

    def collect(self) -> Iterator[Metric]:
        parking = self._parking()
        if parking is None:
            return
        yield GaugeMetricFamily("edgemoe_parked_bytes", "Size of parked texts.", parking.num_bytes)
        yield GaugeMetricFamily("edgemoe_parked_texts", "Texts of this model.", parking.num_texts)
        for name, text, value in (
            ("edgemoe_parked_hits", "Prompts whose beginning was read from disk.", parking.num_hits),
            ("edgemoe_parked_tokens_saved", "Tokens of theirs.", parking.num_tokens_saved),
        ):
            yield CounterMetricFamily(name, text, value=value)
