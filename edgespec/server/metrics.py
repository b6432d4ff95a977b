"""Counts for Prometheus, by the names that vLLM's have; a registry for each server.

Source: vLLM's metrics reference for `vllm:spec_decode_*`, requests and tokens. What vLLM does not
have is called `edgespec:*`.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from edgespec.types import Stats

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
LABELS = ("model_name", "engine")
KIND = CONTENT_TYPE_LATEST


class Metrics:
    """What a server did since it started."""

    def __init__(self, model: str) -> None:
        """model: the one that is there from the start."""
        self._registry = CollectorRegistry(auto_describe=True)
        self._known = set[str]()
        self._counts: Callable[[str], tuple[int, int]] = lambda _: (0, 0)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, LABELS, registry=self._registry)

        self._drafts = counter("vllm:spec_decode_num_drafts", "Rounds that drafted")
        self._drafted = counter("vllm:spec_decode_num_draft_tokens", "Tokens drafted")
        self._accepted = counter("vllm:spec_decode_num_accepted_tokens", "Drafted tokens accepted")
        self._by_position = Counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos", "Accepted by position in the draft",
            (*LABELS, "position"), registry=self._registry,
        )  # fmt: skip
        self._prompt = counter("vllm:prompt_tokens", "Tokens of prompts")
        self._tokens = counter("vllm:generation_tokens", "Tokens generated")
        self._ended = Counter(
            "vllm:request_success", "Generations by how they ended", (*LABELS, "finished_reason"),
            registry=self._registry,
        )  # fmt: skip
        self._first_s = Histogram(
            "vllm:time_to_first_token_seconds", "From begin to the first token", LABELS,
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._answer_s = Histogram(
            "vllm:e2e_request_latency_seconds", "Of a generation, waiting not counted", LABELS,
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._running = Gauge(
            "vllm:num_requests_running", "Requests being answered", LABELS, registry=self._registry
        )
        self._waiting = Gauge(
            "vllm:num_requests_waiting", "Requests that wait", LABELS, registry=self._registry
        )
        self._told = Counter(
            "edgespec:http_responses", "Answers by status", ("status",), registry=self._registry
        )
        self._times = Gauge(
            "edgespec:times_plain", "Speed of the last answer over plain decoding, 0: not known",
            LABELS, registry=self._registry,
        )  # fmt: skip
        self._first = model

    def watch(self, counts: Callable[[str], tuple[int, int]]) -> None:
        """counts: a model's requests that are answered and that wait, whenever somebody looks."""
        self._counts = counts
        self.know(self._first)

    def know(self, model: str) -> None:
        """A model is open: its counts are there from now on, as 0."""
        if model in self._known:
            return
        self._known.add(model)
        names = labels(model)
        for one in (self._drafts, self._drafted, self._accepted, self._prompt, self._tokens):
            one.labels(**names)
        self._running.labels(**names).set_function(lambda: self._counts(model)[0])
        self._waiting.labels(**names).set_function(lambda: self._counts(model)[1])

    def observe(self, model: str, stats: Stats, finish: str) -> None:
        """A generation by this model is over."""
        names = labels(model)
        self._drafts.labels(**names).inc(sum(stats.rounds_by_length[1:]))
        self._drafted.labels(**names).inc(stats.n_drafted)
        self._accepted.labels(**names).inc(stats.n_accepted)
        for position, n in enumerate(stats.accepted_by_position):
            self._by_position.labels(**names, position=str(position)).inc(n)
        self._prompt.labels(**names).inc(stats.n_prompt)
        self._tokens.labels(**names).inc(stats.n_tokens)
        self._ended.labels(**names, finished_reason=finish or "abort").inc()
        if stats.n_tokens:
            self._first_s.labels(**names).observe(stats.ttft_s)
            self._answer_s.labels(**names).observe(stats.wall_s)
            self._times.labels(**names).set(stats.speedup)

    def responded(self, status: int) -> None:
        """An answer of this status was sent."""
        self._told.labels(status=str(status)).inc()

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self._registry)


def labels(model: str) -> dict[str, str]:
    """What counts of a model are told apart by."""
    return {"model_name": model, "engine": "0"}
