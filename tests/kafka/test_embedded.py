"""The embedded broker, as aiokafka's clients see it."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from processor.errors import BrokerUnreachable, SettingsError, TopicMismatch
from processor.kafka.embedded import UNNAMED_PARTITIONS, EmbeddedBroker
from processor.partition import partition_of

TOPIC = "commands"
RECORDS = 200


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker([TOPIC], partitions=8) as broker:
        yield broker


@asynccontextmanager
async def producing(broker: EmbeddedBroker) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(broker: EmbeddedBroker) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=broker.bootstrap,
        group_id="group",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=1_500,
        heartbeat_interval_ms=500,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def fill(broker: EmbeddedBroker, records: int) -> None:
    async with producing(broker) as producer:
        for number in range(records):
            await producer.send(
                TOPIC, b"%d" % number, b"key-%d" % number, timestamp_ms=1_000 + number, headers=[("h", b"\x00\xff")]
            )


async def take(consumer: AIOKafkaConsumer, records: int) -> list[ConsumerRecord]:
    taken: list[ConsumerRecord] = []
    while len(taken) < records:
        for part in (await consumer.getmany(timeout_ms=1_000)).values():
            taken += part
    return taken


async def test_records_come_back_as_they_were_sent(broker: EmbeddedBroker) -> None:
    await fill(broker, RECORDS)
    async with consuming(broker) as consumer:
        taken = await take(consumer, RECORDS)
    assert sorted(int(record.value) for record in taken) == list(range(RECORDS))
    for record in taken:
        assert record.key == b"key-" + record.value
        assert record.timestamp == 1_000 + int(record.value)
        assert record.headers == (("h", b"\x00\xff"),)
        assert record.partition == partition_of(record.key, 8)


async def test_a_group_goes_on_where_it_committed(broker: EmbeddedBroker) -> None:
    await fill(broker, RECORDS)
    async with consuming(broker) as consumer:
        await take(consumer, RECORDS)
        await consumer.commit()
    await fill(broker, 1)
    async with consuming(broker) as consumer:
        (record,) = await take(consumer, 1)
        assert await consumer.committed(TopicPartition(TOPIC, record.partition)) == record.offset


async def test_topics_have_the_partitions_asked_for(broker: EmbeddedBroker) -> None:
    broker.create_topics(["events"])
    broker.create_topics(["replies"], partitions=3)
    async with producing(broker) as producer:
        found = {topic: len(await producer.partitions_for(topic)) for topic in (TOPIC, "events", "replies", "unnamed")}
    assert found == {TOPIC: 8, "events": 8, "replies": 3, "unnamed": UNNAMED_PARTITIONS}


async def test_two_brokers_know_nothing_of_each_other(broker: EmbeddedBroker) -> None:
    async with EmbeddedBroker([TOPIC], partitions=2) as other, producing(other) as producer:
        assert other.bootstrap != broker.bootstrap
        assert len(await producer.partitions_for(TOPIC)) == 2


def test_a_topic_that_is_there_is_not_created_again(broker: EmbeddedBroker) -> None:
    with pytest.raises(TopicMismatch, match="has a topic 'commands' already"):
        broker.create_topics([TOPIC])


def test_a_stopped_broker_says_so(broker: EmbeddedBroker) -> None:
    broker.stop()
    broker.stop()
    with pytest.raises(BrokerUnreachable, match="is not running"):
        assert broker.bootstrap


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SettingsError, match=r"pip install 'tidemark\[embedded\]'"):
        EmbeddedBroker()
