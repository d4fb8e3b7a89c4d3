"""What commands come to, made ready beforehand: for the checks, and as the rows and records that yardsticks only move.

It comes out of the product's own decision, so it is what the worker writes for the same commands.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID
from msgspec.structs import replace

from benchmarks.load import PARTITIONS, CommandRecord, by_partition
from processor.chain import genesis
from processor.codec import decode, encode_outcome, event_headers
from processor.decide import decide
from processor.messages import Checkpoint, Head, Limits, Log, Plan, Rules, View
from processor.names import DEFAULT_TENANT
from processor.stores import postgres, sqlite
from processor.stores.rows import event_rows

Outgoing = tuple[bytes | None, bytes, list[tuple[str, bytes]], int | None]
"""Key, value, headers, timestamp."""


StoredRow = tuple[Any, ...] | bytes
"""As the driver takes it fastest: a binary COPY's bytes of PostgreSQL's, where the native part was built."""


class Ready(NamedTuple):
    """Of one partition, one of each for every command: a row of `events`, a record for the feed, a reply."""

    rows: list[StoredRow]
    feed: list[Outgoing]
    replies: list[Outgoing]


class Start(NamedTuple):
    """What a log holds before the first command: its checkpoint, and the heads of the streams that are asked for."""

    checkpoint: Checkpoint
    heads: Mapping[str, Head]


def empty(log: Log) -> Start:
    """Nothing yet; owned for the first time."""
    return Start(Checkpoint(1, 0, 1, 0, genesis(log)), {})


def plan_of(log: Log, records: Sequence[CommandRecord], start: Start | None = None) -> Plan:
    """What the commands of one log come to."""
    checkpoint, heads = start or empty(log)
    view = View.empty()
    view.heads.update(heads)
    entries = [(record, decode(record.key, record.value, Limits())) for record in records]
    return decide(Rules(PARTITIONS), log, checkpoint, view, entries, checkpoint.next_offset + len(records))


def plans(records: Sequence[CommandRecord]) -> dict[Log, Plan]:
    """What the commands come to, each log from its beginning."""
    return {
        (log := Log(DEFAULT_TENANT, partition)): plan_of(log, of_partition)
        for partition, of_partition in by_partition(records).items()
    }


def ready(records: Sequence[CommandRecord], tenant: int, store: str) -> dict[int, Ready]:
    """By partition. `tenant` is its number in the store, whose URL tells what its driver takes fastest."""
    rows = _postgres_rows if store.startswith("postgresql:") else _sqlite_rows
    return {log.partition: _ready(log, plan, rows(tenant, plan)) for log, plan in plans(records).items()}


def _sqlite_rows(tenant: int, plan: Plan) -> list[StoredRow]:
    return [*event_rows(tenant, plan, sqlite.TYPES)]


def _postgres_rows(tenant: int, plan: Plan) -> list[StoredRow]:
    if postgres.copied is None:
        # asyncpg takes an id as text too, and reads it each time.
        return [*event_rows(tenant, plan, postgres.TYPES._replace(event_id=UUID))]
    return [postgres.copied([(tenant, replace(plan, events=[event]))]) for event in plan.events]


def _ready(log: Log, plan: Plan, rows: list[StoredRow]) -> Ready:
    return Ready(
        rows,
        [(event.stream.encode(), event.data, event_headers(log, event), event.time_ms) for event in plan.events],
        [(record.key, encode_outcome(outcome), [], None) for record, outcome in plan.answers],
    )
