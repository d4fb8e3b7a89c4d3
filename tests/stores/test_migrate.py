"""The schema: made by the migrations, recorded, and checked when a store is opened."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from processor.errors import SchemaMismatch, StoreInUse
from processor.stores import open_store
from processor.stores.migrate import current, head, upgrade
from processor.stores.schema import alembic_config
from processor.stores.tables import METADATA
from tests.stores.logs import LOG, PARTITIONS, claim


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a place where there is no store yet."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


def engine_of(url: str) -> AsyncEngine:
    return create_async_engine(
        url.replace("postgresql:", "postgresql+asyncpg:").replace("sqlite:", "sqlite+aiosqlite:")
    )


async def execute(url: str, statement: str) -> None:
    engine = engine_of(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def test_the_code_s_revision_is_the_newest_one() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [head()]


async def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    upgrade(url, partitions=PARTITIONS)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    engine = engine_of(url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_a_store_is_made_once(url: str) -> None:
    assert current(url) is None
    assert upgrade(url, partitions=PARTITIONS) == head()
    assert current(url) == head()
    store = open_store(url, partitions=PARTITIONS)
    await store.open()
    claimed = await store.claim([LOG])
    await store.close()
    assert upgrade(url, partitions=PARTITIONS) == head()
    again = open_store(url, partitions=PARTITIONS, read_only=True)
    await again.open()
    assert await again.checkpoints() == claimed
    await again.close()


async def test_another_number_of_partitions_is_a_mismatch(url: str) -> None:
    upgrade(url, partitions=PARTITIONS)
    says = "was made for 4 partitions, the settings say 8: set TIDEMARK_PARTITIONS=4"
    for read_only in (False, True):
        store = open_store(url, partitions=8, read_only=read_only)
        with pytest.raises(SchemaMismatch, match=says):
            await store.open()
        await store.close()
    with pytest.raises(SchemaMismatch, match=says):
        upgrade(url, partitions=8)


async def test_a_newer_schema_is_a_mismatch(url: str) -> None:
    upgrade(url, partitions=PARTITIONS)
    await execute(url, "UPDATE alembic_version SET version_num = '9999'")
    says = "schema 9999 is newer than this version"
    for read_only in (False, True):
        store = open_store(url, partitions=PARTITIONS, read_only=read_only)
        with pytest.raises(SchemaMismatch, match=says):
            await store.open()
        await store.close()
    with pytest.raises(SchemaMismatch, match=says):
        upgrade(url, partitions=PARTITIONS)
    assert current(url) == "9999"


async def test_an_older_schema_is_a_mismatch_for_readers(url: str) -> None:
    upgrade(url, partitions=PARTITIONS)
    await execute(url, "UPDATE alembic_version SET version_num = '0000'")
    store = open_store(url, partitions=PARTITIONS, read_only=True)
    with pytest.raises(SchemaMismatch, match='schema is 0000, 0002 is needed: run "tidemark migrate up"'):
        await store.open()
    await store.close()


async def test_another_format_is_a_mismatch(url: str) -> None:
    upgrade(url, partitions=PARTITIONS)
    await execute(url, "UPDATE store SET format = 2")
    store = open_store(url, partitions=PARTITIONS)
    with pytest.raises(SchemaMismatch, match="has format 2, this version reads format 1"):
        await store.open()
    await store.close()


async def test_postgresql_is_not_migrated_by_opening_it(postgres_url: str) -> None:
    store = open_store(postgres_url, partitions=PARTITIONS)
    with pytest.raises(SchemaMismatch, match='the store has no schema: run "tidemark migrate up"'):
        await store.open()
    await store.close()
    assert current(postgres_url) is None


async def test_sqlite_is_made_by_opening_it(sqlite_url: str) -> None:
    store = open_store(sqlite_url, partitions=PARTITIONS)
    await store.open()
    await claim(store)
    assert current(sqlite_url) == head()
    with pytest.raises(StoreInUse):
        upgrade(sqlite_url, partitions=PARTITIONS)
    await store.close()


def test_migrations_at_the_same_time_make_one_store(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(upgrade, postgres_url, partitions=PARTITIONS) for _ in range(4)]
        assert [it.result() for it in made] == [head()] * 4


def test_looking_makes_no_file(sqlite_url: str, tmp_path: Path) -> None:
    assert current(sqlite_url) is None
    assert list(tmp_path.iterdir()) == []
