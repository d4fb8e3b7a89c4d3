"""The stores, one module each, and `open_store`, which chooses by URL."""

from processor.errors import SettingsError
from processor.store import Store

__all__ = ["open_store"]


def open_store(url: str, *, partitions: int, durability: str = "full", read_only: bool = False) -> Store:
    """The store that a URL names, not connected yet: `await store.open()` does that.

    durability: "full" survives a power cut, "relaxed" the death of the process. read_only: for readers beside a
    worker; never writes, and takes no lock. Raises `SettingsError`; its text never shows the URL, which may hold a
    password.
    """
    if durability not in ("full", "relaxed"):
        raise SettingsError(f'the durability is "full" or "relaxed", not {durability!r}')
    if partitions < 1:
        raise SettingsError(f"a store has at least one partition, not {partitions}")
    # Imported where they are chosen: a worker loads no driver that it does not need.
    if url == "memory:":
        from processor.stores.memory import MemoryStore  # noqa: PLC0415

        return MemoryStore()
    from processor.stores.urls import parse_url, sqlite_path  # noqa: PLC0415

    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        from processor.stores.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(sqlite_path(parsed), partitions, durability=durability, read_only=read_only)
    from processor.stores.postgres import PostgresStore  # noqa: PLC0415

    return PostgresStore(parsed, partitions, durability=durability, read_only=read_only)
