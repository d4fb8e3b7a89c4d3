"""What `tidemark migrate` does: make a store, or bring its schema up to the one that this code needs.

The functions block until they are done, and may be called whether or not an event loop runs.
"""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, text

from processor.stores import postgres, schema, sqlite
from processor.stores.tables import HEAD
from processor.stores.urls import parse_url, sqlite_path

_Result = TypeVar("_Result")

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(x'7469646d61726b'::bigint)")


def head() -> str:
    """The revision that this code needs."""
    return HEAD


def current(url: str) -> str | None:
    """The revision of a store; None where there is none yet. Raises `SettingsError`, `StoreUnreachable`."""
    return _in_own_loop(_current(parse_url(url)))


def upgrade(url: str, *, partitions: int) -> str:
    """Bring a store's schema up to `head()`, in one transaction, and return that; a new store gets its partitions.

    Of two that run at once, the second waits (PostgreSQL), or is refused with `StoreInUse` (SQLite). Raises
    `SettingsError`, `SchemaMismatch`, `StoreInUse`, `StoreUnreachable`.
    """
    return _in_own_loop(_upgrade(parse_url(url), partitions))


async def _current(url: URL) -> str | None:
    if url.drivername == "sqlite" and not Path(sqlite_path(url)).exists():  # noqa: ASYNC240 - one look at a local file
        return None
    if url.drivername == "sqlite":
        engine, faults = sqlite.reader_engine(sqlite_path(url)), sqlite.faults(sqlite_path(url))
    else:
        engine, faults = postgres.make_engine(url, 1, {}), postgres.faults(postgres.place_of(url))
    try:
        with faults:
            async with engine.connect() as connection:
                return await schema.revision_of(connection)
    finally:
        await engine.dispose()


async def _upgrade(url: URL, partitions: int) -> str:
    if url.drivername == "sqlite":
        store = sqlite.SqliteStore(sqlite_path(url), partitions, durability="full", read_only=False)
        await store.open()
        await store.close()
        return HEAD
    # However long the tables or the other migration take.
    engine = postgres.make_engine(url, 1, {"statement_timeout": "0", "lock_timeout": "0"}, answer_timeout_s=None)
    try:
        with postgres.faults(postgres.place_of(url)):
            async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
                await connection.execute(_ONE_AT_A_TIME)
                await schema.migrate(connection, partitions)
    finally:
        await engine.dispose()
    return HEAD


def _in_own_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
