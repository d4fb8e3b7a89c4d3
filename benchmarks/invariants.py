"""What has to hold after a run; each check returns what does not, or None."""

from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from benchmarks.bed import LOGS, Site
from benchmarks.load import PARTITIONS, CommandRecord
from benchmarks.ready import plans
from processor.codec import decode_outcome
from processor.kafka.feed import position_of
from processor.messages import Accepted, Log
from processor.names import DEFAULT_TENANT
from processor.store import Store
from processor.stores import open_store
from processor.verify import verify_store

_PAGE = 5_000

_Shown = tuple[int, str, bytes]
"""An event's position, id and data."""


async def check_worker(site: Site, records: Sequence[CommandRecord]) -> str | None:
    """Every command is accepted, once; the store holds its events and nothing else; the feed is the store."""
    settings = site.settings
    failure = await _check_replies(site, records)
    if failure is not None:
        return failure
    feed = await _feed(site)
    store = open_store(settings.store, partitions=settings.partitions, read_only=True)
    await store.open()
    try:
        return await _check_store(store, feed, records)
    finally:
        await store.close()


async def check_bare(site: Site, records: Sequence[CommandRecord]) -> str | None:
    """There is a row, a reply and a feed record for every command."""
    failure = await _check_replies(site, records)
    feed = sum(map(len, (await _feed(site)).values()))
    if failure is None and feed != len(records):
        failure = f"{feed} records on the feed"
    return failure


async def _check_replies(site: Site, records: Sequence[CommandRecord]) -> str | None:
    answered: dict[tuple[int, int], int] = {}
    async for record in _read(site, site.names.results):
        outcome = decode_outcome(record.value)
        if not isinstance(outcome, Accepted):
            return f"a command was not accepted: {outcome}"
        place = outcome.partition, outcome.offset
        answered[place] = answered.get(place, 0) + 1
    async for record in _read(site, site.names.conflicts):
        return f"a command was refused: {record.value!r}"
    if answered.keys() != {(record.partition, record.offset) for record in records}:
        return f"{len(answered)} of {len(records)} commands are answered"
    if any(times > 1 for times in answered.values()):
        return "a command is answered twice"
    return None


async def _feed(site: Site) -> dict[int, list[_Shown]]:
    """The feed's records by partition, first occurrences only."""
    found: dict[int, list[_Shown]] = {partition: [] for partition in range(PARTITIONS)}
    async for record in _read(site, site.names.events):
        of_partition = found[record.partition]
        position = position_of(record) or 0
        if not of_partition or position > of_partition[-1][0]:
            of_partition.append((position, dict(record.headers)["ce_id"].decode(), record.value))
    return found


async def _check_store(store: Store, feed: dict[int, list[_Shown]], records: Sequence[CommandRecord]) -> str | None:
    report = await verify_store(store, [DEFAULT_TENANT], PARTITIONS)
    if not report.ok:
        return next(problem for of_log in report.partitions for problem in of_log.problems)
    if report.events != len(records):
        return f"{report.events} events in the store"
    chains = {log.partition: plan.after.chain.hex() for log, plan in plans(records).items()}
    if chains != {of_log.partition: of_log.chain for of_log in report.partitions}:
        return "the store is not what the commands come to"
    for log in LOGS:
        if feed[log.partition] != [event async for event in _events(store, log)]:
            return f"{log}: the feed is not the store's order"
    return None


async def _events(store: Store, log: Log) -> AsyncIterator[_Shown]:
    after = 0
    while events := await store.read_log(log, after, _PAGE):
        for event in events:
            yield event.position, event.event_id, event.data
        after = events[-1].position


async def _read(site: Site, topic: str) -> AsyncIterator[ConsumerRecord]:
    """All that is on a topic now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=site.settings.brokers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(partitions)
        left = sum((await consumer.end_offsets(partitions)).values())
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                left -= len(records)
                for record in records:
                    yield record
    finally:
        await consumer.stop()
