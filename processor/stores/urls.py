"""What a store's URL says. No text of an error ever shows the URL: it may hold a password."""

import re

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from processor.errors import SettingsError

_KINDS = "a store is memory:, sqlite:///PATH or postgresql://USER@HOST/DATABASE"
_ENGINES = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgresql": "postgresql",
    "postgresql+asyncpg": "postgresql",
    "postgres": "postgresql",
}


def parse_url(url: str) -> URL:
    """The URL of a SQL store, its driver's name told as `sqlite` or `postgresql`. Raises `SettingsError`."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)", url)
    if scheme is None:
        raise SettingsError(f"the store's URL has no scheme: {_KINDS}")
    if scheme[0] == "memory":
        raise SettingsError("memory: is gone with its process: it has no schema, and nothing to migrate")
    if scheme[0] == "rocksdb":
        raise SettingsError(f"rocksdb: is not available in this version: {_KINDS}")
    if scheme[0] not in _ENGINES:
        raise SettingsError(f"there is no store for the scheme {scheme[0]!r}: {_KINDS}")
    try:
        parsed = make_url(url).set(drivername=_ENGINES[scheme[0]])
    except (ArgumentError, ValueError):
        raise SettingsError(f"the store's URL can't be read: {_KINDS}") from None
    # What follows an @ within the password would be taken for the host, and shown.
    if "@" in (parsed.host or ""):
        raise SettingsError("the store's URL can't be read: write an @ in its user or password as %40")
    return parsed


def sqlite_path(url: URL) -> str:
    """The file of a SQLite store. Raises `SettingsError`."""
    if url.host or not url.database or url.database == ":memory:":
        raise SettingsError("a SQLite store is a file: sqlite:///relative/path or sqlite:////absolute/path")
    if url.query:
        raise SettingsError("a SQLite store takes no options in its URL")
    return url.database
