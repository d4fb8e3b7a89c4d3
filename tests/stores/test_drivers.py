"""The writer's connections to PostgreSQL, on a real server."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from processor.errors import StoreUnreachable
from processor.stores import drivers
from processor.stores.drivers import Drivers
from processor.stores.postgres import faults

MOST = 2


@pytest.fixture
async def made(postgres_server: str) -> AsyncIterator[Drivers]:
    """Two at the most."""
    made = Drivers(lambda: asyncpg.connect(postgres_server), MOST)
    yield made
    await made.close()


async def number_of(driver: asyncpg.Connection) -> int:
    """The server's own number of the connection."""
    number: int = await driver.fetchval("SELECT pg_backend_pid()")
    return number


async def one_number(made: Drivers) -> int:
    """Of one of the connections."""
    async with made.one() as driver:
        return await number_of(driver)


async def fail_on(made: Drivers, taken: list[asyncpg.Connection]) -> None:
    """Go wrong on a connection."""
    async with made.one() as driver:
        taken.append(driver)
        await driver.execute("SELECT * FROM nothing_of_the_kind")


async def test_a_connection_is_kept_and_given_out_again(made: Drivers) -> None:
    async with made.one() as driver:
        first = await number_of(driver)
    async with made.one() as driver, made.one() as other:
        assert await number_of(driver) == first
        assert await number_of(other) != first
        assert (made.used, made.most) == (2, MOST)
    assert made.used == 0


async def test_after_a_fault_it_is_not_given_out_again(made: Drivers) -> None:
    first = await one_number(made)
    taken: list[asyncpg.Connection] = []
    with pytest.raises(asyncpg.UndefinedTableError):
        await fail_on(made, taken)
    assert taken[0].is_closed()
    assert await one_number(made) != first


async def test_one_that_was_cancelled_in_the_middle_of_something_is_not_given_out_again(made: Drivers) -> None:
    async def sleep() -> None:
        async with made.one() as driver:
            taken.set_result(driver)
            await driver.execute("SELECT pg_sleep(60)")

    taken = asyncio.get_running_loop().create_future()
    sleeping = asyncio.create_task(sleep())
    driver = await taken
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert driver.is_closed() and made.used == 0


async def test_who_finds_none_waits_for_one(made: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with made.one() as driver:
        first = await number_of(driver)
        async with made.one():
            waiting = asyncio.create_task(one_number(made))
            await asyncio.sleep(0)
            monkeypatch.setattr(drivers, "TAKE_TIMEOUT_S", 0.01)
            with pytest.raises(StoreUnreachable, match="here: all connections are taken"), faults("here"):
                async with made.one():
                    pass
            assert not waiting.done()
        assert await waiting != first
    assert made.used == 0


async def test_there_is_room_again_after_one_could_not_be_made(postgres_server: str) -> None:
    refusing = True

    async def connect() -> asyncpg.Connection:
        if refusing:
            raise OSError("refused")
        return await asyncpg.connect(postgres_server)

    made = Drivers(connect, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            async with made.one():
                pass
    refusing = False
    async with made.one() as driver:
        assert await number_of(driver)
    await made.close()
    assert driver.is_closed()
