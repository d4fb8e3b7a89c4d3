"""What a worker says of what it does: counts agree with the outcomes, a traced command is found at each stage."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import structlog
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from processor.messages import Accepted, Conflict, Duplicate, Log, Rejected
from processor.partition import partition_of
from tests.http.test_health import free_port, get
from tests.pipeline.conftest import PARTITIONS, Pipeline, made, until
from tests.pipeline.test_commands import command, plain
from tests.servers import Kafka

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01".encode()
NOT_SAMPLED = b"00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Collector:
    """An OpenTelemetry collector, as far as a worker talks to one."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.services: set[str] = set()

    async def take_traces(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.services.add(named["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response()

    async def take_metrics(self, request: web.Request) -> web.Response:
        sent = ExportMetricsServiceRequest.FromString(await request.read())
        self.metrics |= {
            metric.name for resource in sent.resource_metrics for scope in resource.scope_metrics
            for metric in scope.metrics
        }  # fmt: skip
        return web.Response()

    def of(self, stage: str) -> list[Span]:
        """The spans whose name begins with this word."""
        return [span for span in self.spans if span.name.split()[0] == stage]


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """One that the workers of this test send to."""
    collector = Collector()
    app = web.Application()
    app.add_routes([web.post("/v1/traces", collector.take_traces), web.post("/v1/metrics", collector.take_metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    yield collector
    await runner.cleanup()


@asynccontextmanager
async def served(kafka: Kafka, prefix: str, store: str, **settings: object) -> AsyncIterator[tuple[Pipeline, int]]:
    port = free_port()
    pipeline = await made(kafka, prefix, store, http=f"127.0.0.1:{port}", **settings)
    async with pipeline.worker():
        yield pipeline, port


async def scraped(port: int) -> Samples:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"tidemark_{name}", frozenset(labels.items())]


async def test_the_metrics_agree_with_the_outcomes(real_kafka: Kafka, topic_prefix: str, sqlite_url: str) -> None:
    first = command("order-1", "Placed", "Paid", expected_version=0)
    sent = [first, first, command("order-1", "Shipped", expected_version=7), plain(b"{"), *[command("hot", "A")] * 3]
    async with served(real_kafka, topic_prefix, sqlite_url) as (pipeline, port):
        await pipeline.send(*sent)
        outcomes = await pipeline.outcomes(len(sent))
        async with asyncio.timeout(20):
            while value(samples := await scraped(port), "published_total", kind="reply") < len(sent):
                await asyncio.sleep(0.05)
        _, status = await get(port, "/status")
    counted = Counter(type(outcome) for outcome in outcomes.values())
    reasons = {Conflict: "wrong_expected_version", Rejected: "malformed"}
    assert counted == {Accepted: 2, Duplicate: 3, Conflict: 1, Rejected: 1}
    for kind, count in counted.items():
        labels = {"tenant": "default", "outcome": kind.__name__.lower()}
        labels |= {"reason": reasons[kind]} if kind in reasons else {}
        assert value(samples, "commands_total", **labels) == count
    assert value(samples, "events_total", tenant="default") == 3
    assert value(samples, "published_total", kind="event") == 3
    assert value(samples, "dead_letters_total") == 1
    assert value(samples, "command_duration_seconds_count") == len(sent)
    assert value(samples, "cycle_commands_sum") == len(sent)
    assert value(samples, "claims_total") == value(samples, "logs", state="running") == 4
    assert value(samples, "stage_duration_seconds_count", stage="commit") >= 1
    watermarks = [found for (name, _), found in samples.items() if name == "tidemark_watermark"]
    assert (len(watermarks), sum(watermarks)) == (4, 3)
    assert {"tenant": "default", "stream": "hot", "share": 0.5} in status["hot_streams"]
    assert value(samples, "hot_stream", tenant="default", stream="hot") == 0.5


async def test_lag_store_and_backlogs_are_told(real_kafka: Kafka, topic_prefix: str, sqlite_url: str) -> None:
    async with served(real_kafka, topic_prefix, sqlite_url) as (_, port):
        async with asyncio.timeout(20):
            while len([name for name, _ in await scraped(port) if name == "tidemark_lag"]) < 4:
                await asyncio.sleep(0.05)
        samples = await scraped(port)
        ready, answer = await get(port, "/ready")
    for name in ("lag", "behind_seconds", "feed_backlog", "reply_backlog"):
        assert [found for (one, _), found in samples.items() if one == f"tidemark_{name}"] == [0.0] * 4
    assert value(samples, "store_up") == 1
    assert value(samples, "store_size_bytes") > 10_000
    assert value(samples, "store_connections", state="most") == 4
    assert (ready, answer) == (200, {"ready": True, "logs": 4, "store": "ok"})


async def test_a_sampled_command_is_traced_from_its_client_to_the_feed(
    real_kafka: Kafka, topic_prefix: str, sqlite_url: str, collector: Collector
) -> None:
    async with served(real_kafka, topic_prefix, sqlite_url) as (pipeline, _):
        await pipeline.send(command("order-1", "Placed"), headers=[("traceparent", TRACEPARENT)])
        await pipeline.send(command("order-1", "Paid"), headers=[("traceparent", NOT_SAMPLED)])
        await pipeline.send(command("order-2", "Placed"))
        await pipeline.outcomes(3)
        feed = await pipeline.records(pipeline.names.events)
        await until(lambda: collector.metrics >= {"tidemark.commands", "tidemark.command.duration", "tidemark.lag"})
    (process,) = collector.of("process")
    assert (process.trace_id.hex(), process.parent_span_id.hex()) == (TRACE_ID, "b7ad6b7169203331")
    attributes = {one.key: one.value.string_value or one.value.int_value for one in process.attributes}
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": pipeline.names.commands,
        "messaging.destination.partition.id": attributes["messaging.destination.partition.id"],
        "messaging.consumer.group.name": pipeline.settings.group,
        "messaging.kafka.offset": 0,
        "tidemark.tenant": "default",
        "tidemark.stream": "order-1",
        "tidemark.outcome": "accepted",
        "tidemark.first_position": 1,
        "tidemark.last_position": 1,
    }
    stages = [collector.of(stage) for stage in ("receive", "decide", "commit", "publish")]
    assert [[(one.trace_id.hex(), one.parent_span_id) for one in spans] for spans in stages] == [
        [(TRACE_ID, process.span_id)]
    ] * 4
    assert TRACEPARENT in [dict(record.headers).get("traceparent") for record in feed]
    assert collector.services == {"tidemark"}


async def test_of_commands_without_a_trace_one_in_so_many_begins_one_and_what_is_received_at_once_is_linked(
    real_kafka: Kafka, topic_prefix: str, sqlite_url: str, collector: Collector
) -> None:
    async with served(real_kafka, topic_prefix, sqlite_url, trace_one_in=5, linger_ms=300) as (pipeline, _):
        async with pipeline.producer(linger_ms=100) as producer:
            for key, sent in [command(f"order-{number}", "Placed") for number in range(20)]:
                await producer.send(pipeline.names.commands, sent, key)
        await pipeline.outcomes(20)
    spans = {span.span_id: span for span in collector.of("process")}
    assert len(spans) == 4
    assert len({span.trace_id for span in spans.values()}) == 4
    received = [span_id for span in collector.of("receive") for span_id in (span.parent_span_id, *_links(span))]
    assert sorted(received) == sorted(spans)
    assert {span.parent_span_id for span in collector.of("commit")} <= spans.keys()


def _links(span: Span) -> list[bytes]:
    return [link.span_id for link in span.links]


async def test_what_is_logged_of_a_traced_command_carries_its_trace(
    real_kafka: Kafka, topic_prefix: str, sqlite_url: str, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    from processor.cli.logs import configure_logs

    root = logging.getLogger()
    before = root.handlers[:], root.level
    pipeline = await made(real_kafka, topic_prefix, sqlite_url, reply_topics=["*"], log_format="json")
    try:
        configure_logs(pipeline.settings)
        # Loggers that are kept would go on as they are configured here, in the tests that follow.
        structlog.configure(cache_logger_on_first_use=False)
        async with pipeline.worker():
            headers = [("traceparent", TRACEPARENT), ("reply_to", b"no-such-topic")]
            await pipeline.send(command("order-1", "Placed"), headers=headers)
            logged = ""
            async with asyncio.timeout(20):
                while "reply topic" not in logged:
                    await asyncio.sleep(0.05)
                    logged += capsys.readouterr().err
    finally:
        structlog.reset_defaults()
        root.handlers[:], root.level = before
    (line,) = [json.loads(line) for line in logged.splitlines() if "reply topic" in line]
    assert line["trace_id"] == TRACE_ID
    assert line["span_id"] in [span.span_id.hex() for span in collector.of("publish")]


async def test_a_transactions_markers_are_no_lag(sqlite_pipeline: Pipeline) -> None:
    log = Log("default", partition_of(b"order-1", PARTITIONS))
    async with sqlite_pipeline.worker() as worker:
        watch = worker._watch
        assert watch is not None
        async with sqlite_pipeline.producer(transactional_id=f"{sqlite_pipeline.settings.group}-client") as producer:
            for number in range(3):
                async with producer.transaction():
                    key, sent = command("order-1", f"Event{number}")
                    await producer.send(sqlite_pipeline.names.commands, sent, key)
        await sqlite_pipeline.outcomes(3)
        # Three commands, and a marker behind each.
        await until(lambda: log in watch._fetched and watch._fetched[log].end == 6)
        await until(lambda: {one.log: one.lag for one in watch.reading().logs}[log] == 0)
        (reading,) = [one for one in watch.reading().logs if one.log == log]
    assert (reading.watermark, reading.behind_s, reading.reply_backlog) == (3, 0.0, 0)
