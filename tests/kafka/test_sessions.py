"""Fetch sessions, on a real broker: what is asked, and that every record comes whatever becomes of a session."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import FetchSessionIdNotFound, KafkaError
from aiokafka.protocol.fetch import FetchRequest

from processor.kafka.sessions import FetchSessions
from tests.servers import Kafka

PARTITIONS = 4


class Reading:
    """A consumer with sessions. `sent`: session, epoch, and the partitions of each request, named and forgotten."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, topic: str) -> None:
        self.consumer = consumer
        self.places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self.sent: list[tuple[int, int, list[int], list[int]]] = []
        self.sessions = FetchSessions(consumer._client)
        self.failures: list[KafkaError] = []
        self._producer = producer
        self._topic = topic
        self._send = consumer._client.send
        consumer._client.send = self._noted
        consumer._fetcher._client = self.sessions

    async def _noted(self, node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            if self.failures:
                raise self.failures.pop()
            build = request.build
            request.build = lambda struct: self._note(build(struct))
        return await self._send(node_id, request, **options)

    def _note(self, built: Any) -> Any:
        named = sorted(entry[0] for _, entries in built.topics for entry in entries)
        forgotten = sorted(number for _, numbers in built.forgotten_topics_data for number in numbers)
        self.sent.append((built.session_id, built.session_epoch, named, forgotten))
        return built

    async def write(self, *partitions: int) -> None:
        """A record to each."""
        for partition in partitions:
            await self._producer.send_and_wait(self._topic, b"value", partition=partition)

    async def read(self, count: int) -> list[tuple[int, int]]:
        """Partition and offset of the next records."""
        found: list[tuple[int, int]] = []
        while len(found) < count:
            for place, records in (await self.consumer.getmany(*self.places, timeout_ms=10_000)).items():
                found += [(place.partition, record.offset) for record in records]
        return sorted(found)


@pytest.fixture
async def reading(kafka: Kafka, topic_prefix: str) -> AsyncIterator[Reading]:
    """Of an empty topic."""
    if not kafka.real:
        pytest.skip("the embedded broker has no fetch sessions")
    topic = f"{topic_prefix}read"
    kafka.create_topics([topic], PARTITIONS)
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer,
        AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, fetch_max_wait_ms=50, retry_backoff_ms=10) as consumer,
    ):
        reading = Reading(consumer, producer, topic)
        consumer.assign(reading.places)
        for place in reading.places:
            consumer.seek(place, 0)
        yield reading


async def test_a_request_names_what_has_changed_since_the_one_before(reading: Reading) -> None:
    await reading.write(0, 1, 2, 3)
    assert await reading.read(4) == [(partition, 0) for partition in range(4)]
    await reading.write(2)
    assert await reading.read(1) == [(2, 1)]
    await reading.write(2)
    assert await reading.read(1) == [(2, 2)]

    number, epochs = reading.sent[-1][0], [epoch for _, epoch, _, _ in reading.sent]
    assert reading.sent[0] == (0, 0, [0, 1, 2, 3], [])
    assert number and epochs == list(range(len(epochs)))
    assert all(session == number for session, _, _, _ in reading.sent[1:])
    named = [named for _, _, named, _ in reading.sent]
    assert [2] in named
    assert len([partitions for partitions in named if len(partitions) == 4]) <= 2


async def test_what_is_not_asked_for_is_forgotten_and_can_be_asked_for_again(reading: Reading) -> None:
    await reading.write(0, 1)
    await reading.read(2)
    reading.consumer.pause(reading.places[1])
    await reading.write(1, 0)
    assert await reading.read(1) == [(0, 1)]
    reading.consumer.resume(reading.places[1])
    assert await reading.read(1) == [(1, 1)]
    assert [1] in [forgotten for _, _, _, forgotten in reading.sent]


async def test_what_was_sought_back_comes_again(reading: Reading) -> None:
    await reading.write(0, 0, 1)
    await reading.read(3)
    reading.consumer.seek(reading.places[0], 1)
    assert await reading.read(1) == [(0, 1)]


async def test_a_session_that_the_broker_does_not_know_begins_anew(reading: Reading) -> None:
    await reading.write(0, 1)
    await reading.read(2)
    lost = {node: session._replace(number=session.number + 1) for node, session in reading.sessions._sessions.items()}
    reading.sessions._sessions.update(lost)
    before = len(reading.sent)
    await reading.write(0, 3)
    assert await reading.read(2) == [(0, 1), (3, 0)]
    assert (0, [0, 1, 2, 3]) in [(epoch, named) for _, epoch, named, _ in reading.sent[before:]]


async def test_after_an_answer_that_did_not_come_it_begins_anew(reading: Reading) -> None:
    await reading.write(0, 1)
    await reading.read(2)
    reading.failures.append(KafkaError("gone"))
    before = len(reading.sent)
    await reading.write(0, 3)
    assert await reading.read(2) == [(0, 1), (3, 0)]
    assert (0, [0, 1, 2, 3]) in [(epoch, named) for _, epoch, named, _ in reading.sent[before:]]


class _Answering:
    """A client whose every answer is this."""

    cluster = None

    def __init__(self, version: int, **fields: Any) -> None:
        self.versions: list[Any] = []
        self._struct = next(struct for struct in FetchRequest._CLASSES if version == struct.API_VERSION)
        self._answer = self._struct.RESPONSE_TYPE(throttle_time_ms=0, topics=[], **fields)

    async def send(self, node_id: int, request: FetchRequest) -> Any:
        assert node_id == 1
        self.versions.append(request.build(self._struct))
        return self._answer


def _request() -> FetchRequest:
    return FetchRequest(100, 1, 1_000, 1, [("topic", [(0, 5, 100), (1, 6, 100)])])


async def test_a_broker_without_sessions_is_asked_for_everything() -> None:
    client = _Answering(6)
    sessions = FetchSessions(client)
    for _ in range(2):
        await sessions.send(1, _request())
    assert client.versions == [_request().build(type(client.versions[0]))] * 2


async def test_a_broker_that_has_no_room_for_a_session_is_asked_for_everything() -> None:
    client = _Answering(11, error_code=0, session_id=0)
    sessions = FetchSessions(client)
    for _ in range(2):
        await sessions.send(1, _request())
    assert [(asked.session_id, asked.session_epoch) for asked in client.versions] == [(0, 0), (0, 0)]
    assert [len(asked.topics[0][1]) for asked in client.versions] == [2, 2]


async def test_a_session_that_can_not_be_begun_is_an_error() -> None:
    client = _Answering(11, error_code=FetchSessionIdNotFound.errno, session_id=0)
    with pytest.raises(FetchSessionIdNotFound):
        await FetchSessions(client).send(1, _request())
    assert len(client.versions) == 2


async def test_all_else_is_the_clients() -> None:
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    sessions = FetchSessions(client)
    assert sessions.cluster is client.cluster
    assert sessions.force_metadata_update == client.force_metadata_update
