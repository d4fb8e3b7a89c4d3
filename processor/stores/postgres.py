"""The store in PostgreSQL, for any number of workers.

The checkpoint's row is a log's lock and its fence: a commit takes it first, never waiting, and looks at epoch and
offset. A small commit is one statement, and so one round trip; a large one is a transaction that copies the events.
Of one that is `staged`, the events are copied while the commits before it are under way.
"""
# ruff: noqa: D102, S608 - the methods are described in `store.Store`; texts are put together of column names only

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

import asyncpg
from asyncpg.exceptions import ClientConfigurationError
from msgspec.structs import astuple
from sqlalchemy import URL, BigInteger, Column, Text, cast, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from processor.chain import genesis
from processor.errors import SchemaMismatch, SettingsError, StoreDamaged, StoreUnreachable, TidemarkError
from processor.failpoints import FailPoint, reach
from processor.messages import Checkpoint, Log, Plan, RecordedEvent, View, Wanted
from processor.store import Committed, StreamInfo, Usage
from processor.stores import grants, reads, schema
from processor.stores.aside import Aside
from processor.stores.connections import connections_of
from processor.stores.drivers import TAKE_TIMEOUT_S, Drivers
from processor.stores.rows import Row, Types, event_rows, refused_rows, stream_rows
from processor.stores.tables import CHECKPOINT, KNOWN, REMEMBERED, checkpoints, events, refused, streams
from processor.stores.views import Views

copied: Callable[[Sequence[tuple[int, Plan]]], bytes] | None
try:
    from processor.stores import _postgres
except ImportError:
    copied = None
else:
    copied = _postgres.copied
    """The rows of plans' events, each plan behind its tenant's number, as a binary COPY takes them."""

_Result = TypeVar("_Result")
_CopyAndWrite = Callable[[Sequence[Plan], asyncio.Event], Coroutine[Any, Any, bool]]

_CONNECT_TIMEOUT_S = 10
_STATEMENT_TIMEOUT_S = 30
_LOCK_TIMEOUT_S = 5
_STAGED_LOCK_TIMEOUT_S = 0.2
_ANSWER_TIMEOUT_S = 35  # for a server that is gone without a word; above its own time-out, which tells more
_WRITERS = 2
_COPIERS = 2
_READERS = 3

_FEW_EVENTS = 200
"""Up to this many events a commit is one statement; above it, COPY is quicker than a round trip more costs."""

TYPES = Types(str, bytes, None)

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
"""What stands before and behind the rows of a binary COPY."""

_EVENT_ID_KEY = "events_id_key"

_SETTINGS = {
    "application_name": "tidemark",
    "default_transaction_isolation": "read committed",
    "statement_timeout": f"{_STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{_LOCK_TIMEOUT_S}s",
    # A worker that was paused within a transaction lets go of its logs.
    "idle_in_transaction_session_timeout": "15s",
    "jit": "off",
}

# A plan made while the tables were small would scan, sort or hash them, and be kept as they grow: the writer goes by
# key and in the order of an index. The readers plan anew each time.
_WRITER_SETTINGS = dict.fromkeys(
    ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_sort", "enable_incremental_sort"), "off"
)
_READER_SETTINGS = {"plan_cache_mode": "force_custom_plan"}

# The internal one is what asyncpg says of a connection that the server ended while nothing was asked of it.
_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

# By the first two characters of SQLSTATE: connection, transaction, privileges, resources, operator; and the content.
_FAULTS: dict[str, type[TidemarkError]] = {
    **dict.fromkeys(("08", "25", "28", "3D", "40", "42", "53", "55", "57", "58"), StoreUnreachable),
    **dict.fromkeys(("23", "XX"), StoreDamaged),
}

_NO_RIGHT = ": `tidemark migrate grants` prints the SQL that gives a role what it needs"

# --- the writer's SQL; the readers' is in `reads`

_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


def _given(first: int, columns: Sequence[Column[Any]], place: str | None = None) -> str:
    """Rows that come as one array for each column, in the parameters from number `first` on; an item for FROM.

    `place` names a column more, which counts them from 1.
    """
    names = [column.name for column in columns]
    arrays = ", ".join(f"${number}::{_array_type(column)}" for number, column in enumerate(columns, first))
    if place is None:
        return f"unnest({arrays}) AS given ({', '.join(names)})"
    return f"unnest({arrays}) WITH ORDINALITY AS given ({', '.join((*names, place))})"


