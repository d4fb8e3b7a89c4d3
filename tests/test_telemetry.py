"""Counts, durations, hot streams and the numbers that go out, without a broker or a store."""

import asyncio
import itertools
import random
import socket
import threading
import time
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span
from prometheus_client.parser import text_string_to_metric_families

from processor.messages import Log, Publication, Slice
from processor.names import TopicNames
from processor.partition import partition_of
from processor.settings import Settings
from processor.store import Committed, Usage
from processor.telemetry.export import Telemetry
from processor.telemetry.histogram import Histogram
from processor.telemetry.hot import Hot
from processor.telemetry.meter import WorkerMeter
from processor.telemetry.reading import LogReading, Reading
from processor.telemetry.tracing import CommandTraces
from tests.records import LOG, PARTITIONS, Past, command, event, record

NAMES = {"default": TopicNames.of("t.", "default")}
PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


# --- histograms


@given(st.lists(st.floats(-20, 5), max_size=50), st.lists(st.floats(0, 20), max_size=5))
def test_many_ages_at_once_count_as_values_one_after_the_other(since: list[float], single: list[float]) -> None:
    bounds = (1.0, 2.0, 5.0, 10.0)
    histogram = Histogram(bounds)
    histogram.add_ages(0.0, sorted(since))
    for value in single:
        histogram.add(value)
    everything = [max(0.0, -moment) for moment in since] + single
    counted = histogram.counted()
    expected = Counter(bisect_left(bounds, value) for value in everything)
    assert counted.buckets == [expected[number] for number in range(5)]
    assert counted.sum == pytest.approx(sum(everything))
    assert (counted.least, counted.most) == (min(everything, default=0.0), max(everything, default=0.0))


# --- hot streams


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_stream_with_a_notable_share_is_found_among_many_in_bounded_memory() -> None:
    hot: Hot[str] = Hot(capacity=20, clock=Clock())
    keys = ["hot"] * 2_000 + ["warm"] * 1_000 + [f"cold-{number}" for number in range(7_000)]
    random.Random(1).shuffle(keys)
    for begin in range(0, len(keys), 7):
        hot.count(keys[begin : begin + 7])
    (first, share), (second, _), *_ = hot.top(20, 0.0)
    assert (first, second) == ("hot", "warm")
    assert 0.2 - 1 / 20 <= share <= 0.2


def test_what_was_hot_two_windows_ago_is_forgotten() -> None:
    clock = Clock()
    hot: Hot[str] = Hot(clock=clock)
    hot.count(["old"], 3)
    clock.now_s = 70.0
    hot.turn()
    hot.count(["new"])
    assert hot.top(5, 0.0) == [("old", 0.75), ("new", 0.25)]
    assert hot.top(5, 0.5) == [("old", 0.75)]
    clock.now_s = 130.0
    assert hot.top(5, 0.0) == [("new", 1.0)]
    clock.now_s = 1_000.0
    assert hot.top(5, 0.0) == []


def test_of_a_large_cycle_some_commands_stand_for_the_others() -> None:
    meter, past = WorkerMeter(), Past()
    meter.decided([past.plan(*[record(number, command(event(number))) for number in range(10)])])
    plans = [
        past.plan(*[record(number, command(event(number))) for number in range(at, at + 8)]) for at in range(10, 330, 8)
    ]
    meter.decided(plans)
    assert meter.hot_streams(5) == [(("default", LOG_STREAM), 1.0)]
    assert meter.commands == {("default", "accepted", ""): 330}
    assert meter._hot._now.total == pytest.approx(330, abs=16)
    assert meter.hot_streams(0) == []


def test_streams_that_take_turns_have_the_same_share() -> None:
    meter, past = WorkerMeter(), Past()
    names = (
        name
        for name in map("order-{}".format, itertools.count())
        if partition_of(name.encode(), PARTITIONS) == LOG.partition
    )
    streams = list(itertools.islice(names, 16))
    for begin in range(0, 48 * 64, 48):
        entries = [record(begin + place, command(stream=streams[place % 16])) for place in range(48)]
        meter.decided([past.plan(*entries)])
    shares = dict(meter.hot_streams(20))
    assert shares == {("default", stream): pytest.approx(1 / 16) for stream in streams}


LOG_STREAM = "order-42"

# --- the cycles' meter


