"""Faults of the broker: killed, held, away for a while, and its connections slow, held and cut."""

import asyncio

import pytest

from tests.faults.proxy import Proxy
from tests.faults.trial import FEWER, REPEATS, SESSION_MS, Trial
from tests.servers import ProxiedBroker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150 + 60 * REPEATS)]


@pytest.fixture
async def trial(proxied_trial: Trial) -> Trial:
    return proxied_trial


async def test_killed_and_started_again(trial: Trial, proxied_broker: ProxiedBroker) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            await asyncio.to_thread(proxied_broker.kill)
            await asyncio.to_thread(proxied_broker.start)
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


async def test_held_for_longer_than_the_session(trial: Trial, proxied_broker: ProxiedBroker) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            proxied_broker.pause()
            await asyncio.sleep(2 * SESSION_MS / 1000)
            proxied_broker.resume()
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
