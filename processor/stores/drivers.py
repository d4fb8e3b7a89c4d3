"""PostgreSQL's connections as the writer takes them: asyncpg's own, without an engine or its pool around them.

To take a connection from SQLAlchemy's pool and give it back is a tenth of what a small commit costs the worker.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

TAKE_TIMEOUT_S = 30
"""How long one waits for a connection while others have them all."""
_CLOSE_TIMEOUT_S = 5


class Drivers:
    """At most so many connections, each made when it is first needed; all of one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], most: int) -> None:
        self.used = 0
        self.most = most
        self._connect = connect
        self._room = asyncio.Semaphore(most)
        self._idle: list[asyncpg.Connection] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection without a transaction.

        Raises SQLAlchemy's `TimeoutError`, as its pool does, and what asyncpg does to connect.
        """
        await self._take_room()
        self.used += 1
        try:
            driver = self._idle.pop() if self._idle else await self._connect()
            try:
                yield driver
            except BaseException:
                # Broken, or cancelled in the middle of something: nobody is given it again.
                driver.terminate()
                raise
            self._idle.append(driver)
        finally:
            self.used -= 1
            self._room.release()

    async def _take_room(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                await self._room.acquire()
        except TimeoutError:
            raise PoolTimeoutError from None

    async def close(self) -> None:
        """Close those that nobody has."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(driver.close(timeout=_CLOSE_TIMEOUT_S) for driver in idle), return_exceptions=True)