def test_only_what_is_committed_counts_as_decided() -> None:
    meter, past = WorkerMeter(), Past()
    plan = past.plan(record(0, command(event(1))), record(1, command(event(1))), record(2, b"{"))
    cycle = meter.cycle([Slice(LOG, 1, 0, 3, [answer[0] for answer in plan.answers])])
    cycle.read(known=2, unknown=1)
    cycle.loading()
    cycle.loaded()
    cycle.decided()
    cycle.committing()
    cycle.committed({LOG: plan}, {LOG: Committed.FENCED})
    assert not meter.commands and meter.commits == {Committed.FENCED: 1}
    meter.cycle([]).committed({LOG: plan}, {LOG: Committed.YES})
    assert meter.commands == {
        ("default", "accepted", ""): 1, ("default", "duplicate", ""): 1, ("default", "rejected", "malformed"): 1,
    }  # fmt: skip
    assert meter.heads == {"hit": 2, "miss": 1}
    assert [meter.stages[stage].counted().buckets[0] for stage in ("load", "decide")] == [1, 1]


def test_a_held_log_and_a_retry_excuse_a_log_that_stands_still_a_commit_does_not() -> None:
    meter = WorkerMeter()
    plan = Past().plan(record(0, command()))
    meter.cycle([]).committed({LOG: plan}, {LOG: Committed.YES})
    assert meter.faults == 0
    meter.cycle([]).committed({LOG: plan}, {LOG: Committed.BUSY})
    meter.store_failed()
    assert meter.faults == 2


# --- what goes out


