"""Faults of PostgreSQL: connections cut around a commit, the server ended and killed, slow, and its rows held."""

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from processor.client import Client, Event
from tests.faults.conftest import NewTrial
from tests.faults.proxy import Proxy
from tests.faults.test_worker import MANY_EVENTS
from tests.faults.trial import FEWER, REPEATS, Trial, until
from tests.servers import Kafka, Postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]


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
