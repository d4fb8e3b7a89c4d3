"""The app on a real broker: what it does when its place in the group is lost for good."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError

from processor.kafka.topics import create_topics
from processor.messages import Log
from processor.names import TopicNames
from processor.settings import Settings
from processor.stores.migrate import upgrade
from processor.worker import Worker
from tests.servers import Kafka


@pytest.fixture
async def settings(real_kafka: Kafka, topic_prefix: str, tmp_path: Path) -> Settings:
    settings = Settings(
        brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix, group=f"{topic_prefix}group", partitions=2,
        store=f"sqlite:///{tmp_path}/tidemark.db", http="127.0.0.1:0", session_timeout_ms=6_000,
    )  # fmt: skip
    await create_topics(settings)
    return settings


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(settings)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


def owned(worker: Worker) -> set[Log]:
    return {log for log, status in worker.statuses.items() if status.state == "running"}


async def test_a_worker_that_has_lost_the_group_for_good_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the first answer after the connection names no broker: aiokafka stops asking, and says nothing."""

    async def fail(coordinator: GroupCoordinator) -> None:
        raise AssertionError("Did we not perform bootstrap?")

    monkeypatch.setattr(GroupCoordinator, "ensure_coordinator_known", fail)
    with pytest.raises(KafkaError, match="perform bootstrap"):
        async with asyncio.timeout(30):
            await Worker(settings).run()


async def test_a_worker_can_be_ended_before_it_has_joined_the_group(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining = threading.Event()

    async def wait(coordinator: GroupCoordinator, *_: object) -> None:
        joining.set()
        await asyncio.sleep(0.1)

    # None: the group is not formed yet, and is asked again.
    monkeypatch.setattr(GroupCoordinator, "ensure_active_group", wait)
    worker = Worker(settings)
    async with asyncio.timeout(30):
        running = asyncio.create_task(worker.run())
        await asyncio.to_thread(joining.wait)
        worker.stop()
        await running


async def test_a_worker_that_joins_gets_half_of_the_load(
    settings: Settings, postgres_url: str, real_kafka: Kafka
) -> None:
    prefix = f"{settings.topic_prefix}four-"
    given = settings.model_dump() | {"store": postgres_url, "topic_prefix": prefix, "group": prefix, "partitions": 4}
    await create_topics(Settings(**given))
    await asyncio.to_thread(upgrade, postgres_url, partitions=4)
    async with asyncio.timeout(90), running(Settings(**given)) as first:
        while len(owned(first)) < 4:
            await asyncio.sleep(0.1)
        async with AIOKafkaProducer(bootstrap_servers=real_kafka.bootstrap) as producer:
            for _ in range(100):
                await producer.send(TopicNames.of(prefix, "default").commands, b"{}", b"stream", partition=2)
        while first._ownership is None or not first._ownership.loads.a_minute().get(Log("default", 2)):
            await asyncio.sleep(0.1)
        async with running(Settings(**given)) as second:
            while not (owned(first) and owned(second) and len(owned(first) | owned(second)) == 4):
                await asyncio.sleep(0.1)
            assert {Log("default", 2)} in (owned(first), owned(second))


async def test_a_static_member_that_comes_back_in_time_moves_no_partition(
    settings: Settings, postgres_url: str
) -> None:
    await asyncio.to_thread(upgrade, postgres_url, partitions=settings.partitions)
    given = settings.model_dump() | {"store": postgres_url, "session_timeout_ms": 30_000}

    def member(name: str) -> AbstractAsyncContextManager[Worker]:
        return running(Settings(**given | {"group_instance_id": name}))

    async with asyncio.timeout(90), member("a") as stays:
        async with member("b") as leaves:
            while not (len(owned(stays)) == len(owned(leaves)) == 1):
                await asyncio.sleep(0.1)
            before = owned(stays), owned(leaves)
            (status,) = stays.statuses.values()
        async with member("b") as back:
            while not owned(back):
                await asyncio.sleep(0.1)
            assert (owned(stays), owned(back)) == before
            assert next(iter(stays.statuses.values())) is status, "who stayed has not claimed anew"
