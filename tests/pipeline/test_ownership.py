"""Owners come and go, and logs that do not fit stand still: nothing is lost, doubled or guessed."""

import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import closing

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from processor.codec import NO_LIMITS, decode
from processor.decide import decide
from processor.kafka.recovering import recover, republish
from processor.kafka.topics import create_topics
from processor.messages import Accepted, Log, View
from processor.recover import skip_deleted, start_anew
from processor.stores import open_store
from tests.pipeline.conftest import PARTITIONS, Pipeline, until

STREAMS = 20


def commands(first: int, count: int) -> list[tuple[bytes, bytes]]:
    """Commands with ids of their own on a few streams, each event numbered."""
    return [
        (
            b"s%d" % (number % STREAMS),
            json.dumps({"stream": f"s{number % STREAMS}", "events": [{"type": "Counted", "data": number}]}).encode(),
        )
        for number in range(first, first + count)
    ]


async def feed_positions(pipeline: Pipeline) -> dict[int, list[int]]:
    """Per partition, the positions on the feed, in the order in which they are there."""
    positions: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
    for record in await pipeline.records(pipeline.names.events):
        positions[record.partition].append(int(dict(record.headers)["ce_position"]))
    return positions


def first_occurrences(positions: list[int]) -> list[int]:
    return list(dict.fromkeys(positions))


async def assert_whole(pipeline: Pipeline, sent: int, *, twice_allowed: bool) -> None:
    """Every command was accepted once, and the feed has every position, in order."""
    outcomes = await pipeline.outcomes(sent)
    assert Counter(type(outcome) for outcome in outcomes.values()) == {Accepted: sent}
    expected = Counter(outcome.partition for outcome in outcomes.values())
    for partition, positions in (await feed_positions(pipeline)).items():
        found = first_occurrences(positions) if twice_allowed else positions
        assert found == list(range(1, expected[partition] + 1))


async def test_a_worker_goes_on_where_the_one_before_it_ended(pipeline: Pipeline) -> None:
    for start in (0, 60, 120):
        async with pipeline.worker():
            await pipeline.send(*commands(start, 60))
            await pipeline.outcomes(start + 60)
    await assert_whole(pipeline, 180, twice_allowed=False)
    assert len(await pipeline.records(pipeline.names.results)) == 180


async def commit_without_publishing(pipeline: Pipeline) -> None:
    """What a worker leaves that dies right after its commit."""
    settings = pipeline.settings
    store = open_store(settings.store, partitions=settings.partitions)
    await store.open()
    by_log: dict[Log, list[object]] = {}
    for record in await pipeline.records(pipeline.names.commands):
        by_log.setdefault(Log("default", record.partition), []).append(record)
    checkpoints = await store.claim(list(by_log))
    for log, records in by_log.items():
        entries = [(record, decode(record.key, record.value, NO_LIMITS)) for record in records]  # type: ignore[attr-defined]
        plan = decide(settings.rules, log, checkpoints[log], View.empty(), entries, len(records))  # type: ignore[arg-type]
        await store.commit([plan])
    await store.close()


async def test_what_was_committed_but_not_published_is_published_by_the_next_owner(sqlite_pipeline: Pipeline) -> None:
    await sqlite_pipeline.send(*commands(0, 60))
    await commit_without_publishing(sqlite_pipeline)
    assert await sqlite_pipeline.records(sqlite_pipeline.names.results) == []
    async with sqlite_pipeline.worker():
        await assert_whole(sqlite_pipeline, 60, twice_allowed=False)


