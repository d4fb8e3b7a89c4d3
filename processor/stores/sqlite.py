"""The store in one SQLite file, for one worker.

One connection writes, and it alone checkpoints: SQLite before 3.51.3 can corrupt a database in WAL mode when two
connections write or checkpoint at the same time. A lock file keeps a second process out; readers, in this process or
another, open the file read-only.
"""
# ruff: noqa: D102, S608 - the methods are described in `store.Store`; texts are put together of column names only

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

from msgspec.structs import astuple
from sqlalchemy import URL, Table, event
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolResetState

from processor.chain import genesis
from processor.errors import SchemaMismatch, StoreDamaged, StoreInUse, StoreUnreachable, TidemarkError
from processor.failpoints import FailPoint, reach_from_thread
from processor.messages import Checkpoint, Log, Plan, RecordedEvent, View, Wanted
from processor.store import Committed, StreamInfo, Usage
from processor.stores import reads, schema
from processor.stores.connections import connections_of
from processor.stores.rows import Row, Types, event_rows, refused_rows, stream_rows
from processor.stores.tables import (
    CHECKPOINT,
    KNOWN,
    REMEMBERED,
    checkpoints,
    events,
    id_bytes,
    id_text,
    refused,
    streams,
)
from processor.stores.views import Views

_Result = TypeVar("_Result")

_BUSY_TIMEOUT_S = 10.0
_READERS = 3
_CHUNK = 1024  # rows of a VALUES list; 17 parameters each stay under SQLite's limit of 32,766

# sqlite3 looks for an adapter of every value that is no int, float, str or bytearray: for bytes and None as well, for
# longer than it takes to bind them, and with the interpreter's lock held. SQLite makes null of what is not a number.
TYPES = Types(lambda event_id: bytearray(id_bytes(event_id)), bytearray, float("nan"))

_WRITER_PRAGMAS = (
    "PRAGMA page_size = 16384",
    "PRAGMA journal_mode = WAL",
    "PRAGMA cache_size = -32768",
    "PRAGMA wal_autocheckpoint = 10000",
)
_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA wal_autocheckpoint = 0", "PRAGMA cache_size = -4096")

# Waiting, space, rights or the disk: nothing that the store's content is to blame for.
_UNREACHABLE = frozenset(
    (
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    )
)

# --- the writer's SQL; the readers' is in `reads`


# What takes a list of rows has `%s` for them, which is filled up with nulls to a power of two: few texts, so each is
# compiled once. For every row of `executemany`, sqlite3 takes the interpreter's lock again, and waits for it while the
# worker computes.


def _add(table: Table) -> str:
    return f"INSERT INTO {table.name} ({_names(table)}) SELECT * FROM (VALUES %s) WHERE column1 IS NOT NULL"


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


ADD_EVENTS = _add(events)
_ADD_REFUSED = _add(refused)
_ADD_STREAMS = f"""
{_add(streams)}
ON CONFLICT (tenant, partition, name) DO UPDATE SET version = excluded.version WHERE number = excluded.number
"""

_ADD_TENANT = "INSERT INTO tenants (name) VALUES (?)"

_CLAIM = f"""
INSERT INTO checkpoints ({_names(checkpoints)}) VALUES ({", ".join("?" * len(checkpoints.columns))})
ON CONFLICT (tenant, partition) DO UPDATE SET epoch = epoch + 1
"""

_HEADS = """
WITH wanted (tenant, partition, name) AS (VALUES %s)
SELECT tenant, partition, name, number, version FROM wanted CROSS JOIN streams USING (tenant, partition, name)
"""

_KNOWN = f"""
WITH wanted (place, tenant, partition, stream, event_id) AS (VALUES %s)
SELECT wanted.place, {", ".join(map(str, KNOWN))}
FROM wanted CROSS JOIN events USING (tenant, partition, stream, event_id)
"""

_REFUSED = f"""
WITH wanted (tenant, partition, stream, command_id) AS (VALUES %s)
SELECT refused.tenant, refused.partition, {", ".join(map(str, REMEMBERED))}
FROM wanted
CROSS JOIN refused ON (refused.tenant, refused.partition, refused.stream, refused.command_id)
    = (wanted.tenant, wanted.partition, wanted.stream, wanted.command_id)
WHERE refused.command_id IS NOT NULL
ORDER BY refused.incarnation, refused.command_offset
"""

