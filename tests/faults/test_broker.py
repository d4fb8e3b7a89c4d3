"""Faults of the broker: killed, held, away for a while, and its connections slow, held and cut."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.proxy import Proxy
from tests.faults.trial import FEWER, REPEATS, SESSION_MS, Trial
from tests.servers import Broker, CannotRun, free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150 + 60 * REPEATS)]


class ProxiedBroker(Broker):
    """Its clients are told to come through `proxy_port`."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy_port = free_port()

    def _spawn(self, log: int) -> "subprocess.Popen[bytes]":
        told = f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.proxy_port}"
        command = [*self._java, "kafka.Kafka", str(self._config), "--override", told]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)


@pytest.fixture(scope="module")
def broker() -> Iterator[ProxiedBroker]:
    try:
        broker = ProxiedBroker()
    except CannotRun as reason:
        pytest.skip(f"needs a real Kafka broker: {reason}")
    with broker:
        yield broker


@pytest.fixture
async def proxy(broker: ProxiedBroker) -> AsyncIterator[Proxy]:
    async with Proxy(broker.port, broker.proxy_port) as proxy:
        yield proxy


@pytest.fixture
async def trial(proxy: Proxy, store_url: str, new_trial: NewTrial) -> Trial:
    return await new_trial(f"127.0.0.1:{proxy.port}", store_url)


async def test_killed_and_started_again(trial: Trial, broker: ProxiedBroker) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await trial.answers(20)
    await trial.holds()


async def test_away_for_longer_than_the_session(trial: Trial, proxy: Proxy) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            await proxy.close()
            await asyncio.sleep(2 * SESSION_MS / 1000)
            await proxy.open()
            await trial.answers(20)
    await trial.holds()


async def test_held_for_longer_than_the_session(trial: Trial, broker: ProxiedBroker) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            broker.pause()
            await asyncio.sleep(2 * SESSION_MS / 1000)
            broker.resume()
            await trial.answers(20)
    await trial.holds()


async def test_slow_held_and_cut_connections(trial: Trial, proxy: Proxy) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            proxy.delay_s = 0.1
            await trial.answers(10)
            proxy.delay_s = 0.0
            for _ in range(5):
                proxy.cut()
                await trial.answers(10)
            proxy.hold()
            await asyncio.sleep(SESSION_MS / 2000)
            proxy.release()
            await trial.answers(10)
    await trial.holds()
