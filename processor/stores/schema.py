"""Which schema a SQL store has, and whether it is the one that this code needs; and the migrations that make it so."""

from alembic.config import Config
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from processor.errors import SchemaMismatch
from processor.stores.tables import FORMAT, HEAD, store


def alembic_config() -> Config:
    """The settings that Alembic needs to find the migrations in the package."""
    config = Config()
    config.set_main_option("script_location", "processor.stores:migrations")
    config.set_main_option("path_separator", "os")
    return config


async def revision_of(connection: AsyncConnection) -> str | None:
    """The revision of a store's schema; None where there is no schema."""
    return await connection.run_sync(_revision_of)


async def migrate(connection: AsyncConnection, partitions: int) -> None:
    """Bring the schema up to `HEAD`, within the caller's transaction; a new store is recorded with `partitions`.

    Raises `SchemaMismatch` where the store is newer than this code, or was made for other partitions.
    """
    await connection.run_sync(_upgrade)
    if (await connection.execute(select(store.c.partitions))).first() is None:
        await connection.execute(store.insert().values(id=1, partitions=partitions, format=FORMAT))
    await check(connection, partitions)


async def check(connection: AsyncConnection, partitions: int) -> None:
    """Raise `SchemaMismatch` unless the store has the schema of this code, and this number of partitions."""
    revision = await revision_of(connection)
    if revision is None:
        raise SchemaMismatch('the store has no schema: run "tidemark migrate up"')
    _refuse_newer(revision)
    if revision < HEAD:
        raise SchemaMismatch(f'the store\'s schema is {revision}, {HEAD} is needed: run "tidemark migrate up"')
    found = (await connection.execute(select(store.c.partitions, store.c.format))).one_or_none()
    if found is None:
        raise SchemaMismatch('the store was never finished: run "tidemark migrate up"')
    if found.format != FORMAT:
        raise SchemaMismatch(f"the store has format {found.format}, this version reads format {FORMAT}")
    if found.partitions != partitions:
        raise SchemaMismatch(
            f"the store was made for {found.partitions} partitions, the settings say {partitions}: "
            f"set TIDEMARK_PARTITIONS={found.partitions}, the number is fixed for a store's life"
        )


def _refuse_newer(revision: str) -> None:
    # Revisions are numbers of four digits, so their order is that of the text.
    if revision > HEAD:
        raise SchemaMismatch(
            f"the store's schema {revision} is newer than this version, which knows schemas up to {HEAD}: "
            "use the version that made it, or a later one"
        )


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT max(version_num) FROM alembic_version")).scalar_one()
    return found


def _upgrade(connection: Connection) -> None:
    revision = _revision_of(connection)
    if revision is not None:
        _refuse_newer(revision)
    if revision == HEAD:
        return
    from alembic import command  # noqa: PLC0415 - slow to import, and needed once in a store's life

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
