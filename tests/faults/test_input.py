"""Faults of what comes in: sent twice, late, out of order, poison, a flood on one stream or log, clocks that jump."""

import json
import random
import time
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from processor.client import Client, Event
from processor.names import TopicNames
from processor.partition import partition_of
from tests.faults.evidence import records_of
from tests.faults.history import STREAMS
from tests.faults.proxy import Proxy
from tests.faults.trial import PARTITIONS, REPEATS, Trial, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 30 * REPEATS)]

HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000
QUICKLY_S = 5.0
NUMBER = "number"
"""The header that tells the copies of one record."""
POISON = [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"stream":"s-1"}', b'{"stream":"s-1","events":[]}',
    b'{"stream":"s-1","events":[{"type":"t","event_id":"?"}]}', b'{"stream":"s-1","events":[{"type":"t"}],"x":1}',
    b'{"stream":"another","events":[{"type":"t"}]}', b"[" * 10_000, None,
]  # fmt: skip


class Raw:
    """A client without manners: records go out as they are."""

    def __init__(self, trial: Trial, producer: AIOKafkaProducer, seed: int) -> None:
        self.chance = random.Random(seed)
        self._topic = TopicNames.of(trial.settings.topic_prefix, "default").commands
        self._producer = producer

    async def send(
        self,
        key: bytes,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        await self._producer.send_and_wait(
            self._topic, value, key, partition_of(key, PARTITIONS), timestamp_ms, headers
        )

    def command(self, stream: str, **fields: Any) -> bytes:
        event = {"type": "Counted", "event_id": str(UUID(int=self.chance.getrandbits(128))), "data": {"n": 0}}
        return json.dumps({"stream": stream, "events": [event], **fields}).encode()


def nameless(stream: str) -> bytes:
    """A command whose event gets its id from its place on the log."""
    return json.dumps({"stream": stream, "events": [{"type": "Counted", "data": {"n": 0}}]}).encode()


async def a_raw_client(trial: Trial, **options: Any) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=trial.settings.brokers, **options)


async def test_sent_again_out_of_order(trial: Trial) -> None:
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=1)
        await trial.worker()
        for _ in trial.times(REPEATS):
            batch = [("s-1", raw.command("s-1")) for _ in range(10)]
            again = [*batch, *batch[::-1], *raw.chance.sample(batch, 5)]
            for stream, value in again:
                await raw.send(stream.encode(), value)
        await trial.answers(10)
    await trial.holds()


async def copies(trial: Trial) -> list[bytes]:
    """The numbered records on the commands topic, in order within each partition, as often as they are there."""
    topic = TopicNames.of(trial.settings.topic_prefix, "default").commands
    records = await records_of(trial.settings, topic)
    return [headers[NUMBER] for record in records if NUMBER in (headers := dict(record.headers))]


async def test_stored_twice_by_a_producer_that_retries(proxied_trial: Trial, proxy: Proxy) -> None:
    """A producer that is not idempotent loses the broker's answer, and sends the same batch again."""
    trial = proxied_trial
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=6)
        await trial.worker()
        for repeat in trial.times(REPEATS):
            number = b"<%d>" % repeat
            proxy.lose(number, delivered=True)
            # With a version, without one, and without an id of its own: what its place on the log makes of it.
            for value in (raw.command("s-1", expected_version=repeat), raw.command("s-2"), nameless("s-3")):
                await raw.send(json.loads(value)["stream"].encode(), value, headers=[(NUMBER, number)])
        await trial.answers(10)
    await trial.holds()
    there = await copies(trial)
    assert all(there.count(b"<%d>" % repeat) == 4 for repeat in range(trial.tried)), there


async def test_retries_that_come_late_and_out_of_order(proxied_trial: Trial, proxy: Proxy) -> None:
    """Two requests under way: the first is held up in the network, and sent again when the second is there."""
    trial = proxied_trial
    slow = {"retry_backoff_ms": 1_000}
    async with trial.load(), await a_raw_client(trial, **slow) as one, await a_raw_client(trial) as another:
        held, ahead = Raw(trial, one, seed=7), Raw(trial, another, seed=8)
        await trial.worker()
        for repeat in trial.times(REPEATS):
            late, other = b"<%d late>" % repeat, b"<%d>" % repeat
            proxy.deliver_late(late, late_s=0.5)
            sending = trial.start(held.send(b"s-1", held.command("s-1"), headers=[(NUMBER, late)]))
            await ahead.send(b"s-1", ahead.command("s-1"), headers=[(NUMBER, other)])
            await sending
        await until(lambda: proxy.cuts == trial.tried)
        await trial.answers(10)
    await trial.holds()
    there = await copies(trial)
    for repeat in range(trial.tried):
        copied = [number for number in there if number.startswith((b"<%d>" % repeat, b"<%d " % repeat))]
        assert copied == [b"<%d>" % repeat, b"<%d late>" % repeat, b"<%d late>" % repeat], there


