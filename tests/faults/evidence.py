"""Collecting what there is after a run: the log, the store, the replies, the feed and Kafka's offsets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from msgspec import UNSET

from processor.codec import NO_LIMITS, decode, decode_outcome
from processor.decide import event_ids
from processor.kafka.feed import position_of
from processor.kafka.rebuild import rebuild
from processor.messages import Checkpoint, Command, Log, RecordedEvent
from processor.names import DEFAULT_TENANT, TopicNames
from processor.settings import Settings
from processor.store import Store
from processor.stores import open_store
from processor.verify import verify_store
from tests.faults.checker import Asked, Evidence, Fed, Place
from tests.faults.history import read_history

_PAGE = 1_000
_LOOK_EVERY_S = 0.2


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Store]:
    """The store, beside the workers."""
    store = open_store(settings.store, partitions=settings.partitions, read_only=True)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def collect(settings: Settings, history: Path, *, from_log: bool = True) -> Evidence:
    """All evidence of a run that is over. `from_log`: the log is whole, so the store can be made again from it."""
    names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
    async with reading(settings) as store:
        checkpoints = _by_partition(await store.checkpoints())
        events = {partition: await _events(store, partition) for partition in checkpoints}
        report = await verify_store(store, [DEFAULT_TENANT], settings.partitions)
    replies = [*await records_of(settings, names.results), *await records_of(settings, names.conflicts)]
    return Evidence(
        operations=read_history(history),
        commands=_asked(await records_of(settings, names.commands), checkpoints),
        events=events,
        checkpoints=checkpoints,
        replies=[decode_outcome(record.value) for record in replies],
        feed=_fed(await records_of(settings, names.events), settings.partitions),
        group=await committed_offsets(settings),
        ends=await ends_of(settings, names.commands),
        damage=[f"partition {found.partition}: {text}" for found in report.partitions for text in found.problems],
        rebuilt=await _chains_of_the_log(settings) if from_log else {},
    )


def _by_partition(checkpoints: dict[Log, Checkpoint]) -> dict[int, Checkpoint]:
    return {log.partition: checkpoint for log, checkpoint in checkpoints.items() if log.tenant == DEFAULT_TENANT}


async def _events(store: Store, partition: int) -> list[RecordedEvent]:
    events: list[RecordedEvent] = []
    while page := await store.read_log(Log(DEFAULT_TENANT, partition), len(events), _PAGE):
        events += page
    return events


def _asked(records: list[ConsumerRecord], checkpoints: dict[int, Checkpoint]) -> dict[Place, Asked]:
    asked = {}
    for record in records:
        decoded = decode(record.key, record.value, NO_LIMITS)
        if isinstance(decoded, Command):
            checkpoint = checkpoints.get(record.partition)
            ids = event_ids(
                Log(DEFAULT_TENANT, record.partition), checkpoint.incarnation if checkpoint else 0, record, decoded
            )
            command_id = None if decoded.command_id is UNSET else decoded.command_id
            place = record.partition, record.offset
            asked[place] = Asked(decoded.stream, command_id, decoded.expected_version, tuple(ids))
    return asked


def _fed(records: list[ConsumerRecord], partitions: int) -> dict[int, list[Fed]]:
    feed: dict[int, list[Fed]] = {partition: [] for partition in range(partitions)}
    for record in records:
        headers = dict(record.headers)
        version, event_id = int(headers["ce_streamversion"]), headers["ce_id"].decode()
        fed = Fed(position_of(record) or 0, record.key.decode(), version, event_id, record.value)
        feed[record.partition].append(fed)
    return feed


async def _chains_of_the_log(settings: Settings) -> dict[int, bytes]:
    async with reading(settings.model_copy(update={"store": "memory:"})) as store:
        await rebuild(settings, store, lambda _done, _of: None)
        return {log.partition: checkpoint.chain for log, checkpoint in (await store.checkpoints()).items()}


async def records_of(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """All that is on a topic now, in order within each partition."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=settings.brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[ConsumerRecord] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found.extend(records)
    finally:
        await consumer.stop()
    return found


async def ends_of(settings: Settings, topic: str) -> dict[int, int]:
    """Where the partitions of a topic end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers)
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(settings.partitions)]
        return {place.partition: end for place, end in (await consumer.end_offsets(places)).items()}
    finally:
        await consumer.stop()


async def committed_offsets(settings: Settings) -> dict[int, int]:
    """What is committed to the group of the default tenant's commands, where it is not the beginning."""
    commands = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT).commands
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(settings.group)
    finally:
        await admin.close()
    return {
        place.partition: offset.offset
        for place, offset in found.items()
        if place.topic == commands and offset.offset > 0
    }


async def lag_is_zero(settings: Settings, within_s: float) -> None:
    """Wait until all of the log is decided, published and acknowledged. Raises `TimeoutError`."""
    names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
    ends = {partition: end for partition, end in (await ends_of(settings, names.commands)).items() if end}
    places: dict[int, Checkpoint] = {}
    committed: dict[int, int] = {}
    try:
        async with asyncio.timeout(within_s), reading(settings) as store:
            while True:
                places = _by_partition(await store.checkpoints())
                behind = [
                    partition
                    for partition, end in ends.items()
                    if partition not in places
                    or places[partition].next_offset < end
                    or places[partition].acknowledged_offset < end
                    or places[partition].acknowledged_position < places[partition].next_position - 1
                ]
                committed = await committed_offsets(settings)
                if not behind and committed == ends:
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise TimeoutError(f"the log ends at {ends}, the group is at {committed}, the store at {places}") from None