def _array_type(column: Column[Any]) -> str:
    name = column.type.compile(_DIALECT).partition(" ")[0]
    return f"text::{name}[]" if _is_literal(column) else f"{name}[]"


@cache
def _is_literal(column: Column[Any]) -> bool:
    """Whether an array of it comes as its text, as what needs no quotes can, and is never null.

    Of the elements of any other, asyncpg asks one by one whether they are arrays too: most of what one costs.
    """
    return column.type.compile(_DIALECT) in ("INTEGER", "BIGINT", "UUID")


def _arrays(rows: Sequence[Row], columns: Sequence[Column[Any]]) -> list[Any]:
    """Rows as the parameters that `_given` declares."""
    arrays = zip(*rows, strict=True) if rows else [()] * len(columns)
    return [
        f"{{{','.join(map(str, array))}}}" if _is_literal(column) else array
        for column, array in zip(columns, arrays, strict=True)
    ]


def _names(columns: Iterable[Column[Any]]) -> str:
    return ", ".join(column.name for column in columns)


_LOG = (checkpoints.c.tenant, checkpoints.c.partition)
_STREAM_KEY = (*_LOG, streams.c.name)
_EVENT_KEY = (*_LOG, events.c.stream, events.c.event_id)
_COMMAND_KEY = (*_LOG, refused.c.stream, refused.c.command_id)
_OFFSET_KEY = (*_LOG, refused.c.command_offset)
_STREAM = tuple(streams.columns)
_EVENT = tuple(events.columns)
_REFUSAL = tuple(refused.columns)
_PLAN = (*_LOG, Column("before", BigInteger), *CHECKPOINT)
_ACKNOWLEDGED = (*_LOG, *(checkpoints.c[name] for name in ("epoch", "acknowledged_offset", "acknowledged_position")))

_SIZE = text(
    "SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest(ARRAY["
    + ", ".join(f"'{table.name}'" for table in (checkpoints, events, refused, streams))
    + "]) AS given (name)"
)

_TENANTS = "SELECT name, number FROM tenants"

_ADD_TENANTS = """
INSERT INTO tenants (name) SELECT name FROM unnest($1::text[]) AS given (name) ORDER BY name
ON CONFLICT (name) DO NOTHING
"""

_CLAIM = f"""
INSERT INTO checkpoints ({_names((*_LOG, *CHECKPOINT))})
SELECT * FROM {_given(1, (*_LOG, *CHECKPOINT))} ORDER BY tenant, partition
ON CONFLICT (tenant, partition) DO UPDATE SET epoch = checkpoints.epoch + 1
RETURNING {_names((*_LOG, *CHECKPOINT))}
"""


def _at(table: str, key: Sequence[Column[Any]]) -> str:
    """Where a table has the key that is given, as a range of one, in the order of the index that has these columns.

    By equality, the planner is free to take an index that begins with the same columns, and to read a whole log or
    stream for each key, or to drive the join from the other side: right for the small table that it knew.
    """
    names, given = (", ".join(f"{place}.{column.name}" for column in key) for place in (table, "given"))
    return f"ROW({names}) >= ROW({given}) AND ROW({names}) <= ROW({given}) ORDER BY {names}"


_HEADS = f"""
SELECT streams.tenant, streams.partition, streams.name, streams.number, streams.version
FROM {_given(1, _STREAM_KEY)}
CROSS JOIN LATERAL (
    SELECT * FROM streams WHERE {_at("streams", _STREAM_KEY)} LIMIT 1
) AS streams
"""

_KNOWN = f"""
SELECT given.place, {", ".join(map(str, KNOWN))}
FROM {_given(1, _EVENT_KEY, "place")}
CROSS JOIN LATERAL (
    SELECT * FROM events WHERE {_at("events", _EVENT_KEY)} LIMIT 1
) AS events
"""

_REFUSED = f"""
SELECT refused.tenant, refused.partition, {", ".join(map(str, REMEMBERED))}
FROM {_given(1, _COMMAND_KEY)}
CROSS JOIN LATERAL (
    SELECT * FROM refused
    WHERE command_id IS NOT NULL AND {_at("refused", _COMMAND_KEY)}
) AS refused
ORDER BY refused.incarnation, refused.command_offset
"""

