"""Faults of the broker: killed, held, away, its connections slow, held and cut, topics that it lets nobody write."""

import asyncio
import json
import re
import shutil
import signal
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.names import TopicNames
from tests.faults.evidence import records_of
from tests.faults.proxy import Proxy
from tests.faults.trial import FEWER, OF_ONE_LOG, REPEATS, SESSION_MS, Trial, until
from tests.servers import ProxiedBroker, free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150 + 60 * REPEATS)]

QUICKLY_S = 10.0
TOO_SMALL = {"max.message.bytes": "50"}


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


@pytest.mark.parametrize("how", ["closed", "held"])
async def test_ended_while_it_is_away(trial: Trial, proxy: Proxy, how: str) -> None:
    """A worker that is told to end does so, with what it could not publish any more left to the next one."""
    async with trial.load(timeout_s=60.0):
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(20)
            if how == "held":
                proxy.hold()
            else:
                await proxy.close()
            assert await worker.end() == 0
            if how == "held":
                proxy.release()
            else:
                await proxy.open()
        await trial.worker()
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


async def test_the_coordinator_is_away_when_offsets_are_committed(trial: Trial, proxy: Proxy) -> None:
    async with trial.load():
        for repeat in trial.times(FEWER):
            worker = await trial.worker("before_offset_commit=pause@3", ready=False)
            await until(lambda worker=worker: worker.is_stopped)  # type: ignore[misc]
            await proxy.close()
            worker.send(signal.SIGCONT)
            # Shorter than the session, and longer.
            await asyncio.sleep(SESSION_MS / 1000 * (0.3 if repeat % 2 else 2))
            await proxy.open()
            await trial.answers(20)
            assert await worker.end() == 0
        await trial.worker()
    await trial.holds()


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_the_connection_breaks_while_offsets_are_committed(trial: Trial, proxy: Proxy, lost: str) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(REPEATS):
            await trial.answers(5)
            before = proxy.cuts
            proxy.lose(offset_commit(trial.settings.group), delivered=lost == "answer")
            await until(lambda before=before: proxy.cuts > before)  # type: ignore[misc]
        await trial.answers(20)
    await trial.holds()


def offset_commit(client_id: str) -> re.Pattern[bytes]:
    """The head of such a request: its number, a version, a correlation id, and the client's id."""
    name = client_id.encode()
    return re.compile(rb"\x00\x08\x00.{5}" + re.escape(len(name).to_bytes(2, "big") + name), re.DOTALL)


@pytest.mark.parametrize("why", ["too small", "deleted"])
async def test_a_reply_topic_that_cannot_be_written(trial: Trial, why: str) -> None:
    """Its clients have the standing topic; every other command, the feed and the other reply topics go on as before."""
    refused, taken = (f"{trial.settings.topic_prefix}{name}".replace(".", "-") for name in ("refused", "taken"))
    await make_topics(trial, NewTopic(refused, 1, 1, topic_configs=TOO_SMALL), NewTopic(taken, 1, 1))
    port = free_port()
    settings: dict[str, Any] = {"TIDEMARK_REPLY_TOPICS": f"{refused},{taken}", "TIDEMARK_HTTP": f"127.0.0.1:{port}"}
    async with trial.load():
        worker = await trial.worker("", **settings)
        if why == "deleted":
            # While the producer knows it: it was written to before.
            await configure(trial, refused, {"max.message.bytes": "1000000"})
            await ask(trial, "before", refused)
            await trial.answers(20)
            await delete_topic(trial, refused)
        for repeat in trial.times(FEWER):
            for topic in (refused, taken):
                await ask(trial, f"{topic}-{repeat}", topic)
            await trial.answers(20)
        await worker.says("a reply topic can't be written")
        assert worker.said.count("a reply topic can't be written") <= 1 + trial.tried
        status = await status_of(port)
        assert [found["topic"] for found in status["unwritable_reply_topics"]] == [refused]
        # Feed and standing topics are not slower for it: what is sent to the refused one is not in their way.
        began = asyncio.get_running_loop().time()
        await trial.answers(100)
        assert asyncio.get_running_loop().time() - began < QUICKLY_S
        assert await worker.end() == 0
        await trial.worker("", **settings)
    await trial.holds()
    assert len(await records_of(trial.settings, taken)) == trial.tried


async def test_a_feed_that_cannot_be_written_for_a_while(trial: Trial) -> None:
    """Logs go on to decide as far as their backlogs allow; nothing is lost, and the worker can be ended meanwhile."""
    feed = TopicNames.of(trial.settings.topic_prefix, "default").events
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(20)
            await configure(trial, feed, TOO_SMALL)
            await asyncio.sleep(SESSION_MS / 1000)
            if repeat % 2 == 0:
                assert "not published yet, trying again" in worker.said
                assert await worker.end() == 0
                worker = await trial.worker()
            await configure(trial, feed, {})
            await trial.answers(20)
    await trial.holds()


async def test_restored_from_an_older_copy(trial: Trial, proxied_broker: ProxiedBroker) -> None:
    """The store is newer than the log, which stands still; the feed gets back what it lacks."""
    for _ in trial.times(FEWER):
        async with trial.load():
            worker = await trial.worker()
            await trial.answers(20)
            await asyncio.to_thread(copy_data, proxied_broker, "data", "copy")
            await trial.answers(40)
        await trial.healed()
        await asyncio.to_thread(copy_data, proxied_broker, "copy", "data")
        await worker.says("the log stands still")
        assert "recover new-log" in worker.said
        code, printed = await trial.command("doctor")
        assert code != 0 and "has lost records" in printed
        assert await worker.end() == 0
        misfit = await trial.worker(ready=False)
        await misfit.says("has lost records")
        assert await misfit.end() == 0
        for choice in ("republish", "new-log"):
            code, printed = await trial.command("recover", choice)
            assert code == 0, printed
        async with trial.load():
            worker = await trial.worker()
            await trial.answers(20)
        await trial.holds(without=OF_ONE_LOG, from_log=False)
        await worker.end()


def copy_data(broker: ProxiedBroker, source: str, target: str) -> None:
    """Between the folders of a broker that is stopped meanwhile."""
    broker.stop()
    shutil.rmtree(broker.folder / target, ignore_errors=True)
    shutil.copytree(broker.folder / source, broker.folder / target)
    broker.start()


async def make_topics(trial: Trial, *topics: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=trial.settings.brokers)
    await admin.start()
    try:
        await admin.create_topics(list(topics))
    finally:
        await admin.close()


async def delete_topic(trial: Trial, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=trial.settings.brokers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def configure(trial: Trial, topic: str, configs: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=trial.settings.brokers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    finally:
        await admin.close()


async def status_of(port: int) -> Any:
    """What `/status` says."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/status") as answer:
        return await answer.json()


async def ask(trial: Trial, stream: str, reply_to: str) -> None:
    """A command whose client waits at a topic of its own."""
    names = TopicNames.of(trial.settings.topic_prefix, "default")
    value = json.dumps({"stream": stream, "events": [{"type": "Asked"}]}).encode()
    async with AIOKafkaProducer(bootstrap_servers=trial.settings.brokers) as producer:
        await producer.send_and_wait(
            names.commands,
            value,
            stream.encode(),
            trial.partition_of(stream),
            headers=[("reply_to", reply_to.encode())],
        )
