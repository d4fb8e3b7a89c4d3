"""Which URL opens which store, and what is said of the others."""

from pathlib import Path

import pytest

from processor.errors import SettingsError
from processor.stores import open_store
from processor.stores.memory import MemoryStore
from processor.stores.migrate import upgrade
from processor.stores.postgres import PostgresStore
from processor.stores.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryStore),
        ("sqlite:///relative.db", SqliteStore),
        ("sqlite:////absolute.db", SqliteStore),
        ("sqlite+aiosqlite:///relative.db", SqliteStore),
        ("postgresql://user:word@host:5432/database", PostgresStore),
        ("postgres://user@host/database?sslmode=require", PostgresStore),
        ("postgresql+asyncpg://user@host/database", PostgresStore),
    ],
)
def test_the_scheme_chooses_the_store(url: str, kind: type) -> None:
    assert type(open_store(url, partitions=4)) is kind


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rocksdb:///some/path", "not available in this version"),
        ("mysql://user:pass-word@host/db", "'mysql'"),
        ("postgresql+psycopg://user:pass-word@host/db", "'postgresql+psycopg'"),
        ("user:pass-word@host/db", "'user'"),
        ("//user:pass-word@host/db", "no scheme"),
        ("", "no scheme"),
        ("postgresql://user:pass-word@host:port/db", "can't be read"),
        ("sqlite://", "is a file"),
        ("sqlite:///:memory:", "is a file"),
        ("sqlite://user:pass-word@host/file", "is a file"),
        ("sqlite:///file?mode=pass-word", "no options"),
    ],
)
def test_what_is_no_store_is_told_without_the_url(url: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_store(url, partitions=4)
    assert says in str(caught.value)
    assert "pass-word" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_durability_and_partitions_are_checked() -> None:
    with pytest.raises(SettingsError, match="durability"):
        open_store("memory:", partitions=4, durability="some")
    with pytest.raises(SettingsError, match="at least one partition"):
        open_store("memory:", partitions=0)


def test_a_memory_store_is_not_migrated() -> None:
    with pytest.raises(SettingsError, match="nothing to migrate"):
        upgrade("memory:", partitions=4)


def test_opening_is_what_makes_a_file(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/tidemark.db", partitions=4)
    assert list(tmp_path.iterdir()) == []
