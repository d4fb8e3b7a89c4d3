"""Faults of PostgreSQL: connections cut and used up, the server killed, full, slow, failed over, and its rows held."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from processor.client import Client, Event
from tests.faults.conftest import NewTrial
from tests.faults.disk import fill, remount, small_disk
from tests.faults.proxy import Proxy
from tests.faults.test_worker import MANY_EVENTS
from tests.faults.trial import FEWER, REPEATS, TERMINATE, Trial, execute, until
from tests.servers import Kafka, Postgres, Standby

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]

DOES_NOT_ANSWER = "the store does not answer"
TOO_MANY = "too many clients"


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    """In front of the database of `postgres_trial`."""
    async with Proxy(urlsplit(postgres_url).port or 5432) as proxy:
        yield proxy


def through(proxy: Proxy, url: str) -> str:
    """The same database, through the proxy."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()


@pytest.mark.parametrize("delivered", [True, False], ids=["answer-lost", "statement-lost"])
@pytest.mark.parametrize("events", [3, MANY_EVENTS], ids=["one-statement", "transaction"])
async def test_the_connection_breaks_in_the_middle_of_a_commit(
    postgres_trial: Trial, proxy: Proxy, events: int, *, delivered: bool
) -> None:
    """How it ended is read back: nothing is decided twice, and nothing that was committed is decided anew."""
    trial = postgres_trial
    # What only a commit sends: an event's type as a parameter, or the end of a transaction.
    commit = b"Counted" if events == 3 else b"COMMIT"
    async with trial.load(most_events=events, clients=4):
        worker = await trial.worker(TIDEMARK_STORE=through(proxy, trial.settings.store))
        for repeat in trial.times(3 * REPEATS):
            proxy.lose(commit, delivered=delivered)
            await until(lambda: proxy.cuts == repeat + 1)  # noqa: B023 - awaited before the next one
            await trial.answers(5)
        assert "the store does not answer" in worker.said
    await trial.holds()


async def test_the_server_ends_the_connection_within_a_transaction(postgres_trial: Trial) -> None:
    trial = postgres_trial
    async with trial.load(most_events=MANY_EVENTS, clients=4):
        for repeat in trial.times(FEWER):
            worker = await trial.worker(f"within_commit=delay:5@{1 + repeat % 5}")
            await trial.terminate("state = 'idle in transaction'")
            await worker.says("the store does not answer")
            await trial.answers(5)
            assert await worker.end() == 0
        await trial.worker()
        await trial.answers(5)
    await trial.holds()


async def test_all_connections_are_ended_again_and_again(postgres_trial: Trial) -> None:
    trial = postgres_trial
    async with trial.load():
        await trial.worker()
        for _ in trial.times(5 * REPEATS):
            await trial.terminate("true")
            await trial.answers(5)
    await trial.holds()


async def test_slow_and_cut_connections(postgres_trial: Trial, proxy: Proxy) -> None:
    trial = postgres_trial
    async with trial.load():
        await trial.worker(TIDEMARK_STORE=through(proxy, trial.settings.store))
        for _ in trial.times(FEWER):
            proxy.delay_s = 0.1
            await trial.answers(10)
            proxy.delay_s = 0.0
            proxy.cut()
            await trial.answers(10)
            await proxy.close()
            await trial.workers[0].says("the store does not answer")
            await proxy.open()
            await trial.answers(10)
    await trial.holds()


async def test_a_checkpoint_is_held_by_someone_else(postgres_trial: Trial) -> None:
    """The log whose row is held waits, and the others go on."""
    trial = postgres_trial
    held = trial.partition_of("held")
    streams = [name for n in range(40) if trial.partition_of(name := f"s-{n}") != held][:9]
    async with trial.load(streams=streams), Client(trial.settings) as client:
        await trial.worker()
        await client.append("held", [Event("Begun")])
        connection = await asyncpg.connect(trial.settings.store)
        try:
            for _ in trial.times(FEWER):
                async with connection.transaction():
                    await connection.execute("SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE", held)
                    waiting = trial.start(client.append("held", [Event("Waited")]))
                    await trial.answers(50)
                    assert not waiting.done()
                await waiting
        finally:
            await connection.close()
    await trial.holds()


# --- a server of its own, to be ended


@pytest.fixture
def server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.mark.parametrize("ended", ["killed", "restarted"])
async def test_the_server_is_ended_and_comes_back(
    real_kafka: Kafka, new_trial: NewTrial, server: Postgres, ended: str
) -> None:
    trial = await new_trial(real_kafka.bootstrap, server.url())
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(10)
            (server.kill if ended == "killed" else server.stop)()
            await worker.says("the store does not answer", times=repeat + 1)
            server.start()
            await trial.answers(10)
    await trial.holds()


@pytest.fixture
def full_data(server: Postgres) -> Iterator[Path]:
    """A disk of 20 MB, for a database's files; the write-ahead log is elsewhere."""
    with small_disk(server.folder / "disk", 20, server.user) as disk:
        yield disk


async def test_the_disk_of_the_data_is_full(
    real_kafka: Kafka, new_trial: NewTrial, server: Postgres, full_data: Path
) -> None:
    disk = full_data
    await execute(server.url(), f"CREATE TABLESPACE small LOCATION '{disk}'")
    await execute(server.url(), "CREATE DATABASE small TABLESPACE small TEMPLATE template0")
    trial = await new_trial(real_kafka.bootstrap, server.url("small"))
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(10)
            fill(disk / "filler")
            await worker.says("No space left on device", times=repeat + 1)
            assert worker.said.count(DOES_NOT_ANSWER) > repeat
            (disk / "filler").unlink()
            remount(disk, f"size={24 + 4 * repeat}m")
            await trial.answers(10)
    await trial.holds()