async def test_partitions_move_between_workers_and_nothing_is_lost_or_doubled(postgres_pipeline: Pipeline) -> None:
    pipeline = postgres_pipeline
    async with pipeline.producer() as producer:

        async def send(start: int) -> None:
            for key, value in commands(start, 200):
                await producer.send(pipeline.names.commands, value, key)
            await producer.flush()

        async with pipeline.worker() as first:
            await send(0)
            async with pipeline.worker() as second:
                await until(lambda: len(first.statuses) == len(second.statuses) == PARTITIONS // 2)
                await send(200)
            await until(lambda: len(first.statuses) == PARTITIONS)
            await send(400)
            await assert_whole(pipeline, 600, twice_allowed=True)


async def test_a_worker_that_was_fenced_claims_again_while_the_log_is_its_own(
    sqlite_pipeline: Pipeline, sqlite_url: str
) -> None:
    async with sqlite_pipeline.worker() as worker:
        await sqlite_pipeline.send(*commands(0, 20))
        await sqlite_pipeline.outcomes(20)
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as intruder, intruder:
            intruder.execute("UPDATE checkpoints SET epoch = epoch + 1")
        await sqlite_pipeline.send(*commands(20, 20))
        await assert_whole(sqlite_pipeline, 40, twice_allowed=True)
        assert {status.state for status in worker.statuses.values()} == {"running"}


class TestMisfits:
    async def stopped(self, pipeline: Pipeline) -> list[str]:
        """Why logs stand still, once a worker has looked at them."""
        async with pipeline.worker() as worker:
            await asyncio.sleep(0)
            return [status.reason for status in worker.statuses.values() if status.state == "stopped"]

    async def filled(self, pipeline: Pipeline) -> None:
        async with pipeline.worker():
            await pipeline.send(*commands(0, 40))
            await pipeline.outcomes(40)

    async def test_a_commands_topic_that_was_made_anew_is_found_out(self, sqlite_pipeline: Pipeline) -> None:
        await self.filled(sqlite_pipeline)
        await recreate(sqlite_pipeline, sqlite_pipeline.names.commands)
        reasons = await self.stopped(sqlite_pipeline)
        assert len(reasons) == PARTITIONS
        assert all("made anew" in reason for reason in reasons)

    async def test_it_is_decided_on_top_of_the_store_when_an_operator_has_chosen_so(
        self, sqlite_pipeline: Pipeline
    ) -> None:
        await self.filled(sqlite_pipeline)
        await recreate(sqlite_pipeline, sqlite_pipeline.names.commands)
        await sqlite_pipeline.send(*commands(100, 40))
        logs = [Log("default", partition) for partition in range(PARTITIONS)]
        tried = await recover(sqlite_pipeline.settings, logs, start_anew, dry_run=True)
        assert [choice.log for choice in tried if choice.plan] == logs
        async with sqlite_pipeline.worker() as worker:
            await until(lambda: {status.state for status in worker.statuses.values()} == {"stopped"})

        await recover(sqlite_pipeline.settings, logs, start_anew, dry_run=False)
        async with sqlite_pipeline.worker():
            await until_fed(sqlite_pipeline, 80)
        for positions in (await feed_positions(sqlite_pipeline)).values():
            assert positions == list(range(1, len(positions) + 1))

    async def test_one_that_was_made_anew_and_filled_again_is_found_out(self, sqlite_pipeline: Pipeline) -> None:
        await self.filled(sqlite_pipeline)
        await recreate(sqlite_pipeline, sqlite_pipeline.names.commands)
        await sqlite_pipeline.send(*commands(100, 80))
        async with sqlite_pipeline.worker() as worker:
            await until(lambda: {status.state for status in worker.statuses.values()} == {"stopped"})
            assert all("is not the one" in status.reason for status in worker.statuses.values())

    async def test_a_store_that_is_behind_the_feed_is_found_out_and_rebuilt_on_request(
        self, sqlite_pipeline: Pipeline, sqlite_url: str
    ) -> None:
        await self.filled(sqlite_pipeline)
        emptied = sqlite_pipeline.with_(store=sqlite_url.replace(".db", "-new.db"))
        reasons = await self.stopped(emptied)
        assert len(reasons) == PARTITIONS
        assert all("--rebuild" in reason for reason in reasons)
        async with emptied.worker(rebuild=True):
            await emptied.send(*commands(40, 40))
            await assert_whole(emptied, 80, twice_allowed=False)

    async def test_commands_that_were_deleted_before_they_were_decided_are_missed(
        self, sqlite_pipeline: Pipeline
    ) -> None:
        sent = await sqlite_pipeline.send(*commands(0, 40))
        partition = sent[0][0]
        await delete_records(sqlite_pipeline, partition, before=2)
        async with sqlite_pipeline.worker() as worker:
            stopped = {log.partition for log, status in worker.statuses.items() if status.state == "stopped"}
            assert stopped == {partition}
            others = [place for place in sent if place[0] != partition]
            await sqlite_pipeline.outcomes(len(others))
        (choice,) = await recover(sqlite_pipeline.settings, [Log("default", partition)], skip_deleted, dry_run=False)
        assert choice.plan is not None and "give up 2 undecided commands" in choice.text
        async with sqlite_pipeline.worker():
            await sqlite_pipeline.outcomes(38)

    async def test_a_feed_that_was_made_anew_is_published_again_on_request(self, sqlite_pipeline: Pipeline) -> None:
        await self.filled(sqlite_pipeline)
        before = await feed_positions(sqlite_pipeline)
        await recreate(sqlite_pipeline, sqlite_pipeline.names.events)
        logs = [Log("default", partition) for partition in range(PARTITIONS)]
        seen: list[int] = []
        await republish(sqlite_pipeline.settings, logs, seen.append, dry_run=True)
        assert seen == [] and await sqlite_pipeline.records(sqlite_pipeline.names.events) == []
        await republish(sqlite_pipeline.settings, logs, seen.append, dry_run=False)
        assert await feed_positions(sqlite_pipeline) == before
        assert seen[-1] == 40


async def until_fed(pipeline: Pipeline, events: int) -> None:
    """Wait until the feed has so many events."""
    async with asyncio.timeout(20):
        while len(await pipeline.records(pipeline.names.events)) < events:
            await asyncio.sleep(0.05)


async def recreate(pipeline: Pipeline, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.brokers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await create_topics(pipeline.settings)


async def delete_records(pipeline: Pipeline, partition: int, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.brokers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(pipeline.names.commands, partition): RecordsToDelete(before)})
    finally:
        await admin.close()


async def test_a_log_that_someone_holds_in_the_database_holds_up_no_other(
    postgres_pipeline: Pipeline, postgres_url: str
) -> None:
    held = 2
    async with postgres_pipeline.worker():
        someone = await asyncpg.connect(postgres_url)
        try:
            async with someone.transaction():
                await someone.execute("SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE", held)
                free: set[tuple[int, int]] = set()
                for start in range(0, 100, 10):
                    sent = await postgres_pipeline.send(*commands(start, 10))
                    free |= {place for place in sent if place[0] != held}
                    async with asyncio.timeout(3):
                        assert set(await postgres_pipeline.outcomes(len(free))) == free
        finally:
            await someone.close()
        await assert_whole(postgres_pipeline, 100, twice_allowed=False)
