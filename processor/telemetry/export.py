"""The way out: Prometheus' text when it is asked for, OTLP where the standard variables name an endpoint."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from processor.names import TopicNames
from processor.settings import Settings
from processor.store import Usage
from processor.telemetry.meter import WorkerMeter
from processor.telemetry.readers import SCOPE, Histograms, PushReader, TextReader
from processor.telemetry.reading import LogReading, Reading
from processor.telemetry.tracing import CommandTraces

_CLOSE_S = 3.0
_MOST_POINTS = 100_000  # of one metric; the SDK's default of 2,000 is below what a worker's logs may be

Point = tuple[float, dict[str, str]]


_Counted = tuple[str, str, Callable[[], Iterable[Point]]]
"""Name, what it is, and how to look."""
_Gauge = tuple[str, str, str, Callable[[], Iterable[Point]]]
"""Name, unit, what it is, and how to look."""


class Telemetry:
    """A worker's meter, and what reads it. `read` says where the logs stand; it is called on any thread."""

    def __init__(self, settings: Settings, names: Mapping[str, TopicNames], read: Callable[[], Reading]) -> None:
        resource = _resource(settings)
        self._tracer_provider = _tracer_provider(resource)
        traces = None
        if self._tracer_provider is not None:
            traces = CommandTraces(
                self._tracer_provider,
                names,
                group=settings.group,
                database=settings.store.partition(":")[0],
                one_in=settings.trace_one_in,
            )
        self.meter = WorkerMeter(traces)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        histograms = Histograms(self.meter)
        readers: list[MetricReader] = [
            TextReader(histograms, registry=self._registry, scope_info_enabled=False, **_LIMITS)
        ]
        if _pushes("METRICS"):
            readers.append(_push_reader(histograms))
        self._meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        _register(self._meter_provider, self.meter, read, settings.hot_streams)

    def prometheus_text(self) -> bytes:
        """All metrics, in Prometheus' text format; may be called on any thread."""
        return generate_latest(self._registry)

    async def close(self) -> None:
        """Send what is left, for as long as a collector that is away may hold up the worker's end."""
        # On a thread that the process does not wait for: the exporters try again for longer than anyone wants.
        last = threading.Thread(target=self._send_last, name="telemetry", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, _CLOSE_S)

    def _send_last(self) -> None:
        if self._tracer_provider is not None:
            self._tracer_provider.shutdown()
        self._meter_provider.shutdown()


# --- by the standard variables


def _pushes(signal: str) -> bool:
    """Whether metrics or traces go to a collector."""
    named = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(named) and os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") == "otlp"


def _resource(settings: Settings) -> Resource:
    """What the standard variables say of this worker goes before what it says itself."""
    ours = Resource(
        {
            "service.name": "tidemark",
            "service.version": version("tidemark"),
            "service.instance.id": settings.group_instance_id or str(uuid4()),
        }
    )
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _tracer_provider(resource: Resource) -> TracerProvider | None:
    if not _pushes("TRACES"):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow to load

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _push_reader(histograms: Histograms) -> MetricReader:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

    return PushReader(histograms, OTLPMetricExporter(), **_LIMITS)


_LIMITS: dict[str, Any] = {"cardinality_limits": {ObservableCounter: _MOST_POINTS, ObservableGauge: _MOST_POINTS}}


# --- counters and gauges


def _register(provider: MeterProvider, meter: WorkerMeter, read: Callable[[], Reading], hot_streams: int) -> None:
    instruments = provider.get_meter(SCOPE)
    for name, about, points in _counters(meter):
        instruments.create_observable_counter(f"{SCOPE}.{name}", [_observed(points)], "", about)
    of_logs = [(name, unit, about, _of_logs(read, value)) for name, unit, about, value in _log_gauges()]
    for name, unit, about, points in [*of_logs, *_other_gauges(meter, read, hot_streams)]:
        instruments.create_observable_gauge(f"{SCOPE}.{name}", [_observed(points)], unit, about)


def _observed(points: Callable[[], Iterable[Point]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, labels) for value, labels in points()]

    return observe


def _counters(meter: WorkerMeter) -> Iterator[_Counted]:
    def commands() -> Iterable[Point]:
        for (tenant, outcome, reason), count in dict(meter.commands).items():
            yield count, {"tenant": tenant, "outcome": outcome, "reason": reason}

    def by(label: str, counts: Mapping[Any, int]) -> Callable[[], Iterable[Point]]:
        return lambda: [(count, {label: str(getattr(key, "value", key))}) for key, count in dict(counts).items()]

    yield "commands", "Commands decided and committed, by outcome and reason.", commands
    yield "events", "Events committed.", by("tenant", meter.events)
    yield "published", "Events and replies that the broker has acknowledged.", by("kind", meter.published)
    yield "commits", "Logs' shares of commits; fenced: another owner was there.", by("result", meter.commits)
    yield "heads", "Stream heads needed, known (hit) or asked of the store (miss).", by("result", meter.heads)
    yield "retries", "What failed and was tried again.", by("operation", meter.retries)
    yield "claims", "Logs taken over; each raised an epoch.", lambda: [(meter.claims, {})]
    yield "dead.letters", "Records that are no commands.", lambda: [(meter.dead_letters, {})]
    yield (
        "undeliverable.replies",
        "Replies that a client's own topic did not take.",
        lambda: [(meter.undeliverable, {})],
    )


def _log_gauges() -> Iterator[tuple[str, str, str, Callable[[LogReading], float | None]]]:
    yield "lag", "", "Commands on the broker that are not decided.", lambda one: one.lag
    yield "behind", "s", "Age of the last decided command, where others wait.", lambda one: one.behind_s
    yield "watermark", "", "Highest position that is durable.", lambda one: one.watermark
    yield "epoch", "", "How often the log has been claimed.", lambda one: one.epoch
    yield "feed.backlog", "", "Events committed, not yet acknowledged on the feed.", lambda one: one.feed_backlog
    yield "reply.backlog", "", "Commands committed, replies not yet acknowledged.", lambda one: one.reply_backlog


def _of_logs(read: Callable[[], Reading], value: Callable[[LogReading], float | None]) -> Callable[[], Iterable[Point]]:
    def points() -> Iterable[Point]:
        for one in read().logs:
            if (found := value(one)) is not None:
                yield found, {"tenant": one.log.tenant, "partition": str(one.log.partition)}

    return points


def _other_gauges(meter: WorkerMeter, read: Callable[[], Reading], hot_streams: int) -> Iterator[_Gauge]:
    def states() -> Iterable[Point]:
        return [(count, {"state": state}) for state, count in read().states.items()]

    def of_store(points: Callable[[Usage], list[Point]]) -> Callable[[], Iterable[Point]]:
        return lambda: points(store) if (store := read().store) is not None else []

    def up() -> Iterable[Point]:
        return [(float(read().store is not None), {})]

    def hot() -> Iterable[Point]:
        for (tenant, stream), share in meter.hot_streams(hot_streams):
            yield share, {"tenant": tenant, "stream": stream}

    def connections(store: Usage) -> list[Point]:
        return [(store.connections_used, {"state": "used"}), (store.connections, {"state": "most"})]

    yield "logs", "", "Assigned logs by state: claiming, running, stopped.", states
    yield "store.up", "", "Whether the store answers, with the right schema.", up
    yield "store.size", "By", "Bytes that the store takes.", of_store(lambda store: [(store.bytes, {})])
    yield "store.connections", "", "Connections to the store: used, and at the most.", of_store(connections)
    yield "hot.stream", "", "Shares of the hottest streams in this worker's commands.", hot
