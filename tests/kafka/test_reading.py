"""The feed as a consumer reads it, on a topic that the test writes itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from processor.errors import FeedGap
from processor.kafka.feed import position_of
from processor.kafka.reading import After, read_feed
from processor.settings import Settings
from tests.servers import Kafka


class Feed:
    """One partition of a feed."""

    def __init__(self, kafka: Kafka, prefix: str) -> None:
        self.settings = Settings(brokers=[kafka.bootstrap], topic_prefix=prefix, partitions=1)
        self.topic = f"{prefix}events"

    async def write(self, positions: Sequence[int | None]) -> None:
        """Records with these positions; None for one that is no event."""
        async with AIOKafkaProducer(bootstrap_servers=self.settings.brokers) as producer:
            for position in positions:
                headers = [] if position is None else [("ce_position", b"%d" % position)]
                await producer.send_and_wait(self.topic, b"{}", b"stream", partition=0, headers=headers)

    async def read(self, after: After) -> list[int | None]:
        """The positions that come, up to where the feed ends."""
        pages = read_feed(self.settings, "default", after=after, follow=False)
        return [position_of(record) async for records in pages for record in records]


@pytest.fixture
def feed(kafka: Kafka, topic_prefix: str) -> Feed:
    """An empty one."""
    kafka.create_topics([f"{topic_prefix}events"], 1)
    return Feed(kafka, topic_prefix)


@pytest.mark.parametrize(
    "written",
    [
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6, 3, 4],
        [1, 1, 1, 2, 3, 3, 4, 5, 5, 6],
        [None, 1, None, 2, 3, 4, 5, 6, None],
        [1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2, 6],
    ],
)
async def test_each_position_comes_once_from_wherever_it_begins(feed: Feed, written: list[int | None]) -> None:
    await feed.write(written)
    assert await feed.read("start") == [1, 2, 3, 4, 5, 6]
    for seen in range(8):
        assert await feed.read(seen) == list(range(seen + 1, 7))
    assert await feed.read("now") == []


async def test_an_empty_feed(feed: Feed) -> None:
    assert await feed.read("start") == []
    assert await feed.read(3) == []


async def test_only_what_is_needed_is_read(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    await feed.write(range(1, 301))
    pages = read_feed(feed.settings, "default", after=298, follow=False)
    offsets = [record.offset async for records in pages for record in records]
    assert offsets == [298, 299]


async def test_a_hole_is_told(feed: Feed) -> None:
    await feed.write([1, 2, 5])
    for after in ("start", 1, 2, 3):
        with pytest.raises(FeedGap, match="position 5"):
            await feed.read(after)
    assert await feed.read(4) == [5]


async def test_positions_that_were_deleted_are_told(real_kafka: Kafka, feed: Feed) -> None:
    await feed.write([1, 2, 3, 4, 3, 4, 5, 6])
    admin = AIOKafkaAdminClient(bootstrap_servers=feed.settings.brokers)
    await admin.start()
    await admin.delete_records({TopicPartition(feed.topic, 0): RecordsToDelete(before_offset=4)})
    await admin.close()
    # It begins with a late duplicate now, from which the place of a position is guessed too far on.
    assert await feed.read("start") == [3, 4, 5, 6]
    for seen in range(2, 7):
        assert await feed.read(seen) == list(range(seen + 1, 7))
    with pytest.raises(FeedGap, match="position 3, not 2"):
        await feed.read(1)


async def test_it_goes_on_with_what_comes(feed: Feed) -> None:
    await feed.write([1, 2])

    async def follow() -> AsyncIterator[int | None]:
        async with aclosing(read_feed(feed.settings, "default", after=1)) as pages:
            async for records in pages:
                for record in records:
                    yield position_of(record)

    async with asyncio.timeout(20):
        events = follow()
        assert await anext(events) == 2
        await feed.write([2, 3])
        assert await anext(events) == 3
        await events.aclose()  # type: ignore[attr-defined]