_REFUSED_AT = f"""
WITH wanted (tenant, partition, command_offset) AS (VALUES %s)
SELECT refused.tenant, refused.partition, {", ".join(map(str, REMEMBERED))}
FROM wanted
CROSS JOIN checkpoints USING (tenant, partition)
CROSS JOIN refused USING (tenant, partition, incarnation, command_offset)
"""

_PLACES = """
WITH wanted (tenant, partition) AS (VALUES %s)
SELECT tenant, partition, epoch, next_offset FROM wanted CROSS JOIN checkpoints USING (tenant, partition)
"""

# Not as WITH, behind which sqlite3 does not count the rows.
_PLAN = ", ".join(
    f"column{number} AS {name}"
    for number, name in enumerate(("tenant", "partition", "before", *(column.name for column in CHECKPOINT)), 1)
)

# The acknowledged fields are `acknowledge`'s, save where a plan begins a new incarnation.
_MOVE = f"""
UPDATE checkpoints SET
    next_offset = plan.next_offset,
    next_position = plan.next_position,
    streams = plan.streams,
    chain = plan.chain,
    log_time_ms = plan.log_time_ms,
    last_offset = plan.last_offset,
    last_digest = plan.last_digest,
    acknowledged_offset =
        iif(checkpoints.incarnation = plan.incarnation, checkpoints.acknowledged_offset, plan.acknowledged_offset),
    acknowledged_position =
        iif(checkpoints.incarnation = plan.incarnation, checkpoints.acknowledged_position, plan.acknowledged_position),
    incarnation = plan.incarnation
FROM (SELECT {_PLAN} FROM (VALUES %s)) AS plan
WHERE (checkpoints.tenant, checkpoints.partition, checkpoints.epoch, checkpoints.next_offset)
    = (plan.tenant, plan.partition, plan.epoch, plan.before)
"""

_ACKNOWLEDGE = """
UPDATE checkpoints SET
    acknowledged_offset = max(acknowledged_offset, ?), acknowledged_position = max(acknowledged_position, ?)
WHERE tenant = ? AND partition = ? AND epoch = ? AND (acknowledged_offset < ? OR acknowledged_position < ?)
"""

# A log's time never falls with its offsets, so the oldest by offset are the oldest by time.
_FORGET = """
DELETE FROM refused WHERE (tenant, partition, incarnation, command_offset) IN (
    SELECT tenant, partition, incarnation, command_offset FROM (
        SELECT refused.* FROM refused JOIN checkpoints USING (tenant, partition)
        WHERE tenant = (SELECT number FROM tenants WHERE name = ?) AND partition = ?
            AND (refused.incarnation, command_offset) < (checkpoints.incarnation, acknowledged_offset)
        ORDER BY refused.incarnation, command_offset LIMIT ?
    ) WHERE log_time_ms < ?
)
"""

_DIALECT = SQLiteDialect_aiosqlite()
_LOG_PAGE = reads.log_page(events.c.event_id, _DIALECT)
_STREAM_PAGE = reads.stream_page(events.c.event_id, _DIALECT)


class _EventIdTaken(Exception):  # noqa: N818 - how a commit ends, not a fault
    """The index on event ids has one of those that were to be added."""


