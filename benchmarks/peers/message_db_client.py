"""Message DB's SQL functions, called by asyncpg: `… URL FOLDER SECONDS`; prints JSON.

FOLDER has the SQL files of its package, which are installed first. All streams are of one category, as those of one
kind of entity are.
"""

import asyncio
import sys
import time
from pathlib import Path
from uuid import uuid4

import asyncpg
import uvloop

from benchmarks.peers.work import (
    CLIENTS,
    DATA,
    EVENT,
    LONG_STREAM,
    LONG_STREAMS,
    PAGE,
    READ_FEED,
    READ_STREAM,
    WAITING,
    places,
    tell,
    whole,
)

# What its `install.sh` runs by psql, in this order; it also grants rights, which nobody needs here, and makes the
# extension pgcrypto, of which it wants a function that PostgreSQL has had of its own since version 13.
_FOLDERS = ("schema", "tables", "types", "functions", "indexes")
_FIRST = ("message-store-version.sql", "hash-64.sql", "acquire-lock.sql", "category.sql", "is-category.sql", "id.sql")
_WRITE = "SELECT message_store.write_message($1, $2, $3, $4::jsonb, NULL, $5)"
_STREAM = "SELECT * FROM message_store.get_stream_messages($1, 0, $2)"
_CATEGORY = "SELECT * FROM message_store.get_category_messages('order', $1, $2)"
_TEXT = DATA.decode()


async def _install(pool: asyncpg.Pool, folder: Path) -> None:
    for name in _FOLDERS:
        files = sorted((folder / name).glob("*.sql"), key=lambda file: (file.name not in _FIRST, file.name))
        for file in files:
            await pool.execute(file.read_text())


async def _append(connection: asyncpg.Connection, stream: str, version: int) -> None:
    # It counts from 0, and a stream that is not there has -1.
    await connection.fetchval(_WRITE, str(uuid4()), stream, EVENT, _TEXT, version - 2)


async def _client(pool: asyncpg.Pool, client: int, clients: int, until: float) -> int:
    async with pool.acquire() as connection:
        for done, (stream, version) in enumerate(places(client, clients)):
            if time.perf_counter() >= until:
                return done
            await _append(connection, f"order-{clients}x{stream:04}", version)
    raise AssertionError("there is always a next place")


async def _fill(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        for stream in range(LONG_STREAMS):
            async with connection.transaction():
                for version in range(1, LONG_STREAM + 1):
                    await _append(connection, f"order-long{stream}", version)


async def _feed(pool: asyncpg.Pool) -> int:
    following = read = 0
    while page := await pool.fetch(_CATEGORY, following, PAGE):
        following, read = page[-1]["global_position"] + 1, read + whole(row["data"].encode() for row in page)
    return read


async def main() -> None:
    url, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    settings = {"search_path": "message_store,public"}
    async with asyncpg.create_pool(url, min_size=1, max_size=16, server_settings=settings) as pool:
        await _install(pool, folder)
        told: dict[str, float] = {}
        for kind in WAITING:
            begin, clients = time.perf_counter(), CLIENTS[kind]
            done = await asyncio.gather(*(_client(pool, client, clients, begin + seconds) for client in range(clients)))
            told[kind] = sum(done) / (time.perf_counter() - begin)
        await _fill(pool)
        begin, read = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            read += whole(row["data"].encode() for row in await pool.fetch(_STREAM, "order-long0", LONG_STREAM))
        told[READ_STREAM] = read / (time.perf_counter() - begin)
        begin, read = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            read += await _feed(pool)
        told[READ_FEED] = read / (time.perf_counter() - begin)
    tell(told)


if __name__ == "__main__":
    uvloop.run(main())
