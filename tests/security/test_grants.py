"""What the roles of PostgreSQL can do, and nothing more, once `tidemark migrate grants` was run."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from processor.errors import SettingsError, StoreUnreachable
from processor.messages import Log
from processor.stores import open_store
from processor.stores.migrate import upgrade
from processor.verify import verify_store
from tests.security.roles import Roles
from tests.stores.logs import ACME, LOG, PARTITIONS, claim, commit, new_events, ship, whole_log

MANY = range(1, 301)  # above what a commit writes in one statement, so that rows are copied
TABLES = ("alembic_version", "store", "tenants", "checkpoints", "streams", "events", "refused")


@pytest.fixture
async def roles(postgres_url: str) -> AsyncIterator[Roles]:
    """A store with events of two tenants, written by a worker's role; a reader of all, and one of tenant acme."""
    upgrade(postgres_url, partitions=PARTITIONS)
    roles = Roles(postgres_url)
    await roles.make("worker", "BYPASSRLS")
    for role in ("reader", "acme", "stranger"):
        await roles.make(role)
    await roles.grant(
        "--worker", roles.name("worker"), "--reader", roles.name("reader"),
        "--tenant-reader", f"acme={roles.name('acme')}",
    )  # fmt: skip
    store = open_store(roles.url_of("worker"), partitions=PARTITIONS)
    await store.open()
    await commit(store, LOG, await claim(store, LOG), *new_events(MANY))
    refused = ship(ACME, 1, expected_version=7, command_id="0199f2d4-9c1e-7000-8000-000000000001")
    await commit(store, ACME, await claim(store, ACME), ship(ACME, 1), refused)
    await store.close()
    yield roles
    await roles.drop()


async def test_a_worker_does_its_job(roles: Roles) -> None:
    store = open_store(roles.url_of("worker"), partitions=PARTITIONS)
    await store.open()
    before = await claim(store, ACME)
    after = (await commit(store, ACME, before, ship(ACME, 2))).after
    await store.acknowledge({ACME: after})
    assert await store.forget_refused(ACME, 2**60, 10) <= 1
    assert len(await whole_log(store, LOG)) == len(MANY)
    assert len(await whole_log(store, ACME)) == 2
    await store.close()


FORBIDDEN = [
    "UPDATE events SET data = ''",
    "DELETE FROM events",
    "TRUNCATE events",
    "DELETE FROM checkpoints",
    "DELETE FROM streams",
    "UPDATE refused SET outcome = ''",
    "UPDATE tenants SET name = 'other'",
    "UPDATE store SET partitions = 1",
    "UPDATE alembic_version SET version_num = '0001'",
    "DROP TABLE events",
    "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON tenants USING (true)",
    "CREATE TABLE mine (id int)",
]


async def test_a_worker_can_neither_change_nor_delete_what_was_written(roles: Roles) -> None:
    async with roles.connected("worker") as connection:
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


@pytest.mark.parametrize(("role", "logs"), [("reader", {LOG, ACME}), ("acme", {ACME})])
async def test_a_reader_sees_its_tenants_and_no_other(roles: Roles, role: str, logs: set[Log]) -> None:
    store = open_store(roles.url_of(role), partitions=PARTITIONS, read_only=True)
    await store.open()
    assert (await store.checkpoints()).keys() == logs
    for log in (LOG, ACME):
        events, streams = await whole_log(store, log), await store.streams(log, 0, 10)
        assert bool(events) == bool(streams) == (log in logs)
        for _, stream in streams:
            assert await store.read_stream(log, stream.stream, 0, 10)
    assert (await verify_store(store, sorted(log.tenant for log in logs), PARTITIONS)).ok
    await store.close()


async def test_the_wall_stands_whatever_is_asked(roles: Roles) -> None:
    """By SQL of its own, a tenant's reader sees as little as by Tidemark's."""
    [(acme,)] = await roles.fetch("SELECT number FROM tenants WHERE name = 'acme'", "reader")

    for table in ("tenants", "checkpoints", "streams", "events"):
        column = "number" if table == "tenants" else "tenant"
        assert {row[0] for row in await roles.fetch(f"SELECT {column} FROM {table}", "acme")} == {acme}
        assert len({row[0] for row in await roles.fetch(f"SELECT {column} FROM {table}", "reader")}) == 2


@pytest.mark.parametrize("role", ["reader", "acme"])
async def test_a_reader_writes_nothing_and_sees_no_refusals(roles: Roles, role: str) -> None:
    async with roles.connected(role) as connection:
        for table in TABLES:
            for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} TABLE {table}", f"TRUNCATE {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM refused")


async def test_who_was_given_nothing_sees_nothing(roles: Roles) -> None:
    async with roles.connected("stranger") as connection:
        for table in TABLES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")


async def test_what_is_granted_to_all_still_stands_behind_the_wall(roles: Roles) -> None:
    await roles.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {roles.name('stranger')}")

    assert await roles.fetch("SELECT * FROM events", "stranger") == []
    assert await roles.fetch("SELECT * FROM refused", "stranger") == []


async def test_a_role_without_rights_is_told_what_to_do(roles: Roles) -> None:
    for read_only in (False, True):
        store = open_store(roles.url_of("stranger"), partitions=PARTITIONS, read_only=read_only)
        with pytest.raises(StoreUnreachable, match=r"permission denied for table .*tidemark migrate grants"):
            await store.open()
        await store.close()


async def test_a_reader_is_no_worker(roles: Roles) -> None:
    store = open_store(roles.url_of("reader"), partitions=PARTITIONS)
    with pytest.raises(SettingsError, match=r"the role reader_\w+ lacks INSERT on tenants, .*tidemark migrate grants"):
        await store.open()
    await store.close()


async def test_a_worker_that_a_policy_holds_back_is_told_so_at_the_start(roles: Roles) -> None:
    await roles.execute(f"ALTER ROLE {roles.name('worker')} NOBYPASSRLS")
    store = open_store(roles.url_of("worker"), partitions=PARTITIONS)
    with pytest.raises(SettingsError, match=r"run ALTER ROLE worker_\w+ BYPASSRLS"):
        await store.open()
    await store.close()


async def test_a_worker_s_statements_are_planned_as_the_owner_s(roles: Roles) -> None:
    """Row-level security costs a worker nothing: no condition is added to what it asks."""
    query = "EXPLAIN (COSTS OFF) SELECT * FROM events WHERE tenant = 1 AND partition = 1 AND position > 3"

    planned = {role: [row[0] for row in await roles.fetch(query, role)] for role in ("worker", "acme")}
    async with roles.connected(None) as owner:
        assert [row[0] for row in await owner.fetch(query)] == planned["worker"]
    assert planned["acme"] != planned["worker"]
