"""What only the SQLite store has: its file, its lock, its settings."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from processor.errors import SchemaMismatch, StoreDamaged, StoreInUse, StoreUnreachable, TidemarkError
from processor.stores import open_store
from processor.stores.sqlite import SqliteStore, in_thread, reader_engine, writer_engine
from tests.stores.logs import LOG, PARTITIONS, claim, commit, new_events, plan, ship, whole_log

HOLD = """
import asyncio, sys
from processor.stores import open_store
async def main():
    await open_store(sys.argv[1], partitions=4).open()
    print("open", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def store_at(url: str, *, read_only: bool = False, durability: str = "full") -> SqliteStore:
    store = open_store(url, partitions=PARTITIONS, read_only=read_only, durability=durability)
    assert isinstance(store, SqliteStore)
    return store


async def test_a_second_worker_is_refused_until_the_first_is_gone(sqlite_url: str) -> None:
    first, second = store_at(sqlite_url), store_at(sqlite_url)
    await first.open()
    with pytest.raises(StoreInUse, match=r"in use by process \d+: a SQLite store serves one worker"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_the_lock_of_a_process_that_was_killed_is_free(sqlite_url: str) -> None:
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, sqlite_url, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    with pytest.raises(StoreInUse, match=f"process {holder.pid}:"):
        await store_at(sqlite_url).open()
    holder.kill()
    await holder.wait()
    store = store_at(sqlite_url)
    await store.open()
    await store.close()


async def test_a_store_that_could_not_be_opened_holds_no_lock(sqlite_url: str) -> None:
    store = store_at(sqlite_url)
    await store.open()
    await store.close()
    with pytest.raises(SchemaMismatch):
        await open_store(sqlite_url, partitions=PARTITIONS + 1).open()
    await store.open()
    await store.close()


async def test_a_reader_in_another_process_needs_no_lock_and_sees_what_is_committed(sqlite_url: str) -> None:
    writer, reader = store_at(sqlite_url), store_at(sqlite_url, read_only=True)
    await writer.open()
    await reader.open()
    first = await commit(writer, LOG, await claim(writer), ship(LOG, 1))
    assert await whole_log(reader) == first.events
    second = await commit(writer, LOG, first.after, ship(LOG, 2))
    assert await whole_log(reader) == first.events + second.events
    assert await reader.checkpoints() == {LOG: second.after}
    with pytest.raises(TidemarkError, match="for reading only"):
        await reader.claim([LOG])
    await writer.close()
    assert len(await whole_log(reader)) == 2
    await reader.close()


async def test_a_reader_may_open_a_store_that_nobody_serves(sqlite_url: str) -> None:
    writer = store_at(sqlite_url)
    await writer.open()
    done = await commit(writer, LOG, await claim(writer), ship(LOG, 1))
    await writer.close()
    reader = store_at(sqlite_url, read_only=True)
    await reader.open()
    assert await whole_log(reader) == done.events
    await reader.close()


async def test_a_reader_does_not_make_a_store(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="there is no store at"):
        await store_at(sqlite_url, read_only=True).open()
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a look at a local folder


async def test_readers_never_checkpoint(sqlite_url: str, tmp_path: Path) -> None:
    """What a killed worker left in the log beside the file stays there until a writer comes."""
    writer = store_at(sqlite_url)
    await writer.open()
    await commit(writer, LOG, await claim(writer), *new_events(range(100)))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("tidemark.db", "tidemark.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    await writer.close()
    before = (copy / "tidemark.db").read_bytes(), (copy / "tidemark.db-wal").read_bytes()
    reader = store_at(f"sqlite:///{copy}/tidemark.db", read_only=True)
    await reader.open()
    assert len(await whole_log(reader)) == 100
    await reader.close()
    assert ((copy / "tidemark.db").read_bytes(), (copy / "tidemark.db-wal").read_bytes()) == before


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("relaxed", 1)])
async def test_the_writer_s_settings(tmp_path: Path, durability: str, synchronous: int) -> None:
    engine = writer_engine(f"{tmp_path}/some #?%.db", durability)
    async with engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "page_size", "synchronous", "wal_autocheckpoint")
        }
    await engine.dispose()
    assert found == {
        "journal_mode": "wal", "page_size": 16384, "synchronous": synchronous, "wal_autocheckpoint": 10000
    }  # fmt: skip
    assert (tmp_path / "some #?%.db").exists()


