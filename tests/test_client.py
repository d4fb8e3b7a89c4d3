"""The client, against a worker process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from processor.client import Accepted, Client, Conflict, Duplicate, Event, FeedEvent, Rejected
from processor.errors import BrokerUnreachable, NotSent, OutcomeUnknown, SettingsError, TopicMismatch
from processor.kafka.ends import log_ends
from processor.messages import Command
from processor.settings import Settings
from tests.servers import Kafka
from tests.world import World, served

PLACED = "OrderPlaced"


@pytest.fixture(scope="module")
def world(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A worker for this module's tests, each with streams of its own."""
    with served(kafka, tmp_path_factory.mktemp("client")) as world:
        yield world


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    """A client of the worker."""
    async with Client(world.settings) as client:
        yield client


@pytest.fixture
def stream(topic_prefix: str) -> str:
    """A stream's name that no other test has."""
    return f"order-{topic_prefix}"


@pytest.fixture
def unserved(kafka: Kafka, topic_prefix: str, sqlite_url: str) -> Settings:
    """Topics without a worker."""
    alone = World(kafka.bootstrap, topic_prefix, sqlite_url)
    alone.create_topics(kafka)
    return alone.settings


async def find(client: Client, stream: str, count: int, **options: Any) -> list[FeedEvent]:
    """The first events of a stream that come on the feed."""
    found: list[FeedEvent] = []
    async with asyncio.timeout(20), aclosing(client.events(**options)) as events:
        async for event in events:
            found += [event] if event.stream == stream else []
            if len(found) == count:
                break
    return found


# --- append


async def test_each_outcome_is_a_value(client: Client, stream: str) -> None:
    placed = Event(PLACED, {"total": 42})
    accepted = await client.append(stream, [placed, Event("CouponApplied")], expected_version=0)
    assert isinstance(accepted, Accepted)
    assert (accepted.first_version, accepted.last_version, accepted.event_ids[0]) == (1, 2, placed.event_id)
    duplicate = await client.append(stream, [placed], expected_version=0)
    assert isinstance(duplicate, Duplicate)
    assert duplicate.first_position == accepted.first_position
    conflict = await client.append(stream, [Event("OrderShipped")], expected_version=1)
    assert isinstance(conflict, Conflict)
    assert (conflict.expected_version, conflict.actual_version) == (1, 2)
    rejected = await client.append(stream, [replace(placed, data={"total": 43})])
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "event_id_reused"


async def test_a_refused_command_sent_again_is_refused_again(client: Client, stream: str) -> None:
    first = await client.append(stream, [], command_id="c-1")
    assert isinstance(first, Rejected)
    late = Event("OrderShipped")
    first_conflict = await client.append(stream, [late], expected_version=7, command_id="c-2")
    again = await client.append(stream, [late], expected_version=7, command_id="c-2")
    assert isinstance(first_conflict, Conflict)
    assert isinstance(again, Conflict)
    assert again.replayed


async def test_many_are_in_flight_at_once_and_each_has_its_own_outcome(client: Client, stream: str) -> None:
    names = [f"{stream}{number}" for number in range(300)]
    outcomes = await asyncio.gather(*(client.append(name, [Event(PLACED)], expected_version=0) for name in names))
    assert [outcome.stream for outcome in outcomes] == names
    assert {type(outcome) for outcome in outcomes} == {Accepted}


