"""The idempotent producer, on a real broker; answers are lost on the way where that is what is tested."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7

from processor.kafka import producer as producing
from processor.kafka.batches import batch_of
from processor.kafka.producer import BatchProducer
from tests.servers import Kafka

PARTITIONS = 3

Sending = Callable[[AIOKafkaClient, int, Any], Awaitable[Any]]


def a_batch(*values: str) -> BatchBuilder:
    return batch_of([(None, value.encode(), [], None) for value in values], None)


@pytest.fixture
async def producer(real_kafka: Kafka) -> AsyncIterator[BatchProducer]:
    producer = BatchProducer({"bootstrap_servers": real_kafka.bootstrap, "request_timeout_ms": 2_000})
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def topic(producer: BatchProducer, real_kafka: Kafka, topic_prefix: str) -> str:
    """Has a record, "a", in each of its partitions, so that their leaders are known."""
    name = f"{topic_prefix}produced"
    real_kafka.create_topics([name], PARTITIONS)
    await asyncio.gather(*(producer.send(name, n, a_batch("a")) for n in range(PARTITIONS)))
    return name


@pytest.fixture
def requests(topic: str, monkeypatch: pytest.MonkeyPatch) -> list[ProduceRequest]:
    """The produce requests that are sent from now on, behind the topic's first records."""
    sent: list[ProduceRequest] = []

    async def noted(client: AIOKafkaClient, node: int, request: Any) -> Any:
        if isinstance(request, ProduceRequest):
            sent.append(request)
        return await send(client, node, request)

    send = _instead(monkeypatch, noted)
    return sent


def _instead(monkeypatch: pytest.MonkeyPatch, sending: Sending) -> Sending:
    """Requests go this way from now on; returns the way that they went before."""
    before: Sending = AIOKafkaClient.send
    monkeypatch.setattr(AIOKafkaClient, "send", sending)
    return before