async def test_the_readers_settings(sqlite_url: str, tmp_path: Path) -> None:
    store = store_at(sqlite_url)
    await store.open()
    engine = reader_engine(f"{tmp_path}/tidemark.db")
    async with engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("query_only", "wal_autocheckpoint")
        }
    await engine.dispose()
    await store.close()
    assert found == {"query_only": 1, "wal_autocheckpoint": 0}


async def test_a_folder_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable, match="No such file or directory"):
        await store_at(f"sqlite:///{tmp_path}/none/tidemark.db").open()


async def test_a_file_that_is_no_database_is_damage(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "tidemark.db").write_bytes(b"not a database, and longer than a header of a hundred bytes " * 20)
    with pytest.raises(StoreDamaged, match="file is not a database"):
        await store_at(sqlite_url).open()


async def test_a_database_that_somebody_else_writes_to_is_unreachable(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.stores.sqlite._BUSY_TIMEOUT_S", 0.1)
    store = store_at(sqlite_url)
    await store.open()
    intruder = sqlite3.connect(tmp_path / "tidemark.db", isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnreachable, match="locked"):
        await claim(store)
    intruder.close()
    assert (await claim(store)).epoch == 1
    await store.close()


async def test_a_load_and_a_commit_wait_for_their_thread_once_each(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait is for a turn with all that the worker computes: in a small cycle they were most of the time."""
    store = store_at(sqlite_url)
    await store.open()
    at = (await commit(store, LOG, await claim(store), ship(LOG, 0))).after
    given: list[Any] = []
    execute: Any = aiosqlite.Connection._execute

    async def noted(connection: aiosqlite.Connection, function: Any, *args: Any, **options: Any) -> Any:
        given.append(function)
        return await execute(connection, function, *args, **options)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", noted)
    decided = await plan(store, LOG, at, ship(LOG, 1, 2, command_id="c"))
    assert len(given) == 1
    await store.commit([decided])
    assert len(given) == 2
    await store.close()


NEVER_HELD = """
PRAGMA foreign_keys = ON;
CREATE TABLE one (key PRIMARY KEY);
CREATE TABLE other (key REFERENCES one (key) DEFERRABLE INITIALLY DEFERRED);
CREATE TEMP TRIGGER unheld AFTER INSERT ON events BEGIN INSERT INTO other VALUES (1); END;
"""


async def test_a_commit_that_fails_at_its_very_end_leaves_nothing_behind(sqlite_url: str) -> None:
    store = store_at(sqlite_url)
    await store.open()
    at = await claim(store)
    await store._alone(lambda driver: driver.executescript(NEVER_HELD))
    with pytest.raises(StoreDamaged, match="FOREIGN KEY"):
        await commit(store, LOG, at, ship(LOG, 0))
    await store._alone(lambda driver: driver.executescript("DROP TRIGGER unheld"))
    assert await whole_log(store) == []
    await commit(store, LOG, at, ship(LOG, 0))
    assert len(await whole_log(store)) == 1
    await store.close()


async def test_a_connection_is_given_back_without_a_transaction(tmp_path: Path) -> None:
    engine = writer_engine(f"{tmp_path}/s.db", "full")
    async with engine.connect() as connection:
        await in_thread(connection, lambda driver: driver.execute("BEGIN IMMEDIATE"))
    async with engine.connect() as connection:
        assert not await in_thread(connection, lambda driver: driver.in_transaction)
    await engine.dispose()
