"""The servers that other tests kill: what they had acknowledged is there when they come back."""

from collections.abc import Callable

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.servers import Broker, CannotRun, Postgres, Server, real_kafka


@pytest.mark.faults
async def test_a_broker_comes_back_with_its_records() -> None:
    try:
        broker = Broker()
    except CannotRun as reason:
        pytest.skip(f"needs a real Kafka broker of its own: {reason}")
    with broker:
        real_kafka(broker.bootstrap).create_topics(["topic"], 1)
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            await producer.send_and_wait("topic", b"kept")
        broker.kill()
        broker.start()
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
            partition = TopicPartition("topic", 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            assert (await consumer.getone()).value == b"kept"
    assert not broker.folder.exists()


def killed(server: Server) -> None:
    server.kill()
    server.start()


def restarted(server: Server) -> None:
    server.restart()


def paused(server: Server) -> None:
    server.pause()
    server.resume()


@pytest.mark.faults
@pytest.mark.parametrize("cut", [killed, restarted, paused])
async def test_postgres_comes_back_with_its_rows(cut: Callable[[Server], None]) -> None:
    with Postgres() as server:
        connection = await asyncpg.connect(server.url())
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        cut(server)
        connection.terminate()
        connection = await asyncpg.connect(server.url())
        assert await connection.fetchval("SELECT number FROM kept") == 1
        await connection.close()
    assert not server.folder.exists()