_REFUSED_AT = f"""
SELECT tenant, partition, {", ".join(map(str, REMEMBERED))}
FROM {_given(1, _OFFSET_KEY)}
JOIN checkpoints USING (tenant, partition)
JOIN refused USING (tenant, partition, incarnation, command_offset)
"""

_HOLD = f"""
SELECT checkpoints.tenant, checkpoints.partition, checkpoints.epoch, checkpoints.next_offset
FROM {_given(1, _LOG)} JOIN checkpoints USING (tenant, partition)
ORDER BY checkpoints.tenant, checkpoints.partition FOR UPDATE OF checkpoints SKIP LOCKED
"""

_PLACES = f"""
SELECT tenant, partition, epoch, next_offset FROM {_given(1, _LOG)} JOIN checkpoints USING (tenant, partition)
"""

# All or nothing: unless every checkpoint can be locked and is where its plan began, this writes nothing and says so.
# A new stream whose name is there already, under another number, leaves the checkpoints without an offset, which fails
# the transaction. The acknowledged fields are `acknowledge`'s, save where a plan begins a new incarnation.
_WRITE = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM {_given(1, _PLAN)}
), held AS (
    SELECT FROM asked JOIN checkpoints USING (tenant, partition)
    WHERE checkpoints.epoch = asked.epoch AND checkpoints.next_offset = asked.before
    ORDER BY checkpoints.tenant, checkpoints.partition FOR UPDATE OF checkpoints SKIP LOCKED
), standing AS MATERIALIZED (
    SELECT (SELECT count(*) FROM held) = (SELECT count(*) FROM asked) AS all_held
), added AS (
    INSERT INTO events ({_names(_EVENT)})
    SELECT * FROM {_given(15, _EVENT)} WHERE (SELECT all_held FROM standing)
), headed AS (
    INSERT INTO streams ({_names(_STREAM)})
    SELECT * FROM {_given(32, _STREAM)} WHERE (SELECT all_held FROM standing)
    ON CONFLICT (tenant, partition, name) DO UPDATE SET version = excluded.version
    WHERE streams.number = excluded.number
    RETURNING 1
), remembered AS (
    INSERT INTO refused ({_names(_REFUSAL)})
    SELECT * FROM {_given(37, _REFUSAL)} WHERE (SELECT all_held FROM standing)
), moved AS (
    UPDATE checkpoints SET
        next_offset = CASE WHEN (SELECT count(*) FROM headed) = cardinality($36) THEN asked.next_offset END,
        next_position = asked.next_position,
        streams = asked.streams,
        chain = asked.chain,
        log_time_ms = asked.log_time_ms,
        last_offset = asked.last_offset,
        last_digest = asked.last_digest,
        acknowledged_offset = CASE WHEN checkpoints.incarnation = asked.incarnation
            THEN checkpoints.acknowledged_offset ELSE asked.acknowledged_offset END,
        acknowledged_position = CASE WHEN checkpoints.incarnation = asked.incarnation
            THEN checkpoints.acknowledged_position ELSE asked.acknowledged_position END,
        incarnation = asked.incarnation
    FROM asked
    WHERE (checkpoints.tenant, checkpoints.partition) = (asked.tenant, asked.partition)
        AND (SELECT all_held FROM standing)
)
SELECT all_held FROM standing
"""

# What is acknowledged may be lost and done again, so this does not wait for the disk.
_ACKNOWLEDGE = f"""
WITH held AS (
    SELECT tenant, partition, given.acknowledged_offset, given.acknowledged_position
    FROM {_given(1, _ACKNOWLEDGED)}
    JOIN checkpoints USING (tenant, partition, epoch)
    WHERE checkpoints.acknowledged_offset < given.acknowledged_offset
        OR checkpoints.acknowledged_position < given.acknowledged_position
    ORDER BY tenant, partition FOR UPDATE OF checkpoints SKIP LOCKED
)
UPDATE checkpoints SET
    acknowledged_offset = greatest(checkpoints.acknowledged_offset, held.acknowledged_offset),
    acknowledged_position = greatest(checkpoints.acknowledged_position, held.acknowledged_position)
FROM held
WHERE (checkpoints.tenant, checkpoints.partition) = (held.tenant, held.partition)
    AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
