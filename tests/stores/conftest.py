"""Every store, for tests that ask for `store` or `store_url`; PostgreSQL's databases are copies of a migrated one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from processor.store import Store
from processor.stores import open_store
from processor.stores.migrate import upgrade
from tests.records import PARTITIONS
from tests.servers import execute, fresh_database


@pytest.fixture(scope="session")
def migrated(postgres_server: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with a new store."""
    with fresh_database(postgres_server, f"t{uuid4().hex[:12]}") as url:
        upgrade(url, partitions=PARTITIONS)
        yield url


@pytest.fixture
def postgres_store_url(postgres_server: str, migrated: str) -> Iterator[str]:
    """The URL of a new store in PostgreSQL."""
    name, template = f"t{uuid4().hex[:12]}", urlsplit(migrated).path.strip("/")
    execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
    execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store of each kind."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_store_url")
        return url
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/tidemark.db"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """A new store of each kind, open."""
    store = open_store(store_url, partitions=PARTITIONS)
    await store.open()
    yield store
    await store.close()