class SqliteStore:
    """See `store.Store`.

    Writes go one after another over one connection. Loads take the same one while it is free: its cache has the pages
    that the commit will change.
    """

    durable = True

    def __init__(self, path: str, partitions: int, *, durability: str, read_only: bool) -> None:
        self._path = path
        self._partitions = partitions
        self._durability = durability
        self._read_only = read_only
        self._lock_file: int | None = None
        self._writing = asyncio.Lock()
        self._paging = asyncio.Lock()
        self._writer: _Writer | None = None
        self._readers: AsyncEngine | None = None
        self._tenants: dict[str, int] = {}

    async def open(self) -> None:
        try:
            await (self._open_to_read() if self._read_only else self._open_to_write())
        except BaseException:
            await self.close()
            raise

    async def _open_to_write(self) -> None:
        self._lock_file = lock(self._path)
        with faults(self._path):
            self._writer = await _Writer.of(writer_engine(self._path, self._durability))
        await self._write(lambda connection: schema.migrate(connection, self._partitions))
        self._readers = reader_engine(self._path)

    async def _open_to_read(self) -> None:
        if not Path(self._path).exists():  # noqa: ASYNC240 - one look at a local file
            raise SchemaMismatch(f'there is no store at {self._path}: start a worker, or run "tidemark migrate up"')
        self._readers = reader_engine(self._path)
        await self._read(lambda connection: schema.check(connection, self._partitions))

    async def close(self) -> None:
        async with self._writing:
            # The writer goes last: the connection that is closed last checkpoints.
            for opened in (self._readers, self._writer):
                if opened is not None:
                    with suppress(SQLAlchemyError):
                        await opened.dispose()
            self._readers = self._writer = None
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    async def examine(self) -> Usage:
        await self._read(lambda connection: schema.check(connection, self._partitions))
        used, most = connections_of(self._readers)
        return Usage(self._bytes(), used + self._writing.locked(), most + (self._writer is not None))

    def _bytes(self) -> int:
        return sum(part.stat().st_size for name in ("", "-wal") if (part := Path(f"{self._path}{name}")).exists())

    # --- the writer's side

    async def claim(self, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        return await self._write(lambda connection: self._claim(connection, logs))

    async def _claim(self, connection: AsyncConnection, logs: Sequence[Log]) -> dict[Log, Checkpoint]:
        known = await reads.tenant_numbers(connection)
        new = dict.fromkeys(log.tenant for log in logs if log.tenant not in known)
        await in_thread(connection, lambda driver: _execute_many(driver, _ADD_TENANT, [(tenant,) for tenant in new]))
        tenants = await self._tenants_of(connection, logs)
        first = [
            (tenants[log.tenant], log.partition, *astuple(Checkpoint(1, 0, 1, 0, genesis(log))))
            for log in dict.fromkeys(logs)
        ]
        await in_thread(connection, lambda driver: _execute_many(driver, _CLAIM, first))
        found = await reads.read_checkpoints(connection)
        return {log: found[log] for log in logs}

    async def refused_ids(self, logs: Sequence[Log], limit: int) -> dict[Log, set[str] | None]:
        return await self._read(lambda connection: reads.read_refused_ids(connection, logs, limit))

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        tenants = await self._known_tenants(wanted)
        views = Views(wanted, tenants)
        # Beside a commit by a connection of its own, as the next cycle is decided meanwhile.
        if self._read_only or self._writing.locked():
            await self._read(lambda connection: in_thread(connection, lambda driver: _fill(driver, views)))
        else:
            await self._alone(lambda driver: _fill(driver, views))
        return views.by_log

    def staged(self, plans: Sequence[Plan]) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing goes on beside a commit
        return nullcontext()

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        logs = [plan.log for plan in plans]
        tenants = await self._known_tenants(logs)
        known = [(tenants[plan.log.tenant], plan) for plan in plans if plan.log.tenant in tenants]
        # The rows are made here, where they are waited for by nobody: the thread has enough to do.
        decided = _Decided(self._path, known, event_lists(known, _CHUNK), asyncio.get_running_loop())
        try:
            written = await self._alone(decided.commit)
        except _EventIdTaken:
            return dict.fromkeys(logs, Committed.TAKEN)
        return {log: Committed.YES if log in written else Committed.FENCED for log in logs}

    async def acknowledge(self, acknowledged: Mapping[Log, Checkpoint]) -> None:
        tenants = await self._known_tenants(acknowledged)
        rows = []
        for log, given in acknowledged.items():
            if log.tenant in tenants:
                to = given.acknowledged_offset, given.acknowledged_position
                rows.append((*to, tenants[log.tenant], log.partition, given.epoch, *to))
        await self._alone(lambda driver: _at_once(driver, _ACKNOWLEDGE, rows))

    async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
        rows = [(*log, limit, before_log_time_ms)]
        return await self._alone(lambda driver: _at_once(driver, _FORGET, rows))

    async def _known_tenants(self, logs: Iterable[Log]) -> dict[str, int]:
        known = self._tenants
        if known.keys() >= {log.tenant for log in logs}:
            return known
        return await self._read(lambda connection: self._tenants_of(connection, logs))

    async def _tenants_of(self, connection: AsyncConnection, logs: Iterable[Log]) -> dict[str, int]:
        """The tenants' numbers, which never change; those of unknown tenants are missing."""
        if not self._tenants.keys() >= {log.tenant for log in logs}:
            self._tenants = await reads.tenant_numbers(connection)
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

        def fetch(driver: sqlite3.Connection) -> list[RecordedEvent]:
            return [
                RecordedEvent(name, version, position, id_text(event_id), *rest)
                for name, version, position, event_id, *rest in driver.execute(page.text, arguments).fetchall()
            ]

        # One at a time: for every row, sqlite3 lets the interpreter's lock go, and threads that read take it in turns.
        async with self._paging:
            return await self._read(lambda connection: in_thread(connection, fetch))

    async def streams(self, log: Log, after_number: int, limit: int) -> list[tuple[int, StreamInfo]]:
        return await self._read(lambda connection: reads.read_streams(connection, log, after_number, limit))

    # --- transactions

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[_Result]]) -> _Result:
        """Run one transaction of the writer, to its end even where the caller is cancelled.

        A connection given up in the middle of a write would have a second one writing beside it.
        """
        return await _shielded(self._to_end(lambda writer: writer.transaction(work)))

    async def _alone(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Use the writer's connection in its thread, to the end likewise."""
        return await _shielded(self._to_end(lambda writer: writer.run(work)))

    async def _to_end(self, work: Callable[["_Writer"], Awaitable[_Result]]) -> _Result:
        async with self._writing:
            if self._writer is None:
                raise TidemarkError("the store is closed, or was opened for reading only")
            with faults(self._path):
                return await work(self._writer)

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[_Result]]) -> _Result:
        if self._readers is None:
            raise TidemarkError("the store is not open")
        with faults(self._path):
            async with self._readers.connect() as connection:
                return await work(connection)