@pytest.fixture
def crowded() -> Iterator[tuple[Postgres, Path]]:
    """A server, and the disk of 128 MB that has its data and its write-ahead log."""
    server = Postgres()
    try:
        with small_disk(server.folder / "data", 128, server.user) as disk:
            server.start()
            yield server, disk
            server.kill()
    finally:
        server.close()


async def test_the_disk_of_the_write_ahead_log_is_full(
    real_kafka: Kafka, new_trial: NewTrial, crowded: tuple[Postgres, Path]
) -> None:
    """The server ends itself, and is started again when there is room."""
    server, disk = crowded
    trial = await new_trial(real_kafka.bootstrap, server.url())
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(10)
            fill(disk / "filler")
            await panics(server, times=repeat + 1)
            await worker.says(DOES_NOT_ANSWER, times=repeat + 1)
            (disk / "filler").unlink()
            server.kill()
            server.start()
            await trial.answers(10)
    await trial.holds()


async def panics(server: Postgres, times: int) -> None:
    """Have a server use up the segments of its log that it has, with nothing else to be written, until it gives up."""
    async with asyncio.timeout(30):
        while server.log.read_text().count("PANIC:") < times:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await execute(server.url(), "SELECT pg_logical_emit_message(false, 'full', repeat('x', 1000000))")


async def test_others_have_all_connections(real_kafka: Kafka, new_trial: NewTrial) -> None:
    """At the start and while it runs: a worker that starts says so and ends, one that runs waits."""
    with Postgres(["max_connections=20"]) as server:
        trial = await new_trial(real_kafka.bootstrap, server.url())
        async with trial.load():
            for _ in trial.times(FEWER):
                async with AsyncExitStack() as held:
                    await take_connections(server, held)
                    refused = await trial.worker(ready=False)
                    assert await refused.ends() == 3
                    assert TOO_MANY in refused.said and "Traceback" not in refused.said, refused.said
                    code, printed = await trial.command("doctor")
                    assert code != 0 and TOO_MANY in printed
                worker = await trial.worker()
                await trial.answers(10)
                async with AsyncExitStack() as held:
                    one = await held.enter_async_context(connected(server))
                    while TOO_MANY not in worker.said:
                        await take_connections(server, held)
                        await one.execute(TERMINATE)
                    assert DOES_NOT_ANSWER in worker.said
                await trial.answers(10)
                assert await worker.end() == 0
            await trial.worker()
        await trial.holds()


@asynccontextmanager
async def connected(server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url())
    try:
        yield connection
    finally:
        await connection.close()


async def take_connections(server: Postgres, held: AsyncExitStack) -> None:
    """Take all connections that a server still gives, until `held` is closed."""
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            await held.enter_async_context(connected(server))


@pytest.mark.parametrize("rebuilding", [False, True], ids=["told-to-rebuild", "rebuilding"])
async def test_failed_over_to_a_copy_that_lacks_the_last_commits(
    real_kafka: Kafka, new_trial: NewTrial, server: Postgres, *, rebuilding: bool
) -> None:
    """Broker and feed are ahead: what is missing is decided again to the same, on request, or it stands still."""
    arguments = ["--rebuild"] if rebuilding else []
    async with AsyncExitStack() as servers, Proxy(server.port) as proxy:
        trial = await new_trial(real_kafka.bootstrap, through(proxy, server.url()))
        primary = server
        async with trial.load():
            worker = await trial.worker("", *arguments)
            for repeat in trial.times(FEWER):
                async with Proxy(primary.port) as followed:
                    copy = Standby(followed.port)
                    servers.callback(copy.close)
                    await asyncio.to_thread(copy.start)
                    await trial.answers(20)
                    await followed.close()
                    await trial.answers(20)
                primary.kill()
                await execute(copy.url(), "SELECT pg_promote()")
                primary, proxy.to_port = copy, copy.port
                if rebuilding:
                    await worker.says("another owner has claimed the log", times=repeat + 1)
                else:
                    await worker.says("the log stands still")
                    assert "restored from an older backup" in worker.said
                    code, printed = await trial.command("doctor")
                    assert code != 0 and "--rebuild" in printed, printed
                    await worker.end()
                    worker = await trial.worker("", "--rebuild")
                    await trial.answers(20)
                    await worker.end()
                    worker = await trial.worker()
                await trial.answers(20)
        await trial.holds()


async def test_failed_over_to_a_copy_that_lacks_an_acknowledgement_alone(
    real_kafka: Kafka, new_trial: NewTrial, server: Postgres
) -> None:
    """No commit is missing, so nobody notices, and no command comes any more: it is written down again all the same."""
    async with AsyncExitStack() as servers, Proxy(server.port) as proxy, Proxy(server.port) as followed:
        trial = await new_trial(real_kafka.bootstrap, through(proxy, server.url()))
        copy = Standby(followed.port)
        servers.callback(copy.close)
        await asyncio.to_thread(copy.start)
        await trial.worker()
        async with trial.load():
            await trial.answers(50)
        await followed.close()
        await trial.healed()
        server.kill()
        await execute(copy.url(), "SELECT pg_promote()")
        proxy.to_port = copy.port
        await trial.holds()
