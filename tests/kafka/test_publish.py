"""The publisher of a log, on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec.structs import replace

from processor.kafka import batches
from processor.kafka.publish import Lane, LogPublisher, Outbound
from processor.kafka.topics import create_topics
from processor.messages import Publication
from processor.names import TopicNames
from processor.settings import Settings
from processor.stores.memory import MemoryStore
from tests.servers import Kafka
from tests.stores.logs import LOG, PARTITIONS, claim, commit, ship

BACKLOG = 10_000


class Noted(Outbound):
    """Notes how many records it was asked to send at once to each topic."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__({"bootstrap_servers": bootstrap}, compression=None, max_record_bytes=1_000_000)
        self.sends: list[tuple[str, int]] = []

    async def send(self, partition: int, lanes: Sequence[Lane]) -> None:
        self.sends += [(lane.topic, len(lane.items)) for lane in lanes]
        await super().send(partition, lanes)


@pytest.fixture
async def names(real_kafka: Kafka, topic_prefix: str) -> TopicNames:
    await create_topics(Settings(brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix, partitions=PARTITIONS))
    return TopicNames.of(topic_prefix, LOG.tenant)


@pytest.fixture
async def outbound(real_kafka: Kafka) -> AsyncIterator[Noted]:
    outbound = Noted(real_kafka.bootstrap)
    await outbound.start()
    yield outbound
    await outbound.stop()


async def publications(count: int, events: int) -> list[Publication]:
    """What so many cycles hand on, with a command of so many events each."""
    store = MemoryStore()
    at = await claim(store)
    found = []
    for number in range(count):
        plan = await commit(store, LOG, at, ship(LOG, *range(number * events, (number + 1) * events)))
        at = plan.after
        found.append(Publication(plan.events, plan.answers, at.next_offset, at.next_position - 1, 1))
    return found


async def no_events(*_: Any) -> list[Any]:
    raise AssertionError("the feed lacks nothing")


def publisher_on(outbound: Noted, names: TopicNames) -> LogPublisher:
    return LogPublisher(
        LOG, outbound, names, is_allowed=lambda _: False, feed_position=0, reply_from=0, backlog=BACKLOG,
        on_room=lambda: None,
    )  # fmt: skip


async def publish(outbound: Noted, names: TopicNames, put: Sequence[Publication]) -> LogPublisher:
    publisher = publisher_on(outbound, names)
    for publication in put:
        publisher.put(publication)
    running = asyncio.create_task(publisher.run(no_events, 0))
    try:
        async with asyncio.timeout(30):
            while not publisher.is_idle:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
    return publisher


async def positions(bootstrap: str, topic: str, count: int) -> list[str]:
    return [dict(record.headers)["ce_position"].decode() for record in await records(bootstrap, topic, count)]


async def records(bootstrap: str, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(topic, LOG.partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        async with asyncio.timeout(30):
            found = [await consumer.getone() for _ in range(count)]
        assert (await consumer.end_offsets([place]))[place] == count
    finally:
        await consumer.stop()
    return found


async def test_what_gathers_while_a_publication_is_under_way_goes_out_together(
    outbound: Noted, names: TopicNames, real_kafka: Kafka
) -> None:
    publisher = await publish(outbound, names, await publications(count=20, events=2))

    assert sorted(outbound.sends) == [(names.events, 40), (names.results, 20)]
    assert await positions(real_kafka.bootstrap, names.events, 40) == [str(n) for n in range(1, 41)]
    assert (publisher.acknowledged_offset, publisher.acknowledged_position) == (20, 40)


async def test_the_feed_is_the_same_without_the_native_part(
    outbound: Noted, names: TopicNames, real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = await publications(count=2, events=3)
    monkeypatch.setattr(batches, "NATIVE", False)
    await publish(outbound, names, put)
    monkeypatch.undo()
    await publish(outbound, names, put)

    found = [
        (record.key, record.value, record.headers, record.timestamp)
        for record in await records(real_kafka.bootstrap, names.events, 12)
    ]
    assert found[:6] == found[6:]


async def test_what_goes_out_together_is_bounded(outbound: Noted, names: TopicNames) -> None:
    publisher = await publish(outbound, names, await publications(count=30, events=100))

    batches = [count for topic, count in outbound.sends if topic == names.events]
    assert sum(batches) == 3_000
    assert max(batches) < 1_024
    assert publisher.acknowledged_position == 3_000


async def test_a_publication_takes_room_by_the_weight_of_its_commands() -> None:
    publisher = publisher_on(Noted("127.0.0.1:1"), TopicNames.of("", LOG.tenant))
    small, large = await publications(count=2, events=1)
    publisher.put(small)
    assert publisher.has_room
    publisher.put(replace(large, weight=BACKLOG))
    assert not publisher.has_room
