"""What only the PostgreSQL store has: several workers, a server that may be gone, and plans of queries."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from msgspec.structs import replace

from processor.errors import StoreUnreachable
from processor.messages import KnownEvent, Log, Wanted
from processor.store import Committed, Store
from processor.stores import open_store, postgres
from processor.stores.migrate import current, upgrade
from processor.stores.postgres import PostgresStore
from tests.servers import Postgres, free_port
from tests.stores.logs import (
    LOG,
    OTHER,
    PARTITIONS,
    claim,
    commit,
    event_id,
    new_events,
    plan,
    ship,
    stream_of,
    whole_log,
)


@pytest.fixture
def store_url(postgres_store_url: str) -> str:
    """The URL of a new store in PostgreSQL."""
    return postgres_store_url


@pytest.fixture
async def other(store_url: str) -> AsyncIterator[Store]:
    """The same store, opened by another worker."""
    store = open_store(store_url, partitions=PARTITIONS)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def outsider(store_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else."""
    connection = await asyncpg.connect(store_url)
    yield connection
    await connection.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server of this test's own, with a new store."""
    with Postgres(fsync=False) as server:
        upgrade(server.url(), partitions=PARTITIONS)
        yield server


async def hold(connection: asyncpg.Connection, partition: int) -> asyncpg.transaction.Transaction:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE", partition)
    return transaction


@pytest.mark.parametrize("size", [1, 500], ids=["few", "many"])
async def test_a_log_whose_row_is_held_is_busy_and_holds_up_nothing(
    store: Store, outsider: asyncpg.Connection, size: int
) -> None:
    checkpoints = await store.claim([LOG, OTHER])
    plans = [await plan(store, log, checkpoints[log], *new_events(range(size), log)) for log in (LOG, OTHER)]
    holding = await hold(outsider, LOG.partition)
    assert await store.commit(plans) == {LOG: Committed.BUSY, OTHER: Committed.YES}
    assert await whole_log(store) == []
    assert await store.checkpoints() == {LOG: checkpoints[LOG], OTHER: plans[1].after}
    await holding.rollback()
    assert await store.commit(plans[:1]) == {LOG: Committed.YES}
    assert await whole_log(store) == plans[0].events


async def test_a_stale_plan_is_fenced_even_where_the_row_is_held(
    store: Store, other: Store, outsider: asyncpg.Connection
) -> None:
    stale = await plan(store, LOG, await claim(store), ship(LOG, 1))
    await claim(other)
    holding = await hold(outsider, LOG.partition)
    assert await store.commit([stale]) == {LOG: Committed.FENCED}
    await holding.rollback()


async def test_workers_that_claim_and_commit_at_once_write_each_command_once(store: Store, other: Store) -> None:
    """Both claim and commit as quickly as they can, each from what it believes: who is late is fenced."""
    ended: list[Committed] = []

    async def work(owner: Store, first: int) -> None:
        checkpoint = await claim(owner)
        for number in range(first, first + 60):
            decided = await plan(owner, LOG, checkpoint, ship(LOG, number))
            (result,) = (await owner.commit([decided])).values()
            ended.append(result)
            checkpoint = decided.after if result is Committed.YES else await claim(owner)

    await asyncio.gather(work(store, 0), work(other, 1000))
    events = await whole_log(store)
    assert [event.version for event in events] == list(range(1, ended.count(Committed.YES) + 1))
    assert [event.offset for event in events] == list(range(len(events)))
    assert len({event.event_id for event in events}) == len(events)
    assert events


async def test_claims_at_once_give_each_epoch_out_once(store: Store, other: Store) -> None:
    claims = await asyncio.gather(
        *(owner.claim(logs) for _ in range(10) for owner in (store, other) for logs in ([LOG, OTHER], [OTHER, LOG]))
    )
    for log in (LOG, OTHER):
        assert sorted(claimed[log].epoch for claimed in claims) == list(range(1, 41))


