"""How fast the broker is asked for records, and what they are handed out as."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecord
from faust.types import TP

from processor.kafka.pace import Utilization, rest_ms
from processor.kafka.sessions import FetchSessions
from processor.kafka.slices import SliceReader
from processor.messages import Slice
from tests.pipeline.conftest import Pipeline, until
from tests.pipeline.test_commands import command


@pytest.mark.parametrize("busy", [0.6, 1.0])
async def test_the_broker_gathers_records_while_they_come_on_many_partitions_and_not_when_they_are_few(
    sqlite_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, busy: float
) -> None:
    monkeypatch.setattr(Utilization, "share", busy)
    pace = SliceReader._pace
    paces: list[tuple[int, int, int]] = []

    def noted(reader: SliceReader, consumer: AIOKafkaConsumer, slices: int) -> None:
        fetcher = consumer._fetcher
        assert {"_fetch_min_bytes", "_fetch_max_wait_ms"} <= vars(fetcher).keys()
        pace(reader, consumer, slices)
        paces.append((slices, fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms))

    # Before there is a worker, so that one fetch finds them all.
    await sqlite_pipeline.send(*[command(f"order-{number}", "Placed") for number in range(40)])
    monkeypatch.setattr(SliceReader, "_pace", noted)
    async with sqlite_pipeline.worker():
        assert len(await sqlite_pipeline.outcomes(40)) == 40
        await until(lambda: paces[-1][0] == 0)
    gathering = [(slices, least, wait_ms) for slices, least, wait_ms in paces if slices >= 3]
    assert gathering
    assert all(least > 1 and wait_ms == int(rest_ms(slices, busy)) < 100 for slices, least, wait_ms in gathering)
    few = 1 if busy == 1.0 else 3
    assert {(least, wait_ms) for slices, least, wait_ms in paces if slices < few} == {(1, 100)}


async def test_records_are_handed_out_as_they_were_read(
    sqlite_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `ConsumerRecord` made of each takes as long as all else that there is to fetching it."""
    to_slice = SliceReader._slice
    kinds: set[type] = set()

    def noted(reader: SliceReader, consumer: AIOKafkaConsumer, tp: TP, span: Any, records: list[Any]) -> Slice:
        kinds.update(map(type, records))
        return to_slice(reader, consumer, tp, span, records)

    monkeypatch.setattr(SliceReader, "_slice", noted)
    async with sqlite_pipeline.worker():
        await sqlite_pipeline.send(*[command(f"order-{number}", "Placed") for number in range(4)])
        assert len(await sqlite_pipeline.outcomes(4)) == 4
    assert kinds == {DefaultRecord}


async def test_a_worker_that_ends_while_its_fetches_fail_leaves_no_connection_open(
    sqlite_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a fetch pauses between two tries, its cancelling comes out of aiokafka's stop, as if it were cancelled."""
    consumers: list[AIOKafkaConsumer] = []
    failed = asyncio.Event()
    start = SliceReader.on_start

    async def noted(reader: SliceReader) -> None:
        await start(reader)
        consumers.append(reader._ensure_consumer())

    async def fail(sessions: FetchSessions, node_id: int, request: Any) -> None:
        failed.set()
        raise KafkaError("away")

    monkeypatch.setattr(SliceReader, "on_start", noted)
    async with sqlite_pipeline.worker():
        monkeypatch.setattr(FetchSessions, "send", fail)
        await failed.wait()
    (consumer,) = consumers
    assert not any(connection.connected() for connection in consumer._client._conns.values())