def scraped(telemetry: Telemetry) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(telemetry.prometheus_text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_metric_has_as_many_points_as_there_are_logs_and_forgets_those_that_left() -> None:
    logs = [LogReading(Log("acme", number), 1, 2, None if number else 7, 0.5, 3, 4) for number in range(3_000)]
    reading = Reading({"running": 3_000}, logs, Usage(1_000, 2, 5))
    telemetry = Telemetry(Settings(), NAMES, lambda: reading)
    samples = scraped(telemetry)
    assert len(samples["tidemark_watermark"]) == 3_000
    assert samples["tidemark_lag"] == {(("partition", "0"), ("tenant", "acme")): 7.0}
    assert samples["tidemark_store_up"] == {(): 1.0}
    assert samples["process_resident_memory_bytes"][()] > 0
    reading = Reading({"running": 1}, logs[1:2], None)
    samples = scraped(telemetry)
    assert samples["tidemark_watermark"] == {(("partition", "1"), ("tenant", "acme")): 2.0}
    assert samples["tidemark_store_up"] == {(): 0.0}
    assert "tidemark_store_size_bytes" not in samples


def test_no_stream_is_named_where_none_is_to_be() -> None:
    for most, expected in ((0, 0), (5, 1)):
        telemetry = Telemetry(Settings(hot_streams=most), NAMES, lambda: Reading({}, [], None))
        telemetry.meter.decided([Past().plan(record(0, command()))])
        assert len(scraped(telemetry).get("tidemark_hot_stream", {})) == expected


async def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setattr("processor.telemetry.export._CLOSE_S", 0.1)
        telemetry = Telemetry(Settings(), NAMES, lambda: Reading({}, [], None))
        await telemetry.close()
        sending = [thread for thread in threading.enumerate() if thread.name == "telemetry"]
        assert sending
        for thread in sending:  # its tries draw from `random`, which Hypothesis would notice in a later test
            await asyncio.to_thread(thread.join)


# --- traces


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traces(spans: InMemorySpanExporter, one_in: int = 0) -> CommandTraces:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return CommandTraces(provider, NAMES, group="g", database="sqlite", one_in=one_in)


def piece(begin: int, *parents: bytes | None) -> Slice:
    records = [
        record(begin + number, command(), headers=[("other", b"x"), ("traceparent", parent)] if parent else [])
        for number, parent in enumerate(parents)
    ]
    return Slice(LOG, 1, begin, begin + len(records), records)


SAMPLED = f"00-{PARENT[0]}-{PARENT[1]}-01".encode()


@pytest.mark.parametrize(
    "parent",
    [None, SAMPLED[:-1] + b"0", b"", b"no", SAMPLED[:-2] + b"zz", b"\xff" * 55, SAMPLED[:3] + b"0" * 32 + SAMPLED[35:]],
    ids=["none", "not sampled", "empty", "short", "no flags", "no text", "no trace id"],
)
def test_what_is_not_sampled_has_no_part_in_a_clients_trace(spans: InMemorySpanExporter, parent: bytes | None) -> None:
    meter = traces(spans)
    meter.received(piece(0, parent))
    cycle = meter.cycle([piece(0, parent)])
    with meter.publishing(LOG, Publication([], [], 1, 0, 1)):
        pass
    assert all(span.parent is None for span in spans.get_finished_spans() if span.name.startswith("process"))
    assert (cycle is None) == (not spans.get_finished_spans())


def test_stages_belong_to_the_first_traced_command_and_the_first_stage_is_linked_to_the_others(
    spans: InMemorySpanExporter,
) -> None:
    meter = traces(spans)
    taken = piece(5, SAMPLED, None, SAMPLED)
    meter.received(taken)
    cycle = meter.cycle([taken])
    assert cycle is not None
    cycle.decided()
    plan = Past().plan(*taken.records)
    with meter.publishing(LOG, Publication(plan.events, plan.answers, 8, 3, 1)):
        pass
    found = {span.name: span for span in spans.get_finished_spans()}
    assert [span.name for span in spans.get_finished_spans()] == [
        "receive t.commands", "decide", "publish t.events", "process t.commands", "process t.commands",
    ]  # fmt: skip
    first, second = [span for span in spans.get_finished_spans() if span.name == "process t.commands"]
    assert [span.attributes and span.attributes["messaging.kafka.offset"] for span in (first, second)] == [5, 7]
    for name in ("receive t.commands", "decide", "publish t.events"):
        stage = found[name]
        assert stage.parent is not None and first.context is not None
        assert stage.parent.span_id == first.context.span_id
        assert [link.context for link in stage.links] == ([second.context] if name.startswith("receive") else [])
    assert first.parent is not None and first.parent.span_id == int(PARENT[1], 16)


def test_what_was_sent_in_the_future_took_no_time_and_what_has_no_time_is_left_out() -> None:
    meter, past = WorkerMeter(), Past()
    later = int(time.time() * 1000) + 60_000
    plan = past.plan(*[record(number, command(event(number)), timestamp=at) for number, at in enumerate([later, None])])
    with meter.publishing(LOG, Publication(plan.events, plan.answers, 2, 2, 1)):
        pass
    counted = meter.end_to_end.counted()
    assert (sum(counted.buckets), counted.sum) == (1, 0.0)


def test_only_the_first_of_a_cycle_has_its_publication_as_a_child(spans: InMemorySpanExporter) -> None:
    meter, other = traces(spans), Log("default", LOG.partition - 1)
    taken = piece(0, SAMPLED)
    pieces = [taken, Slice(other, 1, 0, 1, taken.records)]
    for one in pieces:
        meter.received(one)
    meter.cycle(pieces)
    logged: list[int] = []
    for one in pieces:
        with meter.publishing(one.log, Publication([], [], 1, 0, 1)):
            logged.append(get_current_span().get_span_context().span_id)
    found = {span.context.span_id: span for span in spans.get_finished_spans() if span.context}
    assert [found[span_id].name.split()[0] for span_id in logged] == ["publish", "process"]


def test_a_log_that_begins_anew_forgets_what_was_on_its_way(spans: InMemorySpanExporter) -> None:
    meter = traces(spans)
    meter.received(piece(0, SAMPLED))
    meter.forget(LOG)
    assert meter.cycle([piece(0, SAMPLED)]) is None


def test_one_in_so_many_is_counted_over_slices(spans: InMemorySpanExporter) -> None:
    meter = traces(spans, one_in=4)
    for begin in range(0, 40, 3):
        meter.received(piece(begin, None, None, None))
    with meter.publishing(LOG, Publication([], [], 100, 0, 1)):
        pass
    offsets = [span.attributes["messaging.kafka.offset"] for span in spans.get_finished_spans() if span.attributes]
    assert offsets == list(range(3, 42, 4))


def test_commands_that_have_a_context_do_not_take_the_turns_of_the_others(spans: InMemorySpanExporter) -> None:
    meter = traces(spans, one_in=2)
    for begin in range(0, 12, 3):
        meter.received(piece(begin, None, SAMPLED[:-1] + b"0", SAMPLED[:-1] + b"0"))
    with meter.publishing(LOG, Publication([], [], 100, 0, 1)):
        pass
    offsets = [span.attributes["messaging.kafka.offset"] for span in spans.get_finished_spans() if span.attributes]
    assert offsets == [3, 6, 9]
