"""What `verify` says of sound stores, and of every kind of damage."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from processor.chain import genesis
from processor.messages import Plan
from processor.store import Store
from processor.stores import open_store
from processor.verify import LogReport, Report, verify_store
from tests.stores.logs import ACME, LOG, OTHER, PARTITIONS, claim, commit, new_events, ship, stream_of


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Store]:
    """A new store."""
    store = open_store("memory:" if request.param == "memory" else sqlite_url, partitions=PARTITIONS)
    await store.open()
    yield store
    await store.close()


async def fill(store: Store, events: int = 600) -> None:
    checkpoints = await store.claim([LOG, OTHER, ACME])
    for log in (LOG, ACME):
        done = await commit(store, log, checkpoints[log], *new_events(range(events // 2), log), b"no command")
        await commit(store, log, done.after, *new_events(range(events // 2, events), log))


async def test_a_sound_store(store: Store) -> None:
    await fill(store)
    checked: list[int] = []
    report = await verify_store(store, ["default", "acme"], PARTITIONS, checked.append)
    assert report.ok
    assert (report.events, report.streams, sum(checked)) == (1200, 14, 1200)
    assert len(report.partitions) == 2 * PARTITIONS
    last = (await store.checkpoints())[LOG]
    assert report.partitions[LOG.partition] == LogReport(
        tenant="default", partition=1, events=600, streams=7, watermark=600, chain=last.chain.hex(), problems=[]
    )
    empty = report.partitions[0]
    assert (empty.events, empty.watermark, empty.chain) == (0, 0, genesis(LOG._replace(partition=0)).hex())


async def test_only_the_tenants_asked_for_are_read(store: Store) -> None:
    await fill(store)
    report = await verify_store(store, ["acme"], PARTITIONS)
    assert {it.tenant for it in report.partitions} == {"acme"}
    assert report.events == 600


async def test_a_store_that_is_written_to_meanwhile_is_sound(store: Store) -> None:
    """A commit comes after the checkpoints were read, and another while the events are."""
    checkpoint = (await commit(store, LOG, await claim(store), *new_events(range(400)))).after

    class Busy:
        def __init__(self, store: Store) -> None:
            self.store = store
            self.at = checkpoint

        def __getattr__(self, name: str) -> object:
            return getattr(self.store, name)

        async def read_log(self, *arguments: object) -> object:
            first = 1000 + self.at.next_offset
            self.at = (await commit(self.store, LOG, self.at, *new_events(range(first, first + 9)))).after
            return await self.store.read_log(*arguments)  # type: ignore[arg-type]

    report = await verify_store(Busy(store), ["default"], PARTITIONS)  # type: ignore[arg-type]
    assert report.ok, report
    assert report.events == 400


async def test_offsets_may_begin_anew_with_a_new_incarnation(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), *new_events(range(5)))
    anew = replace(done.after, incarnation=1, next_offset=0, last_offset=-1, last_digest=b"")
    await store.commit([Plan(LOG, done.after, anew, {}, [], [], [])])
    assert (await verify_store(store, ["default"], PARTITIONS)).ok
    await commit(store, LOG, anew, *new_events(range(5, 8)))
    assert (await verify_store(store, ["default"], PARTITIONS)).ok


# --- damage

STREAM = stream_of(LOG, 0)
SWAP_POSITIONS_4_AND_5 = """
UPDATE events SET position = position - 9 WHERE position IN (4, 5);
UPDATE events SET position = -position WHERE position < 0;
"""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE events SET data = '{\"x\":1}' WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET type = 'Other' WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET type = CAST(x'ff' AS TEXT) WHERE position = 3", ["Could not decode to UTF-8"]),
        ("UPDATE events SET data = x'5b5d' WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET metadata = 5 WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET event_id = 'text' WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET time_ms = 1e300 WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET command_offset = -1 WHERE position = 3", ["position 3: the hash is not that"]),
        ("UPDATE events SET version = 'text' WHERE position = 3", ["after position 0: an event's position, version"]),
        ("UPDATE events SET hash = 'text' WHERE position = 3", ["after position 0: an event's position, version"]),
        ("UPDATE events SET hash = zeroblob(32) WHERE position = 3", ["position 3: the hash", "position 4: the hash"]),
        ("DELETE FROM events WHERE position = 3", ["after position 2 comes position 4", "position 4: the hash"]),
        ("DELETE FROM events WHERE position = 1", ["after position 0 comes position 2"]),
        (
            "DELETE FROM events WHERE position = 10",
            [
                "the last event is at position 9, the checkpoint says 10",
                "the last event's hash is not the checkpoint's",
            ],
        ),
        (SWAP_POSITIONS_4_AND_5, ["position 4: the hash is not that"]),
        ("UPDATE events SET version = 7 WHERE position = 8", ["position 8: after version 1 of"]),
        ("UPDATE events SET command_offset = 0 WHERE position = 8", ["position 8: the command's offset 0 is below 6"]),
        ("UPDATE checkpoints SET chain = zeroblob(32)", ["the last event's hash is not the checkpoint's"]),
        ("UPDATE checkpoints SET next_position = 13", ["is at position 10, the checkpoint says 12"]),
        ("UPDATE checkpoints SET next_position = 9", ["an event at position 9, the checkpoint says 8"]),
        ("UPDATE checkpoints SET next_offset = 9", ["has offset 9, which the checkpoint says is undecided"]),
        ("UPDATE checkpoints SET streams = 9", ["there are 7 streams, the checkpoint says 9"]),
        ("UPDATE checkpoints SET streams = 6", ["that no event brought about"]),
        (f"UPDATE streams SET version = 3 WHERE name = '{STREAM}'", ["at a version, or has a number, that no event"]),
        (f"UPDATE streams SET version = 1 WHERE name = '{STREAM}'", ["is at version 1, its last event has version 2"]),
        (
            "UPDATE streams SET number = 9 WHERE number = 7",
            ["after position 6 comes position 8", "there are 6 streams"],
        ),
        ("INSERT INTO streams VALUES (1, 1, 8, 1, 'more')", ["stream 'more' is at a version, or has a number"]),
    ],
)
async def test_damage_is_found(sqlite_url: str, tmp_path: Path, statement: str, says: list[str]) -> None:
    report = await verified_after(statement, sqlite_url, tmp_path)
    assert not report.ok
    problems = report.partitions[LOG.partition].problems
    for text in says:
        assert any(text in problem for problem in problems), problems
    assert not any(it.problems for it in report.partitions if it.partition != LOG.partition)


async def test_many_problems_are_cut_short(sqlite_url: str, tmp_path: Path) -> None:
    report = await verified_after("UPDATE events SET hash = zeroblob(32)", sqlite_url, tmp_path, events=50)
    problems = report.partitions[LOG.partition].problems
    assert len(problems) == 21
    assert problems[-1] == "and more"


async def verified_after(statement: str, url: str, folder: Path, events: int = 10) -> Report:
    store = open_store(url, partitions=PARTITIONS)
    await store.open()
    await commit(store, LOG, await claim(store), *new_events(range(events)))
    await store.close()
    with sqlite3.connect(folder / "tidemark.db") as database:
        database.executescript(statement)
    database.close()
    reader = open_store(url, partitions=PARTITIONS, read_only=True)
    await reader.open()
    try:
        return await verify_store(reader, ["default"], PARTITIONS)
    finally:
        await reader.close()


async def test_an_unreadable_page_is_a_problem_of_its_log(sqlite_url: str, tmp_path: Path) -> None:
    store = open_store(sqlite_url, partitions=PARTITIONS)
    await store.open()
    await commit(store, LOG, await claim(store), *(ship(LOG, n, stream=n % 7) for n in range(2000)))
    await store.close()
    file = tmp_path / "tidemark.db"
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 16384 * 16384
    content[middle : middle + 16384] = b"\xff" * 16384
    file.write_bytes(content)
    reader = open_store(sqlite_url, partitions=PARTITIONS, read_only=True)
    await reader.open()
    report = await verify_store(reader, ["default"], PARTITIONS)
    await reader.close()
    assert not report.ok