"""

# A log's time never falls with its offsets, so the oldest by offset are the oldest by time.
_FORGET = """
WITH oldest AS (
    SELECT refused.* FROM refused JOIN checkpoints USING (tenant, partition)
    WHERE tenant = (SELECT number FROM tenants WHERE name = $1) AND partition = $2
        AND (refused.incarnation, command_offset) < (checkpoints.incarnation, acknowledged_offset)
    ORDER BY refused.incarnation, command_offset LIMIT $3
), gone AS (
    DELETE FROM refused USING oldest
    WHERE (refused.tenant, refused.partition) = (oldest.tenant, oldest.partition)
        AND (refused.incarnation, refused.command_offset) = (oldest.incarnation, oldest.command_offset)
        AND oldest.log_time_ms < $4
    RETURNING 1
)
SELECT count(*) FROM gone
"""

# A text from the server costs less than asyncpg's UUID and the text of it.
_EVENT_ID = cast(events.c.event_id, Text)
_LOG_PAGE = reads.log_page(_EVENT_ID, _DIALECT)
_STREAM_PAGE = reads.stream_page(_EVENT_ID, _DIALECT)


class PostgresStore:
    """See `store.Store`."""

    durable = True

    def __init__(self, url: URL, partitions: int, *, durability: str, read_only: bool) -> None:
        self._partitions = partitions
        self._place = place_of(url)
        self._read_only = read_only
        settings = {
            "synchronous_commit": "on" if durability == "full" else "off",
            "default_transaction_read_only": "on" if read_only else "off",
        }
        self._writers = Drivers(_connecting(url, {**settings, **_WRITER_SETTINGS}), _WRITERS)
        # A large commit takes some round trips, each of which would wait for what is decided meanwhile.
        self._aside = Aside()
        staged = {"lock_timeout": f"{_STAGED_LOCK_TIMEOUT_S * 1_000:.0f}ms"}
        self._copiers = Drivers(_connecting(url, {**settings, **_WRITER_SETTINGS, **staged}), _COPIERS)
        self._staged: list[_Staged] = []
        self._readers = make_engine(url, _READERS, {**settings, **_READER_SETTINGS})
        # One at a time: an acknowledgement must not keep a commit of the same worker from its checkpoint.
        self._writing = asyncio.Lock()
        self._tenants: dict[str, int] = {}

    async def open(self) -> None:
        await self._read(lambda connection: schema.check(connection, self._partitions))
        if not self._read_only:
            await self._read(grants.check_role)

    async def close(self) -> None:
        await _dispose(self._readers)
        await self._writers.close()
        await self._aside.stop(self._copiers.close)

    async def examine(self) -> Usage:
        found = await self._read(self._examine)
        used, most = connections_of(self._readers)
        drivers = (self._writers, self._copiers)
        return Usage(found, used + sum(each.used for each in drivers), most + sum(each.most for each in drivers))

    async def _examine(self, connection: AsyncConnection) -> int:
        await schema.check(connection, self._partitions)
        found: int = (await connection.execute(_SIZE)).scalar_one()
        return found

    # --- the writer's side

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        async with self._writing, self._driver() as driver, driver.transaction():
            # An epoch must not be given out twice, whatever the durability of the rest.
            await driver.execute("SET LOCAL synchronous_commit = on")
            # The server may be a copy by now, one that was left without the last commits.
            known = self._tenants = dict(await driver.fetch(_TENANTS))
            if new := {log.tenant for log in logs} - known.keys():
                await driver.execute(_ADD_TENANTS, list(new))
            tenants = await self._tenants_of(driver, logs)
            first = [
                (tenants[log.tenant], log.partition, *astuple(Checkpoint(1, 0, 1, 0, genesis(log))))
                for log in dict.fromkeys(logs)
            ]
            rows = await driver.fetch(_CLAIM, *_arrays(first, (*_LOG, *CHECKPOINT)))
        found = {(tenant, partition): Checkpoint(*fields) for tenant, partition, *fields in rows}
        return {log: found[tenants[log.tenant], log.partition] for log in logs}

    async def refused_ids(self, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
        return await self._read(lambda connection: reads.read_refused_ids(connection, logs, limit))

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        async with self._driver() as driver:
            tenants = await self._tenants_of(driver, wanted)
            views = Views(wanted, tenants)
            views.add_heads(await _look_up(driver, _HEADS, _STREAM_KEY, views.streams()))
            views.add_known(await _look_up(driver, _KNOWN, _EVENT_KEY, views.event_ids(str)))
            views.add_refused(await _look_up(driver, _REFUSED, _COMMAND_KEY, views.commands()))
            views.add_refused_at(await _look_up(driver, _REFUSED_AT, _OFFSET_KEY, views.offsets()))
        return views.by_log

    @contextmanager
    def staged(self, plans: Sequence[Plan]) -> Iterator[None]:
        # One that is not staged could wait for an event id that a later one has copied, and that one for its turn.
        is_staged = not _is_small(plans) and all(before.is_under_way for before in self._staged)
        staged = _Staged(plans, self._aside, self._copy_and_write if is_staged else None)
        self._staged.append(staged)
        try:
            yield
        finally:
            self._staged.remove(staged)
            staged.cancel()

    async def _copy_and_write(self, plans: Sequence[Plan], go: asyncio.Event) -> bool:
        """Copy the events, and commit when it may `go` on; False where not all of it stands: nothing is left of it.

        Why it does not is for a commit to say that has the checkpoints first: who has lost a log finds the next owner's
        events there, too.
        """
        async with self._driver(self._copiers) as driver:
            numbered = await self._numbered(driver, plans)
            # Of an event id that is in two of them, one could wait for the other one's, and that one for its turn.
            with suppress(_NotStandingError, asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError):
                async with driver.transaction():
                    await _copy(driver, numbered)
                    await go.wait()
                    await reach(FailPoint.WITHIN_COMMIT)
                    if len(numbered) < len(plans) or not await _write(driver, numbered, []):
                        raise _NotStandingError
                return True
        return False

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        async with self._writing:
            mine = next((staged for staged in self._staged if staged.is_of(plans)), None)
            if mine is not None and await mine.finish():
                return dict.fromkeys((plan.log for plan in plans), Committed.YES)
            for staged in self._staged:
                staged.cancel()
            if _is_small(plans):
                return await self._commit_over(self._writers, plans)
            return await asyncio.wrap_future(self._aside.start(self._commit_over(self._copiers, plans)))

    async def _commit_over(self, drivers: Drivers, plans: Sequence[Plan]) -> dict[Log, Committed]:
        async with self._driver(drivers) as driver:
            numbered = await self._numbered(driver, plans)
            at_once = _is_small(plans) and len(numbered) == len(plans)
            try:
                if at_once and await _write(driver, numbered, _event_rows(numbered)):
                    return dict.fromkeys((plan.log for plan in plans), Committed.YES)
                async with driver.transaction():
                    ended = await _commit(driver, numbered)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name != _EVENT_ID_KEY:
                    raise
                return dict.fromkeys((plan.log for plan in plans), Committed.TAKEN)
        return {plan.log: ended.get(plan.log, Committed.FENCED) for plan in plans}

    async def _numbered(self, driver: asyncpg.Connection, plans: Sequence[Plan]) -> list[tuple[int, Plan]]:
        """The plans behind their tenants' numbers; those of unknown tenants are missing."""
        tenants = await self._tenants_of(driver, [plan.log for plan in plans])
        return [(tenants[plan.log.tenant], plan) for plan in plans if plan.log.tenant in tenants]

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        async with self._writing, self._driver() as driver:
            tenants = await self._tenants_of(driver, acknowledged)
            rows = [
                (tenants[log.tenant], log.partition, to.epoch, to.acknowledged_offset, to.acknowledged_position)
                for log, to in acknowledged.items()
                if log.tenant in tenants
            ]
            if rows:
                await driver.execute(_ACKNOWLEDGE, *_arrays(rows, _ACKNOWLEDGED))

    async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
        async with self._writing, self._driver() as driver:
            gone: int = await driver.fetchval(_FORGET, *log, limit, before_log_time_ms)
            return gone

    async def _tenants_of(self, driver: asyncpg.Connection, logs: Iterable[Log]) -> dict[str, int]:
        """The tenants' numbers, which never change; those of unknown tenants are missing."""
        if not self._tenants.keys() >= {log.tenant for log in logs}:
            self._tenants = dict(await driver.fetch(_TENANTS))
        return self._tenants

    # --- the readers' side

    async def checkpoints(self) -> dict[Log, Checkpoint]:
        return await self._read(reads.read_checkpoints)

    async def read_log(self, log: Log, after_position: int, limit: int) -> list[RecordedEvent]:
        return await self._page(_LOG_PAGE, log, after=after_position, limit=limit)

    async def read_stream(self, log: Log, stream: str, after_version: int, limit: int) -> list[RecordedEvent]:
        return await self._page(_STREAM_PAGE, log, name=stream, after=after_version, limit=limit)

    async def _page(self, page: reads.Page, log: Log, **values: int | str) -> list[RecordedEvent]:
        arguments = page.arguments(log, **values)

        async def fetch(connection: AsyncConnection) -> list[RecordedEvent]:
            driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
            return [RecordedEvent(*row) for row in await driver.fetch(page.text, *arguments)]

        return await self._read(fetch)

    async def streams(self, log: Log, after_number: int, limit: int) -> list[tuple[int, StreamInfo]]:
        return await self._read(lambda connection: reads.read_streams(connection, log, after_number, limit))

    # --- connections

    @asynccontextmanager
    async def _driver(self, drivers: Drivers | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection of asyncpg itself, without a transaction: statements for which each round trip counts."""
        with faults(self._place):
            async with (drivers or self._writers).one() as driver:
                yield driver

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[_Result]]) -> _Result:
        with faults(self._place):
            async with self._readers.connect() as connection:
                try:
                    return await work(connection)
                except BaseException:
                    await connection.invalidate()
                    raise


# --- a commit


class _NotStandingError(Exception):
    """A checkpoint is not where its plan begins, or held by another transaction."""


class _Staged:
    """A commit in line. One that has work is under way: its events are copied, and the rest waits for `finish`."""

    def __init__(self, plans: Sequence[Plan], aside: Aside, work: _CopyAndWrite | None) -> None:
        self.is_under_way = work is not None
        self._plans = plans
        self._aside = aside
        self._go = asyncio.Event()
        self._work = None if work is None else aside.start(work(plans, self._go))

    def is_of(self, plans: Sequence[Plan]) -> bool:
        """Whether it is of these very plans."""
        return len(plans) == len(self._plans) and all(map(operator.is_, plans, self._plans))

    async def finish(self) -> bool:
        """Commit; False where nothing was written, as where this was tried before."""
        work, self._work = self._work, None
        written = False
        try:
            if work is not None and not work.cancelled():
                self._aside.call(self._go.set)
                written = await asyncio.wrap_future(work)
        finally:
            self.is_under_way = written
        return written

    def cancel(self) -> None:
        """Write nothing, a moment later, unless it is being finished."""
        self.is_under_way = False
        if self._work is not None:
            self._work.cancel()


async def _commit(driver: asyncpg.Connection, plans: Sequence[tuple[int, Plan]]) -> dict[Log, Committed]:
    """Write what can be written, within the caller's transaction."""
    logs = _arrays([(tenant, plan.log.partition) for tenant, plan in plans], _LOG)
    held = _places(await driver.fetch(_HOLD, *logs))
    seen = held if len(held) == len(plans) else _places(await driver.fetch(_PLACES, *logs))
    ended: dict[Log, Committed] = {}
    good: list[tuple[int, Plan]] = []
    for tenant, plan in plans:
        key, before = (tenant, plan.log.partition), (plan.before.epoch, plan.before.next_offset)
        if held.get(key) == before:
            good.append((tenant, plan))
            ended[plan.log] = Committed.YES
        else:
            ended[plan.log] = Committed.BUSY if key not in held and seen.get(key) == before else Committed.FENCED
    is_small = _is_small(plan for _, plan in good)
    if not is_small:
        await _copy(driver, good)
    await reach(FailPoint.WITHIN_COMMIT)
    if good and not await _write(driver, good, _event_rows(good) if is_small else []):
        raise StoreDamaged("a checkpoint changed while its row was locked")
    return ended


def _is_small(plans: Iterable[Plan]) -> bool:
    return sum(len(plan.events) for plan in plans) <= _FEW_EVENTS


async def _look_up(
    driver: asyncpg.Connection, query: str, key: Sequence[Column[Any]], keys: Sequence[Row]
) -> list[Any]:
    """What `query` finds for the keys that it is given."""
    return await driver.fetch(query, *_arrays(keys, key)) if keys else []


async def _copy(driver: asyncpg.Connection, plans: Sequence[tuple[int, Plan]]) -> None:
    """Add the plans' events, as many as they are."""
    columns = [column.name for column in _EVENT]
    if copied is None:
        await driver.copy_records_to_table("events", records=_event_rows(plans), columns=columns)
    else:
        parts = (COPY_HEADER, copied(plans), COPY_TRAILER)
        await driver.copy_to_table("events", source=each(parts), columns=columns, format="binary")


async def each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A source for asyncpg that needs no thread, as one does that is a file to it."""
    for part in parts:
        yield part


async def _write(driver: asyncpg.Connection, plans: Sequence[tuple[int, Plan]], rows: list[Row]) -> bool:
    """Write all plans, with these event rows, or nothing; False where not all checkpoints could be had."""
    places = [(tenant, plan.log.partition, plan.before.next_offset, *astuple(plan.after)) for tenant, plan in plans]
    heads = [row for tenant, plan in plans for row in stream_rows(tenant, plan)]
    remembered = [row for tenant, plan in plans for row in refused_rows(tenant, plan)]
    written: bool = await driver.fetchval(
        _WRITE,
        *_arrays(places, _PLAN),
        *_arrays(rows, _EVENT),
        *_arrays(heads, _STREAM),
        *_arrays(remembered, _REFUSAL),
    )
    return written


def _event_rows(plans: Sequence[tuple[int, Plan]]) -> list[Row]:
    return [row for tenant, plan in plans for row in event_rows(tenant, plan, TYPES)]


def _places(rows: Iterable[Any]) -> dict[tuple[int, int], tuple[int, int]]:
    return {(tenant, partition): (epoch, next_offset) for tenant, partition, epoch, next_offset in rows}


# --- connections


def place_of(url: URL) -> str:
    """Host, port and database, for messages: no user, no password."""
    return f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"


def make_engine(
    url: URL, connections: int, settings: Mapping[str, str], answer_timeout_s: float | None = _ANSWER_TIMEOUT_S
) -> AsyncEngine:
    """An engine whose connections commit each statement by itself, with time-outs for everything that may hang."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=_connecting(url, settings, answer_timeout_s),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=TAKE_TIMEOUT_S,
        isolation_level="AUTOCOMMIT",
    )