async def test_of_many_that_expect_the_same_version_one_wins(client: Client, stream: str) -> None:
    outcomes = await asyncio.gather(*(client.append(stream, [Event(PLACED)], expected_version=0) for _ in range(20)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", *["Conflict"] * 19]


async def test_more_than_may_be_in_flight_wait_for_their_turn(world: World, stream: str) -> None:
    async with Client(world.settings, in_flight=3) as client:
        outcomes = await asyncio.gather(*(client.append(stream, [Event(PLACED)]) for _ in range(20)))
    assert {type(outcome) for outcome in outcomes} == {Accepted}


async def test_clients_do_not_take_each_others_outcomes(world: World, stream: str) -> None:
    async with Client(world.settings) as one, Client(world.settings) as other:
        names = [f"{stream}{number}" for number in range(50)]
        outcomes = await asyncio.gather(
            *(client.append(name, [Event(PLACED)], expected_version=0) for name in names for client in (one, other))
        )
    assert [outcome.stream for outcome in outcomes] == [name for name in names for _ in range(2)]
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == 50


async def test_no_outcome_in_time_carries_the_command_to_send_again(
    unserved: Settings, kafka: Kafka, stream: str
) -> None:
    async with Client(unserved) as client:
        with pytest.raises(OutcomeUnknown, match="does a worker run") as unknown:
            await client.append(stream, [Event(PLACED)], expected_version=0, timeout_s=0.5)
        command = unknown.value.command
        assert isinstance(command, Command)
        with pytest.raises(OutcomeUnknown) as again:
            await client.send(command, timeout_s=0.2)
        assert again.value.command is command


async def test_a_command_sent_again_after_a_time_out_is_one_command(
    unserved: Settings, kafka: Kafka, stream: str
) -> None:
    async with Client(unserved, resend_after_s=0.1) as client:
        appending = asyncio.create_task(client.append(stream, [Event(PLACED)], expected_version=0))
        while sum((await log_ends(unserved)).values()) < 2:
            await asyncio.sleep(0.02)
        worker = World(kafka.bootstrap, unserved.topic_prefix, unserved.store).start("worker")
        try:
            outcome = await appending
            assert isinstance(outcome, Accepted)
            [event] = await find(client, stream, 1, after="start")
            assert event.version == 1
            later = await client.append(stream, [Event("OrderShipped")], expected_version=1)
            assert isinstance(later, Accepted)
        finally:
            worker.terminate()
            await asyncio.to_thread(worker.communicate)


async def test_the_end_of_the_client_is_no_outcome(unserved: Settings, stream: str) -> None:
    async with Client(unserved) as client:
        appending = asyncio.create_task(client.append(stream, [Event(PLACED)]))
        await asyncio.sleep(0.3)
    with pytest.raises(OutcomeUnknown, match="closed"):
        await appending


async def test_what_no_broker_takes_is_not_sent_and_the_others_are(client: Client, stream: str) -> None:
    small = client.append(stream, [Event(PLACED)])
    large = client.append(stream, [Event(PLACED, {"text": "x" * 3_000_000})])
    outcome, error = await asyncio.gather(small, large, return_exceptions=True)
    assert isinstance(outcome, Accepted)
    assert isinstance(error, NotSent)


async def test_what_the_topic_does_not_take_is_not_sent_and_the_others_are(
    real_kafka: Kafka, client: Client, stream: str
) -> None:
    sizes = [10, 1_800_000, 10, 10]
    outcomes = await asyncio.gather(
        *(client.append(stream, [Event(PLACED, {"text": "x" * size})]) for size in sizes), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Accepted, NotSent, Accepted, Accepted]


# --- what is sent


@dataclass
class Total:
    amount: float
    at: datetime


async def test_python_data_goes_in_and_comes_out(client: Client, stream: str) -> None:
    total = Total(1.5, datetime(2026, 1, 2, tzinfo=UTC))
    event = Event(PLACED, total, {"user": "ü"}, schema_version=3)
    outcome = await client.append(stream, [event], correlation_id="corr", causation_id="cause", command_id="c-9")
    assert isinstance(outcome, Accepted)
    [found] = await find(client, stream, 1, after={outcome.partition: outcome.first_position - 1})
    assert found.data == {"amount": 1.5, "at": "2026-01-02T00:00:00Z"}
    assert (found.metadata, found.schema_version, found.event_id) == ({"user": "ü"}, 3, event.event_id)
    assert (found.correlation_id, found.causation_id, found.command_id) == ("corr", "cause", "c-9")
    assert (found.tenant, found.partition, found.position) == ("default", outcome.partition, outcome.first_position)
    assert abs((datetime.now(UTC) - found.time).total_seconds()) < 60


@pytest.mark.parametrize("data", [float("nan"), {"a": [float("inf")]}, object(), "\ud800"])
async def test_data_that_json_cannot_say_is_refused_at_once(client: Client, stream: str, data: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        await client.append(stream, [Event(PLACED, data)])


# --- the feed


async def test_from_now_on_only_what_comes(client: Client, stream: str) -> None:
    await client.append(stream, [Event("Before")])
    async with asyncio.timeout(20), aclosing(client.events(after="now")) as events:
        first = asyncio.create_task(anext(events))
        appended = 0
        while not first.done():
            appended += 1
            await client.append(stream, [Event("After", appended)])
        assert first.result().type == "After"


async def test_from_a_position_on(client: Client, stream: str) -> None:
    outcomes = [await client.append(stream, [Event(PLACED, number)]) for number in range(5)]
    third = outcomes[2]
    assert isinstance(third, Accepted)
    found = await find(client, stream, 2, partitions=[third.partition], after={third.partition: third.last_position})
    assert [event.data for event in found] == [3, 4]
    everywhere = [event async for event in client.events(after=0, follow=False)]
    assert [event.data for event in everywhere if event.stream == stream] == [0, 1, 2, 3, 4]


# --- what is missing


async def test_no_broker() -> None:
    with pytest.raises(BrokerUnreachable):
        async with Client("127.0.0.1:1", startup_timeout_s=1):
            pytest.fail("there is no broker")


async def test_no_topics(real_kafka: Kafka, topic_prefix: str) -> None:
    async with Client(real_kafka.bootstrap, topic_prefix=topic_prefix) as client:
        with pytest.raises(TopicMismatch, match="tidemark topics create"):
            await client.append("order-1", [Event(PLACED)])
        with pytest.raises(TopicMismatch, match="tidemark topics create"):
            await find(client, "order-1", 1)


async def test_a_partition_that_is_none(client: Client) -> None:
    with pytest.raises(SettingsError, match="0 to 3"):
        await find(client, "order-1", 1, partitions=[4])