class _Writer:
    """The one connection that writes. It is kept: to take it from a pool and give it back is dear beside a commit."""

    def __init__(self, engine: AsyncEngine, connection: AsyncConnection, driver: Any) -> None:
        self._engine = engine
        self._connection = connection
        self._driver = driver

    @classmethod
    async def of(cls, engine: AsyncEngine) -> Self:
        """The engine's only one."""
        connection = await engine.connect()
        return cls(engine, connection, (await connection.get_raw_connection()).driver_connection)

    async def transaction(self, work: Callable[[AsyncConnection], Awaitable[_Result]]) -> _Result:
        """Do it in a transaction."""
        async with self._connection.begin():
            return await work(self._connection)

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do it in the connection's thread; what it leaves of a transaction is rolled back."""

        def whole(driver: sqlite3.Connection) -> _Result:
            try:
                return work(driver)
            finally:
                if driver.in_transaction:
                    driver.rollback()

        return await _in_thread_of(self._driver, whole)

    async def dispose(self) -> None:
        """Close it."""
        await self._connection.close()
        await self._engine.dispose()


async def _shielded(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end even where the caller is cancelled; what it then raises is nobody's any more, and not reported."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


# --- in the connection's thread


async def in_thread(connection: AsyncConnection, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
    """Run statements one after another in the thread of their connection.

    A statement at a time, aiosqlite's way, each would wait for its turn with all that the worker computes.
    """
    return await _in_thread_of((await connection.get_raw_connection()).driver_connection, work)


async def _in_thread_of(driver: Any, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
    result: _Result = await driver._execute(work, driver._conn)  # noqa: SLF001 - there is no public way to its thread
    return result


def _fill(driver: sqlite3.Connection, views: Views) -> None:
    views.add_heads(_look_up(driver, _HEADS, views.streams()))
    wanted = [(place, *row) for place, row in enumerate(views.event_ids(id_bytes), 1)]
    views.add_known(_look_up(driver, _KNOWN, wanted))
    views.add_refused(_look_up(driver, _REFUSED, views.commands()))
    views.add_refused_at(_look_up(driver, _REFUSED_AT, views.offsets()))


class _Decided(NamedTuple):
    """Plans, each with its tenant's number, to be committed in one transaction.

    `rows` are those of their events, divided as `_divided` does; `loop` is the worker's.
    """

    path: str
    plans: list[tuple[int, Plan]]
    rows: list[list[Any]]
    loop: asyncio.AbstractEventLoop

    def commit(self, driver: sqlite3.Connection) -> set[Log]:
        """Commit those whose log stands where they begin, and return which they are."""
        good, rows = self.plans, self.rows
        driver.execute("BEGIN IMMEDIATE")
        if _move(driver, good) < len(good):
            driver.rollback()
            driver.execute("BEGIN IMMEDIATE")
            good = _standing(driver, good)
            rows = event_lists(good, _CHUNK)
            _move(driver, good)
        reach_from_thread(FailPoint.WITHIN_COMMIT, self.loop)
        self._add(driver, good, rows)
        driver.commit()
        return {plan.log for _, plan in good}

    def _add(self, driver: sqlite3.Connection, good: list[tuple[int, Plan]], rows: list[list[Any]]) -> None:
        _write_all(driver, ADD_EVENTS, rows, len(events.columns))
        reach_from_thread(FailPoint.WITHIN_COMMIT, self.loop)
        heads = [row for tenant, plan in good for row in stream_rows(tenant, plan)]
        if _write_rows(driver, _ADD_STREAMS, heads) != len(heads):
            raise StoreDamaged(f"{self.path}: a new stream is there already, under another number")
        reach_from_thread(FailPoint.WITHIN_COMMIT, self.loop)
        _write_rows(driver, _ADD_REFUSED, [row for tenant, plan in good for row in refused_rows(tenant, plan)])
        reach_from_thread(FailPoint.WITHIN_COMMIT, self.loop)


def _move(driver: sqlite3.Connection, plans: Sequence[tuple[int, Plan]]) -> int:
    """Move the checkpoints of the logs that stand where the plans begin; returns how many they are."""
    rows = [(tenant, plan.log.partition, plan.before.next_offset, *astuple(plan.after)) for tenant, plan in plans]
    return _write_rows(driver, _MOVE, rows)


def _standing(driver: sqlite3.Connection, plans: Sequence[tuple[int, Plan]]) -> list[tuple[int, Plan]]:
    """The plans whose log stands where they begin."""
    asked = [(tenant, plan.log.partition) for tenant, plan in plans]
    places = {(tenant, partition): place for tenant, partition, *place in _look_up(driver, _PLACES, asked)}
    return [
        (tenant, plan)
        for tenant, plan in plans
        if places.get((tenant, plan.log.partition)) == [plan.before.epoch, plan.before.next_offset]
    ]


def event_lists_in_python(plans: Sequence[tuple[int, Plan]], most: int) -> list[list[Any]]:
    """The rows of plans' events, value after value, as sqlite3 binds them soonest, divided as `_divided` does."""
    rows = [row for tenant, plan in plans for row in event_rows(tenant, plan, TYPES)]
    return _divided(_flat(rows), len(events.columns), most)


try:
    from processor.stores import _sqlite
except ImportError:
    event_lists = event_lists_in_python
else:
    event_lists = _sqlite.event_lists


def write(driver: sqlite3.Connection, statement: str, values: list[Any], width: int) -> int:
    """Run a statement with rows of `width`, given value after value; returns how many rows were written."""
    return _write_all(driver, statement, _divided(values, width), width)


def _write_all(driver: sqlite3.Connection, statement: str, divided: list[list[Any]], width: int) -> int:
    return sum(_execute(driver, statement, part, width).rowcount for part in divided)


def _execute(driver: sqlite3.Connection, statement: str, part: list[Any], width: int) -> sqlite3.Cursor:
    """Run a statement with as many rows as one takes."""
    return driver.execute(_text(statement, len(part) // width, width), part)


def _write_rows(driver: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> int:
    return write(driver, statement, _flat(rows), len(rows[0])) if rows else 0


def _flat(rows: Iterable[Iterable[Any]]) -> list[Any]:
    return [*chain.from_iterable(rows)]


def _at_once(driver: sqlite3.Connection, statement: str, rows: list[Row]) -> int:
    """Run a statement for each of some rows in a transaction of their own; returns how many rows were written."""
    driver.execute("BEGIN IMMEDIATE")
    written = _execute_many(driver, statement, rows)
    driver.commit()
    return written


def _execute_many(driver: sqlite3.Connection, statement: str, rows: list[Row]) -> int:
    """Returns how many rows were written."""
    return driver.executemany(statement, rows).rowcount if rows else 0


def _look_up(driver: sqlite3.Connection, query: str, rows: Sequence[Row]) -> list[Any]:
    """What a query finds for rows."""
    if not rows:
        return []
    width = len(rows[0])
    return [found for part in _divided(_flat(rows), width) for found in _execute(driver, query, part, width).fetchall()]


def _divided(values: list[Any], width: int, most: int = _CHUNK) -> list[list[Any]]:
    """Rows of `width`, given value after value, for as many statements as need be: a power of two for each."""
    parts = [values[start : start + most * width] for start in range(0, len(values), most * width)]
    for part in parts:
        rows = len(part) // width
        part.extend([TYPES.null] * (((1 << (rows - 1).bit_length()) - rows) * width))
    return parts


@cache
def _text(statement: str, rows: int, width: int) -> str:
    return statement % ", ".join([f"({', '.join('?' * width)})"] * rows)


# --- connections


def lock(path: str) -> int:
    """Take the lock file beside a store; it is let go when the descriptor returned is closed, or the process dies.

    Raises `StoreInUse`, `StoreUnreachable`.
    """
    try:
        file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreUnreachable(f"{path}.lock can't be opened: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(file, 20).decode(errors="replace")
        os.close(file)
        raise StoreInUse(
            f"the store {path} is in use by process {holder or 'unknown'}: a SQLite store serves one worker; "
            "stop that one first, or use PostgreSQL for several workers"
        ) from None
    os.truncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return file


def writer_engine(path: str, durability: str) -> AsyncEngine:
    """The engine of the one connection that writes; who calls holds the lock."""
    synchronous = "FULL" if durability == "full" else "NORMAL"
    pragmas = (*_WRITER_PRAGMAS, f"PRAGMA synchronous = {synchronous}")
    return _engine(path, "rwc", "BEGIN IMMEDIATE", pragmas, connections=1)


def reader_engine(path: str) -> AsyncEngine:
    """An engine that only reads, and never checkpoints."""
    return _engine(path, "ro", "BEGIN", _READER_PRAGMAS, connections=_READERS)


def _engine(path: str, mode: str, begin: str, pragmas: Sequence[str], connections: int) -> AsyncEngine:
    url = URL.create("sqlite+aiosqlite", database=f"file:{quote(path)}", query={"mode": mode, "uri": "true"})
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,
        # The driver's own transactions would begin with the first write: too late for a read before it.
        connect_args={"isolation_level": None, "timeout": _BUSY_TIMEOUT_S},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    @event.listens_for(engine.sync_engine, "reset")
    def end(connection: Any, _record: Any, state: PoolResetState) -> None:
        # SQLAlchemy's own way is a rollback each time, which is one more wait for the thread.
        if not state.terminate_only and connection.driver_connection.in_transaction:
            connection.rollback()

    return engine


@contextmanager
def faults(path: str) -> Iterator[None]:
    """SQLite's errors as the project's. What is left is a bug, and stays what it is."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # Without a code it is Python's own: text that is not UTF-8, or a connection that was closed.
        uncoded = sqlite3.SQLITE_CORRUPT if "UTF-8" in str(cause) else sqlite3.SQLITE_CANTOPEN
        code = getattr(cause, "sqlite_errorcode", uncoded) & 0xFF
        if code == sqlite3.SQLITE_CONSTRAINT and str(cause).endswith("events.event_id"):
            raise _EventIdTaken from None
        if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreDamaged(f"{path}: {cause}") from None
        if code in _UNREACHABLE:
            raise StoreUnreachable(f"{path}: {cause}") from None
        raise
    except UnicodeDecodeError:
        raise StoreDamaged(f"{path}: a text in it is not UTF-8") from None