async def test_a_commit_waits_for_an_acknowledgement_of_its_own_worker(store: Store) -> None:
    """They take the same row; taken by chance at the same time, the log must not seem busy."""
    checkpoint = await claim(store)
    for number in range(50):
        decided = await plan(store, LOG, checkpoint, ship(LOG, number))
        ended, _ = await asyncio.gather(
            store.commit([decided]), store.acknowledge({LOG: replace(checkpoint, acknowledged_offset=number)})
        )
        assert ended == {LOG: Committed.YES}
        checkpoint = decided.after


async def test_an_acknowledgement_does_not_wait_for_a_row_that_is_held(
    store: Store, outsider: asyncpg.Connection
) -> None:
    checkpoints = await store.claim([LOG, OTHER])
    given = {log: replace(checkpoint, acknowledged_offset=3) for log, checkpoint in checkpoints.items()}
    holding = await hold(outsider, LOG.partition)
    await store.acknowledge(given)
    assert await store.checkpoints() == {LOG: checkpoints[LOG], OTHER: given[OTHER]}
    await holding.rollback()
    await store.acknowledge(given)
    assert await store.checkpoints() == given


async def test_durability_is_set_for_every_session(store_url: str) -> None:
    found = {}
    for durability in ("full", "relaxed"):
        store = open_store(store_url, partitions=PARTITIONS, durability=durability)
        assert isinstance(store, PostgresStore)
        async with store._driver() as driver:
            found[durability] = await driver.fetchval("SHOW synchronous_commit")
        await store.close()
    assert found == {"full": "on", "relaxed": "off"}


async def test_a_reader_can_not_write(store: Store, store_url: str) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1))
    reader = open_store(store_url, partitions=PARTITIONS, read_only=True)
    await reader.open()
    assert await whole_log(reader) == done.events
    with pytest.raises(StoreUnreachable, match="read-only transaction"):
        await reader.claim([LOG])
    await reader.close()


async def test_a_tenant_that_another_worker_made_is_known(store: Store, other: Store) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1))
    stream = stream_of(LOG)
    views = await other.load({LOG: Wanted({stream: [event_id(1)]}, [], [])})
    assert views[LOG].known == {(stream, event_id(1)): KnownEvent.of(done.events[0])}


async def test_a_url_s_own_settings_reach_the_server(store_url: str) -> None:
    store = open_store(f"{store_url}?application_name=mine&sslmode=prefer", partitions=PARTITIONS)
    await store.open()
    await store.close()


# --- a server that is gone


async def test_a_server_that_stops_is_unreachable_and_back_when_it_is_back(server: Postgres) -> None:
    store = open_store(server.url(), partitions=PARTITIONS)
    await store.open()
    first = await commit(store, LOG, await claim(store), ship(LOG, 1))
    decided = await plan(store, LOG, first.after, ship(LOG, 2))
    server.kill()
    for attempt in (
        store.commit([decided]),
        store.claim([LOG]),
        store.load({LOG: Wanted({stream_of(LOG): []}, [], [])}),
        store.acknowledge({LOG: first.after}),
        store.forget_refused(LOG, 0, 1),
        store.checkpoints(),
        store.read_log(LOG, 0, 1),
        store.read_stream(LOG, stream_of(LOG), 0, 1),
        store.streams(LOG, 0, 1),
    ):
        with pytest.raises(StoreUnreachable) as caught:
            await attempt
        assert caught.value.__suppress_context__
        assert "\n" not in str(caught.value)
    server.start()
    assert await store.commit([decided]) == {LOG: Committed.YES}
    assert await whole_log(store) == first.events + decided.events
    await store.close()


async def test_a_server_that_is_gone_when_it_is_opened_is_unreachable() -> None:
    url = f"postgresql://someone:pass-word@127.0.0.1:{free_port()}/database"
    store = open_store(url, partitions=PARTITIONS)
    with pytest.raises(StoreUnreachable, match=r"PostgreSQL at 127\.0\.0\.1:") as caught:
        await store.open()
    assert "pass-word" not in str(caught.value)
    await store.close()
    with pytest.raises(StoreUnreachable):
        current(url)