def _connecting(
    url: URL, settings: Mapping[str, str], answer_timeout_s: float | None = _ANSWER_TIMEOUT_S
) -> Callable[[], Coroutine[Any, Any, asyncpg.Connection]]:
    """What makes a connection."""
    # The driver reads the URL itself, so that it takes what other PostgreSQL clients take, sslmode for one.
    address = url.render_as_string(hide_password=False)

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(
            address,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=answer_timeout_s,
            server_settings={**_SETTINGS, **settings},
        )

    return connect


async def _dispose(engine: AsyncEngine) -> None:
    with suppress(SQLAlchemyError, *_DRIVER_ERRORS):
        await engine.dispose()


@contextmanager
def faults(place: str) -> Iterator[None]:
    """PostgreSQL's errors as the project's. What is left is a bug, and stays what it is."""
    try:
        yield
    except PoolTimeoutError:
        raise StoreUnreachable(f"{place}: all connections are taken, for {TAKE_TIMEOUT_S} s") from None
    except (DBAPIError, *_DRIVER_ERRORS) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        # SQLAlchemy hands on its own copy of the driver's error.
        cause = cause.__cause__ if isinstance(error, DBAPIError) and cause.__cause__ else cause
        fault = _fault(cause)
        if fault is None:
            raise
        lines = str(cause).splitlines() or [type(cause).__name__]
        hint = _NO_RIGHT if getattr(cause, "sqlstate", None) == "42501" else ""
        raise fault(f"{place}: {lines[0]}{hint}") from None


def _fault(cause: BaseException) -> type[TidemarkError] | None:
    if isinstance(cause, ClientConfigurationError):
        return SettingsError
    if isinstance(cause, ValueError):
        return None
    state: str = getattr(cause, "sqlstate", None) or "08000"
    if state in ("42P01", "42703", "3F000"):
        return SchemaMismatch
    return _FAULTS.get(state[:2])
