"""Roles of a PostgreSQL server, made for a test, with what `tidemark migrate grants` prints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
from typer.testing import CliRunner

from processor.cli import app

PASSWORD = "geheim"


class Roles:
    """Roles in one database, by the names that a test calls them; on the server they have names of their own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._mark = uuid4().hex[:8]

    def name(self, role: str) -> str:
        return f"{role}_{self._mark}"

    def url_of(self, role: str, password: str = PASSWORD) -> str:
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{self.name(role)}:{password}@{place}").geturl()

    async def make(self, role: str, attributes: str = "") -> None:
        await self.execute(f"CREATE ROLE {self.name(role)} LOGIN {attributes} PASSWORD '{PASSWORD}'")

    async def grant(self, *arguments: str) -> None:
        """Run what the command prints, as the owner, twice: the second time must not hurt."""
        printed = CliRunner().invoke(app, ["migrate", "grants", *arguments])
        assert printed.exit_code == 0, printed.output
        for _ in range(2):
            await self.execute(printed.stdout)

    async def execute(self, statements: str, role: str | None = None) -> None:
        async with self.connected(role) as connection:
            await connection.execute(statements)

    async def fetch(self, query: str, role: str) -> list[Any]:
        async with self.connected(role) as connection:
            found: list[Any] = await connection.fetch(query)
            return found

    @asynccontextmanager
    async def connected(self, role: str | None) -> AsyncIterator[asyncpg.Connection]:
        """A connection of a role, or of the owner."""
        connection = await asyncpg.connect(self.url if role is None else self.url_of(role))
        try:
            yield connection
        finally:
            await connection.close()

    async def drop(self) -> None:
        async with self.connected(None) as connection:
            for (name,) in await connection.fetch(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE $1", f"%{self._mark}"
            ):
                await connection.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