def lose_answers(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The broker has what it is sent, but the first answers to produce requests do not arrive."""
    left = [KafkaConnectionError("lost")] * count

    async def lossy(client: AIOKafkaClient, node: int, request: Any) -> Any:
        response = await send(client, node, request)
        if left and isinstance(request, ProduceRequest):
            raise left.pop()
        return response

    send = _instead(monkeypatch, lossy)


async def values(kafka: Kafka, topic: str, partition: int = 0) -> list[str]:
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, 0)
        async with asyncio.timeout(30):
            return [(await consumer.getone()).value.decode() for _ in range(end)]
    finally:
        await consumer.stop()


async def test_what_is_ready_at_once_goes_out_in_one_request(
    producer: BatchProducer, requests: list[ProduceRequest], topic: str, real_kafka: Kafka
) -> None:
    await asyncio.gather(*(producer.send(topic, n, a_batch(f"b{n}", f"c{n}")) for n in range(PARTITIONS)))

    assert len(requests) == 1
    assert await values(real_kafka, topic, 2) == ["a", "b2", "c2"]


async def test_a_request_is_bounded(
    producer: BatchProducer, requests: list[ProduceRequest], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producing, "_REQUEST_BYTES", 2_500)
    await asyncio.gather(*(producer.send(topic, n, a_batch("x" * 1_000)) for n in range(PARTITIONS)))

    assert len(requests) == 2


async def test_batches_of_a_partition_go_one_after_the_other(
    producer: BatchProducer, requests: list[ProduceRequest], topic: str, real_kafka: Kafka
) -> None:
    numbers = [str(number) for number in range(20)]
    await asyncio.gather(*(producer.send(topic, 0, a_batch(number)) for number in numbers))

    assert len(requests) == len(numbers)
    assert await values(real_kafka, topic) == ["a", *numbers]


async def test_a_batch_whose_answer_was_lost_is_taken_once(
    producer: BatchProducer, topic: str, real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(monkeypatch, 2)
    retries: list[None] = []
    monkeypatch.setattr(producer, "_on_retry", lambda: retries.append(None))
    await asyncio.gather(producer.send(topic, 0, a_batch("b", "c")), producer.send(topic, 0, a_batch("d")))

    assert len(retries) == 2
    assert await values(real_kafka, topic) == ["a", "b", "c", "d"]


async def test_one_that_nobody_waits_for_any_more_is_sent_to_its_end(
    producer: BatchProducer, topic: str, real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(monkeypatch, 1)
    given_up = producer.send(topic, 0, a_batch("b"))
    await asyncio.sleep(0)
    given_up.cancel()
    await producer.send(topic, 0, a_batch("c"))

    assert await values(real_kafka, topic) == ["a", "b", "c"]


async def test_one_that_was_given_up_before_it_was_sent_is_not(
    producer: BatchProducer, topic: str, real_kafka: Kafka
) -> None:
    first, second, third = (producer.send(topic, 0, a_batch(value)) for value in "bcd")
    second.cancel()
    await asyncio.gather(first, third)

    assert await values(real_kafka, topic) == ["a", "b", "d"]


async def test_where_the_broker_knows_another_sequence_a_new_one_begins(
    producer: BatchProducer, topic: str, real_kafka: Kafka
) -> None:
    producer._sequences[TopicPartition(topic, 0)] += 5
    refused, other = await asyncio.gather(
        producer.send(topic, 0, a_batch("b")), producer.send(topic, 1, a_batch("b")), return_exceptions=True
    )
    assert isinstance(refused, OutOfOrderSequenceNumber)
    assert other is None
    await asyncio.gather(*(producer.send(topic, n, a_batch("c")) for n in range(PARTITIONS)))

    assert await values(real_kafka, topic, 0) == ["a", "c"]
    assert await values(real_kafka, topic, 1) == ["a", "b", "c"]


async def test_after_a_refused_batch_the_next_ones_are_taken(
    producer: BatchProducer, topic: str, real_kafka: Kafka
) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send(topic, 0, a_batch("x" * 2_000_000))
    with pytest.raises(OutOfOrderSequenceNumber):
        await producer.send(topic, 0, a_batch("b"))
    await producer.send(topic, 0, a_batch("b"))

    assert await values(real_kafka, topic) == ["a", "b"]


async def test_the_sequence_goes_on_at_0_behind_its_last_number(
    producer: BatchProducer, topic: str, real_kafka: Kafka
) -> None:
    await producer._renew()
    producer._sequences[TopicPartition(topic, 0)] = 2**31 - 2
    for value in "bcd":
        await producer.send(topic, 0, a_batch(value, value))

    assert producer._sequences[TopicPartition(topic, 0)] == 4
    assert await values(real_kafka, topic) == [*"abbccdd"]


async def test_a_partition_that_is_not_there_fails_in_the_end(
    producer: BatchProducer, topic: str, real_kafka: Kafka
) -> None:
    missing = producer.send(topic, PARTITIONS, a_batch("b"))
    await producer.send(topic, 0, a_batch("b"))
    with pytest.raises(LeaderNotAvailableError, match=rf"no broker leads {topic} \[{PARTITIONS}\]"):
        await missing

    assert await values(real_kafka, topic) == ["a", "b"]


async def test_what_waits_when_it_stops_fails(producer: BatchProducer, topic: str) -> None:
    waiting = producer.send(topic, PARTITIONS, a_batch("a"))
    await producer.stop()
    for late in waiting, producer.send(topic, 0, a_batch("b")):
        with pytest.raises(ProducerClosed):
            await late


async def test_a_fault_of_its_own_leaves_nobody_waiting(
    producer: BatchProducer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    _instead(monkeypatch, broken)
    with pytest.raises(ZeroDivisionError):
        await producer.send(topic, 0, a_batch("b"))


async def test_without_a_broker_it_does_not_start() -> None:
    producer = BatchProducer({"bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()


async def test_a_request_is_laid_out_as_aiokafka_does(
    producer: BatchProducer, requests: list[ProduceRequest], topic: str
) -> None:
    await asyncio.gather(*(producer.send(topic, n, a_batch(f"b{n}", "é")) for n in range(PARTITIONS)))

    (request,) = requests
    laid_out = request.build(ProduceRequest_v7).encode()
    read = ProduceRequest_v7.decode(BytesIO(laid_out))
    assert (read.transactional_id, read.required_acks, read.timeout) == (None, -1, 2_000)
    ((read_topic, partitions),) = read.topics
    assert (read_topic, [partition for partition, _ in partitions]) == (topic, list(range(PARTITIONS)))
    assert read.encode() == laid_out
