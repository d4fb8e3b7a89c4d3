"""What the broker knows of a log: its offsets, the group's, and how far its feed has come."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from processor.fit import Found
from processor.kafka.connection import stop_consumer
from processor.messages import Log
from processor.names import TopicNames

_LOOK_BACK = 16
_FETCH_WAIT_MS = 1_000


async def find(
    options: dict[str, Any],
    names: Mapping[str, TopicNames],
    logs: Sequence[Log],
    group_offsets: Mapping[Log, int | None],
    timeout_s: float,
) -> dict[Log, Found]:
    """Look at the commands topic and at the end of the feed of each log.

    Raises aiokafka's errors and `TimeoutError`; may be called again.
    """
    commands = {log: TopicPartition(names[log.tenant].commands, log.partition) for log in logs}
    feeds = {log: TopicPartition(names[log.tenant].events, log.partition) for log in logs}
    consumer = AIOKafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="none")
    async with asyncio.timeout(timeout_s):
        await consumer.start()
        try:
            begins = await consumer.beginning_offsets(list(commands.values()))
            ends = await consumer.end_offsets(list(commands.values()))
            positions = await _last_positions(consumer, list(feeds.values()))
        finally:
            await stop_consumer(consumer)
    return {
        log: Found(begins[commands[log]], ends[commands[log]], group_offsets.get(log), positions[feeds[log]])
        for log in logs
    }


async def _last_positions(consumer: AIOKafkaConsumer, feeds: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The highest position at the end of each feed partition; 0 for an empty one.

    Looks back over more and more records where the last ones are not events of ours.
    """
    begins = await consumer.beginning_offsets(feeds)
    ends = await consumer.end_offsets(feeds)
    positions = dict.fromkeys(feeds, 0)
    open_feeds = {feed: ends[feed] for feed in feeds if ends[feed] > begins[feed]}
    look_back = _LOOK_BACK
    while open_feeds:
        starts = {feed: max(begins[feed], end - look_back) for feed, end in open_feeds.items()}
        found = await _highest(consumer, starts, open_feeds)
        positions |= found
        open_feeds = {
            feed: end for feed, end in open_feeds.items() if feed not in found and starts[feed] > begins[feed]
        }
        look_back *= 8
    return positions


async def _highest(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The highest position among the records from start to end, of the partitions that have one."""
    consumer.assign(list(starts))
    for feed, start in starts.items():
        consumer.seek(feed, start)
    highest: dict[TopicPartition, int] = {}
    left = set(starts)
    while left:
        fetched = await consumer.getmany(*left, timeout_ms=_FETCH_WAIT_MS)
        for feed, records in fetched.items():
            for record in records:
                position = position_of(record)
                if position is not None:
                    highest[feed] = max(position, highest.get(feed, 0))
        for feed in list(left):
            if await consumer.position(feed) >= ends[feed]:
                left.discard(feed)
    return highest


def position_of(record: ConsumerRecord) -> int | None:
    """The position that a record on the feed carries; None where it is no event of ours."""
    for name, value in record.headers:
        if name == "ce_position" and value is not None and value.isdigit():
            return int(value)
    return None
