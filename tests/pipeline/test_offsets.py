"""What is committed to the group, for lag tools: nothing rests on it, but it has to come right in the end."""

import asyncio
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.types import TP

from processor.kafka.slices import SliceReader
from tests.pipeline.conftest import Pipeline
from tests.pipeline.test_commands import command


async def committed(pipeline: Pipeline) -> dict[TopicPartition, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.brokers)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(pipeline.settings.group)
    finally:
        await admin.close()
    return {place: offset.offset for place, offset in found.items()}


async def test_an_offset_that_could_not_be_committed_is_committed_later(
    sqlite_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = aiokafka.AIOKafkaConsumer.commit
    failures = 0

    async def failing_commit(consumer: aiokafka.AIOKafkaConsumer, offsets: Any) -> None:
        nonlocal failures
        if failures < 2 and any(offset.offset for offset in offsets.values()):
            failures += 1
            raise KafkaError("the coordinator is away")
        await commit(consumer, offsets)

    monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "commit", failing_commit)
    async with sqlite_pipeline.worker(), asyncio.timeout(30):
        [(partition, offset)] = await sqlite_pipeline.send(command("order-1", "Placed"))
        place = TopicPartition(sqlite_pipeline.names.commands, partition)
        while (await committed(sqlite_pipeline)).get(place) != offset + 1:
            await asyncio.sleep(0.1)
    assert failures == 2


async def test_a_worker_ends_in_order_that_the_group_has_taken_all_partitions_from_meanwhile(
    sqlite_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def no_longer(reader: SliceReader) -> set[TP]:
        nonlocal asked
        asked += 1
        return set()

    async with sqlite_pipeline.worker(), asyncio.timeout(30):
        await sqlite_pipeline.send(command("order-1", "Placed"))
        await sqlite_pipeline.outcomes(1)
        monkeypatch.setattr(SliceReader, "assignment", no_longer)
    assert asked, "it has had an offset to commit"
