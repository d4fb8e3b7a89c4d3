"""The commands that are measured with: the same for a seed, wherever and whenever they are made."""

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from processor.partition import partition_of

PARTITIONS = 32
STREAMS = 2_000

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


def commands(count: int, *, seed: int = 1) -> Iterator[CommandRecord]:
    """Commands of some 250 bytes, one event each, with exact versions; Zipf's law says how often a stream comes."""
    chance = random.Random(seed)
    names = [f"order-{number:06}" for number in range(STREAMS)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, STREAMS + 1)))
    versions = dict.fromkeys(names, 0)
    offsets = [0] * PARTITIONS
    for number, name in enumerate(chance.choices(names, cum_weights=weights, k=count)):
        partition = partition_of(name.encode(), PARTITIONS)
        value = (
            f'{{"stream":"{name}","expected_version":{versions[name]},"events":[{{"event_id":"{_uuid7(number, chance)}"'
            f',"type":"OrderShipped","data":{{"n":{number},"text":"{_TEXT}"}}}}],'
            f'"command_id":"{_uuid7(number, chance)}"}}'
        )
        yield CommandRecord(partition, offsets[partition], _BEGIN_MS + number, name.encode(), value.encode())
        versions[name] += 1
        offsets[partition] += 1


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
    """Write the records to the topic, which is empty."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    try:
        for partition, of_partition in by_partition(records).items():
            await _write(producer, topic, partition, of_partition)
    finally:
        await producer.stop()


async def _write(producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[CommandRecord]) -> None:
    done = 0
    while done < len(records):
        batch = producer.create_batch()
        for record in records[done:]:
            appended = batch.append(key=record.key, value=record.value, timestamp=record.timestamp, headers=[])
            if appended is None:
                break
            done += 1
        batch.close()
        await (await producer.send_batch(batch, topic, partition=partition))
