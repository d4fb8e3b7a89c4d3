"""A worker in this process, a client on either side of it, and what a test says about what came out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from processor.codec import decode_outcome
from processor.kafka.topics import create_topics
from processor.messages import Log, Outcome
from processor.names import TopicNames
from processor.settings import Settings
from processor.stores.migrate import upgrade
from processor.worker import Worker
from tests.servers import Kafka

PARTITIONS = 4
_READY_S = 30.0


class Pipeline:
    """Topics and a store of a test's own; workers are started and ended by the test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = TopicNames.of(settings.topic_prefix, "default")

    def with_(self, **changes: Any) -> "Pipeline":
        """The same topics and store under other settings."""
        given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        return Pipeline(Settings(**given | changes))

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Worker]:
        """A worker that owns what the group gives it, ended cleanly."""
        worker = Worker(self.settings, **options)
        task = asyncio.create_task(worker.run())
        try:
            await settled(worker, task)
            yield worker
        finally:
            worker.stop()
            await task

    @asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
        """A plain producer, with Kafka's default partitioner."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.brokers, **options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(self, *commands: tuple[bytes | None, bytes | None], **options: Any) -> list[tuple[int, int]]:
        """Send records (key, value) in order; returns partition and offset of each."""
        async with self.producer() as producer:
            sent = [await producer.send_and_wait(self.names.commands, value, key, **options) for key, value in commands]
        return [(record.partition, record.offset) for record in sent]

    async def records(self, topic: str) -> list[ConsumerRecord]:
        """All that is on a topic now, partition by partition."""
        async with _reading(self.settings.brokers, [topic]) as consumer:
            partitions = consumer.assignment()
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord] = []
            while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found.extend(records)
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def outcomes(self, count: int) -> dict[tuple[int, int], Outcome]:
        """Wait until `count` commands are answered; their outcomes by partition and offset. All replies must agree."""
        answers: dict[tuple[int, int], Outcome] = {}
        topics = (self.names.results, self.names.conflicts)
        async with asyncio.timeout(_READY_S), _reading(self.settings.brokers, topics) as consumer:
            while len(answers) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        outcome = decode_outcome(record.value)
                        place = outcome.partition, outcome.offset
                        assert answers.setdefault(place, outcome) == outcome, "replies to one command disagree"
        return dict(sorted(answers.items()))


async def settled(worker: Worker, task: "asyncio.Task[None]") -> None:
    """Wait until the worker has an assignment and no log is being claimed."""
    async with asyncio.timeout(_READY_S):
        while not worker.statuses or any(status.state == "claiming" for status in worker.statuses.values()):
            if task.done():
                await task
            await asyncio.sleep(0.02)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that has no event to wait for."""
    async with asyncio.timeout(_READY_S):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _reading(brokers: list[str], topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each store in turn, empty."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tidemark.db"
    url: str = request.getfixturevalue("postgres_url")
    upgrade(url, partitions=PARTITIONS)
    return url


@pytest.fixture
async def pipeline(real_kafka: Kafka, topic_prefix: str, store_url: str) -> Pipeline:
    """A pipeline on a real broker and each store."""
    return await made(real_kafka, topic_prefix, store_url)


@pytest.fixture
async def sqlite_pipeline(real_kafka: Kafka, topic_prefix: str, sqlite_url: str) -> Pipeline:
    """A pipeline on a real broker and SQLite."""
    return await made(real_kafka, topic_prefix, sqlite_url)


@pytest.fixture
async def postgres_pipeline(real_kafka: Kafka, topic_prefix: str, postgres_url: str) -> Pipeline:
    """A pipeline on a real broker and PostgreSQL."""
    upgrade(postgres_url, partitions=PARTITIONS)
    return await made(real_kafka, topic_prefix, postgres_url)


async def made(kafka: Kafka, prefix: str, store: str, **settings: Any) -> Pipeline:
    """Topics for a store."""
    chosen = {"partitions": PARTITIONS, "session_timeout_ms": 6_000, "http": "127.0.0.1:0", **settings}
    pipeline = Pipeline(
        Settings(brokers=[kafka.bootstrap], topic_prefix=prefix, group=f"{prefix}group", store=store, **chosen)
    )
    await create_topics(pipeline.settings)
    return pipeline


def log_of(partition: int) -> Log:
    """A log of the default tenant."""
    return Log("default", partition)