async def test_poison(trial: Trial) -> None:
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=2)
        for repeat in trial.times(REPEATS):
            worker = await trial.worker(f"after_commit=kill@{5 + repeat % 7}", ready=False)
            for value in raw.chance.sample(POISON, len(POISON)):
                await raw.send(b"s-1", value)
            await worker.ends()
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


async def test_a_flood_on_one_stream(trial: Trial) -> None:
    async with trial.load(streams=["hot"], clients=24), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=3)
        for _ in trial.times(REPEATS):
            worker = await trial.worker("after_commit=kill@20", ready=False)
            for _ in range(300):
                await raw.send(b"hot", raw.command("hot"))
            await worker.ends()
        await trial.worker()
        await trial.answers(50)
    await trial.holds()


async def test_one_hot_partition(trial: Trial) -> None:
    """Nine in ten commands are for one log, which has a backlog besides: no other log's client waits for it."""
    hot = trial.partition_of("s-1")
    names = [f"s-{number}" for number in range(200)]
    streams = [name for name in names if trial.partition_of(name) == hot][:27]
    cold = [name for name in names if trial.partition_of(name) != hot][:3]
    async with trial.load(streams=[*streams, *cold], clients=12), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=9)
        for _ in trial.times(REPEATS):
            worker = await trial.worker("after_commit=kill@20", ready=False)
            for number in range(600):
                name = streams[number % len(streams)]
                await raw.send(name.encode(), raw.command(name))
            await worker.ends()
            worker = await trial.worker()
            async with Client(trial.settings) as client:
                await client.append(cold[0], [Event(type="Counted")], timeout_s=QUICKLY_S)
            await worker.end()
        await trial.worker()
        await trial.answers(50)
    await trial.holds()


async def test_records_out_of_time_order(trial: Trial) -> None:
    """Each record is older than the one before it, by hours and then by years, as when histories are loaded."""
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=10)
        for repeat in trial.times(REPEATS):
            worker = await trial.worker(f"after_commit=kill@{4 + repeat % 5}", ready=False)
            now_ms = round(time.time() * 1000)
            refused = raw.command("s-1", expected_version=10**6, command_id=f"late-{repeat}")
            for number in range(20):
                value = refused if number % 4 == 0 else raw.command(STREAMS[number % len(STREAMS)])
                stream = json.loads(value)["stream"].encode()
                await raw.send(stream, value, now_ms - number**4 * HOUR_MS)
            await worker.ends()
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


async def test_clocks_that_jump(trial: Trial) -> None:
    """Hours forward and back, and without a time at all: the store is still a function of the log."""
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=4)
        await trial.worker()
        for number in (number for repeat in trial.times(REPEATS) for number in range(20 * repeat, 20 * repeat + 20)):
            refused = raw.command("s-1", expected_version=10**6, command_id=f"refused-{number}")
            for value in (refused, raw.command("s-1"), refused):
                await raw.send(b"s-1", value, NOW_MS + raw.chance.randint(-48, 48) * HOUR_MS)
        await trial.answers(10)
    await trial.holds()


async def test_a_reply_topic_that_is_missing(trial: Trial) -> None:
    """Its clients have the standing topic, and no other command waits."""
    replies = f"{trial.settings.topic_prefix}nowhere".replace(".", "-")
    async with trial.load(), await a_raw_client(trial) as producer:
        raw = Raw(trial, producer, seed=5)
        worker = await trial.worker(TIDEMARK_REPLY_TOPICS=replies)
        for _ in trial.times(REPEATS):
            await raw.send(b"s-1", raw.command("s-1"), headers=[("reply_to", replies.encode())])
        await worker.says("a reply topic can't be written")
        await trial.answers(10)
    await trial.holds()