async def test_a_database_that_is_not_there_is_told(postgres_server: str) -> None:
    store = open_store(urlsplit(postgres_server)._replace(path="/none").geturl(), partitions=PARTITIONS)
    with pytest.raises(StoreUnreachable, match='database "none" does not exist'):
        await store.open()
    await store.close()


async def test_connections_that_are_cut_are_not_used_again(store: Store, outsider: asyncpg.Connection) -> None:
    checkpoint = await claim(store)
    await outsider.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for broken in (store.load({LOG: Wanted({stream_of(LOG): []}, [], [])}), store.checkpoints()):
        with pytest.raises(StoreUnreachable):
            await broken
    assert await store.checkpoints() == {LOG: checkpoint}
    await commit(store, LOG, checkpoint, ship(LOG, 1))


async def test_a_claim_that_waits_too_long_is_unreachable(
    store: Store, store_url: str, outsider: asyncpg.Connection
) -> None:
    await claim(store)
    hurried = open_store(f"{store_url}?", partitions=PARTITIONS)
    assert isinstance(hurried, PostgresStore)
    async with hurried._driver() as driver:
        await driver.execute("SET lock_timeout = '50ms'")
    holding = await hold(outsider, LOG.partition)
    with pytest.raises(StoreUnreachable, match="lock timeout"):
        await hurried.claim([LOG])
    await holding.rollback()
    await hurried.close()


# --- plans of queries


@pytest.mark.parametrize(
    ("query", "parameters", "index"),
    [
        (postgres._HEADS, 3, "streams_pkey"),
        (postgres._KNOWN, 4, "events_id_key"),
        (postgres._REFUSED, 4, "refused_command"),
    ],
    ids=["heads", "known", "refused"],
)
async def test_the_writer_looks_up_by_key_in_a_store_that_was_just_made(
    outsider: asyncpg.Connection, query: str, parameters: int, index: str
) -> None:
    """Its plans are made while the tables are empty, and kept."""
    for name, value in {**postgres._WRITER_SETTINGS, "plan_cache_mode": "force_generic_plan"}.items():
        await outsider.execute(f"SET {name} = {value}")
    await outsider.execute(f"PREPARE query AS {query}")
    lines = [row[0] for row in await outsider.fetch(f"EXPLAIN EXECUTE query ({', '.join(['NULL'] * parameters)})")]
    scans = [number for number, line in enumerate(lines) if "Scan" in line and "Function Scan" not in line]
    assert [f"using {index} on" in lines[number] for number in scans] == [True]
    (columns,) = await outsider.fetchrow(
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::regclass", index
    )
    assert f"Index Cond: ((ROW({columns}) >= " in lines[scans[0] + 1]


async def test_a_reader_finds_a_stream_s_name_by_its_number_before_anything_is_counted(
    outsider: asyncpg.Connection,
) -> None:
    await outsider.execute("ALTER TABLE streams SET (autovacuum_enabled = off)")
    await outsider.execute("ALTER TABLE events SET (autovacuum_enabled = off)")
    await outsider.execute("INSERT INTO tenants (name) VALUES ('default')")
    await outsider.execute("INSERT INTO streams SELECT 1, n % 32, n, 1, n FROM generate_series(1, 20000) AS n")
    await outsider.execute(
        "INSERT INTO events SELECT 1, n % 32, n, n, 1, n, n, 1, gen_random_uuid(), '', '', '', '' "
        "FROM generate_series(1, 20000) AS n"
    )
    page = postgres._LOG_PAGE
    arguments = page.arguments(Log("default", 1), after=0, limit=1000)
    lines = [row[0].strip() for row in await outsider.fetch(f"EXPLAIN {page.text}", *arguments)]
    scan = next(number for number, line in enumerate(lines) if "using streams_number_key on streams" in line)
    assert "(number = " in lines[scan + 1], lines


async def test_a_claim_learns_the_tenants_numbers_anew(store: Store, outsider: asyncpg.Connection) -> None:
    await commit(store, LOG, await claim(store), ship(LOG, 1))
    # As after a fail-over to a copy that lacks a tenant, and has given its number to another one since.
    await outsider.execute("UPDATE tenants SET name = 'another'")
    assert (await claim(store)).next_offset == 0
