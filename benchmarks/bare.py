"""The yardsticks, each one process of its own: `python -m benchmarks.bare path COMMANDS` and `… echo`.

They take the worker's settings from the environment and say on standard error when they are about to read.

path: fetch the commands, insert as many ready-made rows into `events` by the database's bulk path (beside a store in
memory: none), send two ready-made records for each, all acknowledged. No decoding, no decision, no Faust. It publishes
a batch while it inserts the next one.

echo: one record back for each command. No store.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain
from typing import Any

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.load import PARTITIONS, commands
from benchmarks.ready import Outgoing, Ready, ready
from processor.cli.tuning import tune_interpreter
from processor.kafka.connection import client_options
from processor.names import DEFAULT_TENANT, TopicNames
from processor.settings import Settings, load_settings
from processor.stores import postgres
from processor.stores.sqlite import ADD_EVENTS, in_thread, write, writer_engine
from processor.stores.tables import events

READY = "ready to read"

_BATCH_BYTES = 512 * 1024
_TENANT = 1
_COLUMNS = tuple(column.name for column in events.columns)

Insert = Callable[[Sequence[Any]], Awaitable[None]]
"""Insert rows into `events`, in one transaction."""


async def path(settings: Settings, count: int) -> None:
    """Move `count` commands."""
    made = ready(commands(count), _TENANT, settings.store)
    names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
    async with inserting(settings) as insert, _consumer(settings) as consumer, _producer(settings) as producer:
        say_ready()
        _read_from_start(consumer, names.commands)
        await _move(settings, consumer, producer, insert, names, made, count)
        # Whoever watches from outside has yet to read what it has cost.
        await asyncio.Event().wait()


async def _move(
    settings: Settings,
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    insert: Insert,
    names: TopicNames,
    made: dict[int, Ready],
    count: int,
) -> None:
    done = dict.fromkeys(made, 0)
    published: asyncio.Future[Any] = asyncio.ensure_future(asyncio.sleep(0))
    while sum(done.values()) < count:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=settings.batch_size)
        spans = {
            tp.partition: (done[tp.partition], done[tp.partition] + len(records)) for tp, records in fetched.items()
        }
        await insert([row for partition, (begin, end) in spans.items() for row in made[partition].rows[begin:end]])
        await published
        sends = []
        for partition, (begin, end) in spans.items():
            sends.append(_send(producer, names.events, partition, made[partition].feed[begin:end]))
            sends.append(_send(producer, names.results, partition, made[partition].replies[begin:end]))
            done[partition] = end
        published = asyncio.gather(*sends)
    await published


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
    sent = 0
    while sent < len(records):
        batch = producer.create_batch()
        for key, value, headers, timestamp in records[sent:]:
            if batch.append(key=key, value=value, timestamp=timestamp, headers=headers) is None:
                break
            sent += 1
        batch.close()
        await (await producer.send_batch(batch, topic, partition=partition))


async def echo(settings: Settings) -> None:
    """Send every command back to the results, until the process is ended."""
    names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
    async with _consumer(settings) as consumer, _producer(settings) as producer:
        _read_from_start(consumer, names.commands)
        say_ready()
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in records:
                    await producer.send(names.results, record.value, record.key, partition=tp.partition)


def say_ready() -> None:
    """The clock starts here."""
    print(READY, file=sys.stderr, flush=True)


def _read_from_start(consumer: AIOKafkaConsumer, topic: str) -> None:
    consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])


# --- connections


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=settings.fetch_partition_bytes,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        **client_options(settings), enable_idempotence=True, acks="all", max_batch_size=_BATCH_BYTES
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def inserting(settings: Settings) -> AbstractAsyncContextManager[Insert]:
    """The bulk path of the store that is set."""
    if settings.store == "memory:":
        return _nowhere()
    return _postgres(settings) if settings.store.startswith("postgresql:") else _sqlite(settings)


@asynccontextmanager
async def _nowhere() -> AsyncIterator[Insert]:
    async def insert(_: Sequence[Any]) -> None:
        pass

    yield insert


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[Insert]:
    connection = await asyncpg.connect(settings.store)

    async def insert(rows: Sequence[Any]) -> None:
        if postgres.copied is None:
            await connection.copy_records_to_table("events", records=rows, columns=_COLUMNS)
        else:
            copied = postgres.each((postgres.COPY_HEADER, b"".join(rows), postgres.COPY_TRAILER))
            await connection.copy_to_table("events", source=copied, columns=_COLUMNS, format="binary")

    try:
        yield insert
    finally:
        await connection.close()


@asynccontextmanager
async def _sqlite(settings: Settings) -> AsyncIterator[Insert]:
    engine = writer_engine(settings.store.removeprefix("sqlite:///"), settings.durability)

    async def insert(rows: Sequence[Any]) -> None:
        async with engine.begin() as connection:
            await in_thread(
                connection, lambda driver: write(driver, ADD_EVENTS, [*chain.from_iterable(rows)], len(_COLUMNS))
            )

    try:
        yield insert
    finally:
        await engine.dispose()


def main() -> None:
    settings = load_settings()
    tune_interpreter()
    match sys.argv[1:]:
        case ["path", count]:
            uvloop.run(path(settings, int(count)))
        case ["echo"]:
            uvloop.run(echo(settings))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
