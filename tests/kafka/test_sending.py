"""The sender, without a worker: what it does with the broker's answers, and how much it lets under way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from processor.errors import BrokerUnreachable, NotSent
from processor.kafka.sending import Sender
from processor.kafka.topics import create_topics
from processor.names import TopicNames
from processor.settings import Settings
from tests.servers import Broker, Kafka


@pytest.fixture
async def settings(real_kafka: Kafka, topic_prefix: str) -> Settings:
    """Topics of one partition."""
    settings = Settings(brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix, partitions=1)
    await create_topics(settings)
    return settings


@pytest.fixture
async def acknowledging(settings: Settings) -> AsyncIterator[Sender]:
    """A sender that asks for no replies."""
    async with Sender(settings, "default", replies=False) as sender:
        yield sender


async def written(settings: Settings) -> list[bytes]:
    """The values on the commands topic."""
    place = TopicPartition(TopicNames.of(settings.topic_prefix, "default").commands, 0)
    async with AIOKafkaConsumer(bootstrap_servers=settings.brokers, auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        [end] = (await consumer.end_offsets([place])).values()
        values: list[bytes] = []
        while len(values) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values += [record.value for record in records]
        return values


async def test_records_arrive_in_the_order_in_which_they_were_sent(settings: Settings, acknowledging: Sender) -> None:
    sent = [await acknowledging.send(b"a", b"%d" % number) for number in range(5_000)]
    await asyncio.gather(*(command.outcome for command in sent))
    assert all(command.acknowledged for command in sent)
    assert await written(settings) == [b"%d" % number for number in range(5_000)]


async def test_one_refused_record_holds_up_no_other(settings: Settings, acknowledging: Sender) -> None:
    far_ahead_ms = 32_503_680_000_000
    times = [None, None, far_ahead_ms, None, None]
    sent = [await acknowledging.send(b"a", b"%d" % index, timestamp_ms=time) for index, time in enumerate(times)]
    outcomes = await asyncio.gather(*(command.outcome for command in sent), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [bytes, bytes, NotSent, bytes, bytes]
    assert "timestamp" in str(outcomes[2])
    assert await written(settings) == [b"0", b"1", b"3", b"4"]


async def test_what_is_too_large_for_any_broker_takes_no_room(settings: Settings) -> None:
    async with Sender(settings, "default", replies=False, in_flight=1) as sender:
        for _ in range(3):
            with pytest.raises(NotSent, match="too large"):
                await sender.send(b"a", b"x" * 3_000_000)
        sent = await sender.send(b"a", b"{}")
        assert await sent.outcome == b""


async def test_no_more_are_under_way_than_may_be(settings: Settings) -> None:
    async with Sender(settings, "default", in_flight=2) as sender:
        first, _ = await sender.send(b"a", b"1"), await sender.send(b"a", b"2")
        third = asyncio.create_task(sender.send(b"a", b"3"))
        await asyncio.wait({third}, timeout=0.1)
        assert not third.done()
        sender.forget(first)
        await third


async def test_whoever_gives_up_waiting_leaves_no_hole_in_the_line(settings: Settings) -> None:
    async with Sender(settings, "default", in_flight=1) as sender:
        first = await sender.send(b"a", b"1")
        impatient = asyncio.create_task(sender.send(b"a", b"2"))
        patient = asyncio.create_task(sender.send(b"a", b"3"))
        await asyncio.wait({impatient, patient}, timeout=0.05)
        impatient.cancel()
        sender.forget(first)
        assert (await patient).record[1] == b"3"


async def test_a_reply_is_told_from_others_by_its_correlation_id(settings: Settings) -> None:
    results = TopicNames.of(settings.topic_prefix, "default").results
    async with Sender(settings, "default") as sender, AIOKafkaProducer(bootstrap_servers=settings.brokers) as worker:
        one, other = await sender.send(b"a", b"1"), await sender.send(b"a", b"2")
        correlation = [dict(sent.record[2])["correlation_id"] for sent in (one, other)]
        await worker.send_and_wait(results, b"noise", headers=[("correlation_id", b"somebody-else")])
        await worker.send_and_wait(results, b"none")
        await worker.send_and_wait(results, b"for two", headers=[("correlation_id", correlation[1])])
        await worker.send_and_wait(results, b"late", headers=[("correlation_id", correlation[1])])
        await worker.send_and_wait(results, b"for one", headers=[("x", b"y"), ("correlation_id", correlation[0])])
        async with asyncio.timeout(20):
            assert await other.outcome == b"for two"
            assert await one.outcome == b"for one"


async def test_what_is_under_way_at_the_end_fails(settings: Settings) -> None:
    async with Sender(settings, "default") as sender:
        sent = await sender.send(b"a", b"{}")
    with pytest.raises(BrokerUnreachable, match="closed"):
        await sent.outcome
    with pytest.raises(BrokerUnreachable, match="closed"):
        await sender.send(b"a", b"{}")


async def test_it_ends_in_order_while_the_broker_is_away() -> None:
    with Broker() as broker:
        settings = Settings(brokers=[broker.bootstrap], partitions=1, replication_factor=1)
        await create_topics(settings)
        before = asyncio.all_tasks()
        senders = [Sender(settings, "default") for _ in range(10)]
        for sender in senders:
            await sender.start()
        broker.kill()
        for sender in senders:
            # At another moment of its next try each.
            await asyncio.sleep(0.02)
            await sender.stop()
    assert asyncio.all_tasks() == before, "nothing of theirs goes on"
