"""The commands that are measured with: the same for a seed, wherever and whenever they are made."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from processor.partition import partition_of

PARTITIONS = 32
STREAMS = 2_000
HOT_PARTITION = 7

_BATCH_BYTES = 64 * 1024
_BEGIN_MS = 1_767_225_600_000  # 2026-01-01
_TEXT = "the quick brown fox jumps over the lazy dog"


class CommandRecord(NamedTuple):
    """A command as a record of its log."""

    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Mix(NamedTuple):
    """What the commands are like.

    events: of each command. stale_every: one in so many expects a version that the stream does not have (0: none).
    hot_share: how much of the load goes to the streams of `HOT_PARTITION`; None leaves it to Zipf's law.
    """

    events: int = 1
    stale_every: int = 0
    hot_share: float | None = None


class Commands:
    """An endless load: each command goes on from those before it. Zipf's law says how often a stream comes.

    version: of all the streams at the beginning.
    """

    def __init__(self, *, version: int = 0, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._versions = dict.fromkeys(map(stream_name, range(STREAMS)), version)
        self._offsets = [0] * PARTITIONS
        self._made = 0

    def take(self, count: int, mix: Mix | None = None) -> list[CommandRecord]:
        """The next ones; of one event and exact version, some 250 bytes each, unless the mix says otherwise."""
        mix = mix or Mix()
        names = list(self._versions)
        return [self._make(name, mix) for name in self._chance.choices(names, _weights(names, mix), k=count)]

    def _make(self, name: str, mix: Mix) -> CommandRecord:
        number, partition = self._made, partition_of(name.encode(), PARTITIONS)
        stale = mix.stale_every > 0 and number % mix.stale_every == mix.stale_every - 1
        value = _command(name, self._versions[name] + stale, number, mix.events, self._chance)
        record = CommandRecord(partition, self._offsets[partition], _BEGIN_MS + number, name.encode(), value)
        self._versions[name] += 0 if stale else mix.events
        self._offsets[partition] += 1
        self._made += 1
        return record

    def take_each(self, streams: Sequence[str], version: int) -> list[CommandRecord]:
        """One command for each of other streams, all of which have this version, in an order of chance."""
        names = self._chance.sample(streams, len(streams))
        self._versions |= dict.fromkeys(names, version)
        made = [self._make(name, Mix()) for name in names]
        for name in names:
            del self._versions[name]
        return made


def commands(count: int) -> list[CommandRecord]:
    """The first ones, from empty streams on."""
    return Commands().take(count)


def stream_name(number: int) -> str:
    """The name of a stream, counted from 0."""
    return f"order-{number:06}"


def _weights(names: Sequence[str], mix: Mix) -> list[float]:
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    if mix.hot_share is None:
        return weights
    hot = [partition_of(name.encode(), PARTITIONS) == HOT_PARTITION for name in names]
    heat = sum(itertools.compress(weights, hot))
    rest = sum(weights) - heat
    return [
        weight * (mix.hot_share / heat if is_hot else (1 - mix.hot_share) / rest)
        for weight, is_hot in zip(weights, hot, strict=True)
    ]


def _command(stream: str, version: int, number: int, events: int, chance: random.Random) -> bytes:
    command_id = _uuid7(number, chance)
    listed = ",".join(
        f'{{"event_id":"{_uuid7(number, chance)}","type":"OrderShipped","data":{{"n":{number},"text":"{_TEXT}"}}}}'
        for _ in range(events)
    )
    return (
        f'{{"stream":"{stream}","expected_version":{version},"events":[{listed}],"command_id":"{command_id}"}}'
    ).encode()


def following(records: Sequence[CommandRecord], more: Sequence[CommandRecord]) -> list[CommandRecord]:
    """`more` with the offsets that it has behind `records`."""
    ends = [0] * PARTITIONS
    for record in records:
        ends[record.partition] += 1
    return [record._replace(offset=ends[record.partition] + record.offset) for record in more]


def _uuid7(number: int, chance: random.Random) -> str:
    """A time-ordered id, as clients make them."""
    digits = f"{_BEGIN_MS + number:012x}7{chance.getrandbits(12):03x}8{chance.getrandbits(60):015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def by_partition(records: Sequence[CommandRecord]) -> dict[int, list[CommandRecord]]:
    """The records of each partition, in order."""
    found: dict[int, list[CommandRecord]] = {partition: [] for partition in range(PARTITIONS)}
    for record in records:
        found[record.partition].append(record)
    return found


async def preload(bootstrap: str, topic: str, records: Sequence[CommandRecord]) -> None:
    """Write the records to the topic, behind what is there."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    try:
        for partition, of_partition in by_partition(records).items():
            await asyncio.gather(*await _write(producer, topic, partition, of_partition))
    finally:
        await producer.stop()


async def _write(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[CommandRecord]
) -> list[asyncio.Future[Any]]:
    """Hand all to the producer, batch after batch, as it has room for them; returns what tells of their end."""
    under_way: list[asyncio.Future[Any]] = []
    done = 0
    while done < len(records):
        batch = producer.create_batch()
        for record in itertools.islice(records, done, None):
            appended = batch.append(
                key=record.key, value=record.value, timestamp=record.timestamp, headers=[*record.headers]
            )
            if appended is None:
                break
            done += 1
        batch.close()
        under_way.append(await producer.send_batch(batch, topic, partition=partition))
    return under_way
