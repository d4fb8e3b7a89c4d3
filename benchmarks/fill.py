"""Fills a store with events, past Kafka: `python -m benchmarks.fill EVENTS PART PARTS`, settings from the environment.

Every event begins a stream of its own, so there are as many streams. Each partition begins with the streams that are
hot, a tenth of all, in the partitions that their names ask for; nobody asks for the others by name, and they lie
wherever they even the partitions out. It is as after `tidemark recover new-log`: the log that led to these events is
another one, and the commands topic begins with offset 0.

Several processes can share the work: each takes every `PARTS`th partition.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache

import asyncpg
import uvloop
from asyncpg.pgproto.pgproto import UUID
from msgspec.structs import astuple

from benchmarks.bed import LOGS, Site
from benchmarks.load import PARTITIONS, STREAMS, stream_name
from benchmarks.ready import Start
from processor.chain import event_hash, genesis, payload_digest
from processor.messages import Checkpoint, Head, Log, RecordedEvent
from processor.partition import partition_of
from processor.settings import Settings, load_settings
from processor.stores.rows import Row
from processor.stores.tables import CHECKPOINT, events, id_text, streams

_TENANT = 1
_TIME_MS = 1_735_689_600_000  # 2025-01-01
_TYPE = "OrderPlaced"
_UNNAMED = (None, None, None, None)  # no command id, correlation id, causation id, trace
_EVENTS = [column.name for column in events.columns]
_STREAMS = [column.name for column in streams.columns]
_LONGEST_S = 1_800.0


def hot_streams(count: int) -> list[str]:
    """The names that are asked for, where a store has `count` events."""
    return [stream_name(number) for number in range(max(STREAMS, count // 10))]


def starts(count: int, checkpoints: dict[Log, Checkpoint]) -> list[Start]:
    """What a filled store's logs begin with; the hot streams' heads are known."""
    hot = _hot_by_partition(count)
    return [
        Start(checkpoints[log], {name: Head(number, 1) for number, name in enumerate(hot[log.partition], 1)})
        for log in LOGS
    ]


@cache
def _hot_by_partition(count: int) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for name in hot_streams(count):
        found[partition_of(name.encode(), PARTITIONS)].append(name)
    return found


def _names(count: int, partition: int) -> Iterator[str]:
    """The streams of a partition, in the order of their numbers."""
    hot = _hot_by_partition(count)[partition]
    yield from hot
    share = count // PARTITIONS + (partition < count % PARTITIONS)
    for number in range(len(hot), share):
        yield f"archive-{partition:03}-{number:09}"


class _Partition:
    """What a partition is filled with, made as it is asked for."""

    def __init__(self, log: Log, names: Iterator[str]) -> None:
        self.log = log
        self.count = 0
        self.chain = genesis(log)
        self._names = names

    def events(self, *, as_uuid: bool) -> Iterator[Row]:
        """Rows of `events`, which also counts them."""
        partition = self.log.partition
        for position, name in enumerate(self._names, 1):
            key = position.to_bytes(6, "big") + b"\x70\x00\x80" + partition.to_bytes(7, "big")
            data = b'{"n":%d,"text":"the quick brown fox jumps over the lazy dog"}' % position
            event = RecordedEvent(
                name,
                1,
                position,
                id_text(key),
                _TYPE,
                1,
                data,
                b"",
                _TIME_MS,
                position - 1,
                None,
                None,
                None,
                None,
                b"",
            )
            self.chain = event_hash(self.chain, payload_digest(data, b""), event)
            self.count = position
            yield (
                _TENANT, partition, position, position, 1, position - 1, _TIME_MS, 1,
                UUID(key) if as_uuid else key, self.chain, _TYPE, data, b"", *_UNNAMED,
            )  # fmt: skip

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it ends: all of it published, the next log not begun."""
        return Checkpoint(
            1, 0, self.count + 1, self.count, self.chain, _TIME_MS, acknowledged_position=self.count, incarnation=1
        )


def _stream_rows(partition: int, names: Iterator[str]) -> Iterator[Row]:
    for number, name in enumerate(names, 1):
        yield _TENANT, partition, number, 1, name


async def _fill_postgres(settings: Settings, count: int, logs: Sequence[Log]) -> None:
    connection = await asyncpg.connect(settings.store, command_timeout=_LONGEST_S)
    try:
        await connection.execute("SET synchronous_commit = off")
        for log in logs:
            rows = _stream_rows(log.partition, _names(count, log.partition))
            await connection.copy_records_to_table("streams", records=rows, columns=_STREAMS)
            filled = _Partition(log, _names(count, log.partition))
            await connection.copy_records_to_table("events", records=filled.events(as_uuid=True), columns=_EVENTS)
            fields = ", ".join(f"{column.name} = ${place}" for place, column in enumerate(CHECKPOINT, 3))
            await connection.execute(
                f"UPDATE checkpoints SET {fields} WHERE (tenant, partition) = ($1, $2)",
                _TENANT, log.partition, *astuple(filled.checkpoint),
            )  # fmt: skip
    finally:
        await connection.close()


def _fill_sqlite(settings: Settings, count: int, logs: Sequence[Log]) -> None:
    with closing(sqlite3.connect(settings.store.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        # Nothing to lose yet; the worker brings the journal back.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        for log in logs:
            rows = _stream_rows(log.partition, _names(count, log.partition))
            connection.executemany(_insert("streams", _STREAMS), rows)
            filled = _Partition(log, _names(count, log.partition))
            connection.executemany(_insert("events", _EVENTS), filled.events(as_uuid=False))
            fields = ", ".join(f"{column.name} = ?" for column in CHECKPOINT)
            place = (_TENANT, log.partition)
            connection.execute(
                f"UPDATE checkpoints SET {fields} WHERE tenant = ? AND partition = ?",
                (*astuple(filled.checkpoint), *place),
            )
        connection.execute("COMMIT")


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


async def fill(site: Site, count: int) -> None:
    """Fill a site's store with `count` events. Raises `RuntimeError`."""
    is_postgres = site.settings.store.startswith("postgresql:")
    parts = 2 if is_postgres else 1
    command = [sys.executable, "-m", "benchmarks.fill", str(count)]
    fillers = [
        await asyncio.create_subprocess_exec(*command, str(part), str(parts), env=site.environment())
        for part in range(parts)
    ]
    try:
        async with asyncio.timeout(_LONGEST_S):
            ended = await asyncio.gather(*(filler.wait() for filler in fillers))
    finally:
        for filler in fillers:
            if filler.returncode is None:
                filler.kill()
                await filler.wait()
    if any(ended):
        raise RuntimeError(f"the store could not be filled: {ended}")
    if is_postgres:
        await _settle(site.settings.store)


async def _settle(url: str) -> None:
    """Do now what the server would do by itself in the middle of a run."""
    connection = await asyncpg.connect(url, command_timeout=_LONGEST_S)
    try:
        for statement in ("VACUUM (ANALYZE) events", "VACUUM (ANALYZE) streams", "CHECKPOINT"):
            await connection.execute(statement)
    finally:
        await connection.close()


def main() -> None:
    settings = load_settings()
    count, part, parts = map(int, sys.argv[1:])
    logs = LOGS[part::parts]
    if settings.store.startswith("postgresql:"):
        uvloop.run(_fill_postgres(settings, count, logs))
    else:
        _fill_sqlite(settings, count, logs)


if __name__ == "__main__":
    main()
