"""A store made again from the log: the same as a worker's, which `tests/cli` shows; here, what it does at the edges."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from processor.errors import Misfit, TopicMismatch
from processor.kafka.rebuild import rebuild
from processor.kafka.topics import create_topics
from processor.messages import Log
from processor.names import TopicNames
from processor.settings import Settings
from processor.stores import open_store
from tests.servers import Kafka


@pytest.fixture
async def settings(real_kafka: Kafka, topic_prefix: str) -> Settings:
    """Topics of two tenants."""
    settings = Settings(
        brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix, partitions=1, tenants=["default", "acme"]
    )
    await create_topics(settings)
    return settings


async def write(settings: Settings, tenant: str, count: int) -> str:
    """Commands of one event each on one stream; returns the topic."""
    topic = TopicNames.of(settings.topic_prefix, tenant).commands
    async with AIOKafkaProducer(bootstrap_servers=settings.brokers) as producer:
        for _ in range(count):
            await producer.send(topic, b'{"stream":"a","events":[{"type":"T"}]}', b"a")
    return topic


async def test_every_tenants_log_is_decided_to_its_end(settings: Settings) -> None:
    await write(settings, "default", 3_000)
    await write(settings, "acme", 2)
    store = open_store("memory:", partitions=1)
    seen: list[tuple[int, int]] = []
    await rebuild(settings, store, lambda done, total: seen.append((done, total)))
    checkpoints = await store.checkpoints()
    assert {log: (found.next_offset, found.next_position) for log, found in checkpoints.items()} == {
        Log("default", 0): (3_000, 3_001), Log("acme", 0): (2, 3),
    }  # fmt: skip
    assert seen[-1] == (3_002, 3_002)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_nothing_is_decided_where_there_is_nothing(settings: Settings) -> None:
    store = open_store("memory:", partitions=1)
    await rebuild(settings, store, lambda done, total: None)
    assert {found.next_position for found in (await store.checkpoints()).values()} == {1}


async def test_a_log_without_its_beginning_is_no_log(settings: Settings) -> None:
    topic = await write(settings, "acme", 5)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=2)})
    await admin.close()
    with pytest.raises(Misfit, match="acme/0: the log begins at offset 2"):
        await rebuild(settings, open_store("memory:", partitions=1), lambda done, total: None)


async def test_missing_topics_are_told(real_kafka: Kafka, topic_prefix: str) -> None:
    settings = Settings(brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix)
    with pytest.raises(TopicMismatch):
        await rebuild(settings, open_store("memory:", partitions=32), lambda done, total: None)
