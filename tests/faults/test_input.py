"""Faults of what comes in: sent twice, out of order, poison, a flood on one stream, clocks that jump."""

import json
import random
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from processor.names import TopicNames
from processor.partition import partition_of
from tests.faults.trial import PARTITIONS, REPEATS, Trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 30 * REPEATS)]

HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000
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


async def a_raw_client(trial: Trial) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=trial.settings.brokers)


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
