"""The real input, through a real broker, a worker process that is killed in the middle, and each store in turn.

`make test-history`; the file is named by TIDEMARK_HISTORY, or looked for beside the repository.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from processor.codec import decode_outcome
from processor.messages import Accepted, Duplicate, Outcome
from processor.names import TopicNames
from processor.stores.migrate import upgrade
from tests.servers import Kafka

pytestmark = [pytest.mark.history, pytest.mark.timeout(600)]

INPUT = Path(
    os.environ.get("TIDEMARK_HISTORY") or Path(__file__).parents[3] / "shared" / "data" / "source-history.jsonl.gz"
)
COUNTS = INPUT.with_name("source-history.counts.json")
PARTITIONS = 32
RESIDENT_BYTES = 300 * 1024 * 1024
KILL_AFTER = 20_000

chains: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def counts() -> dict[str, Any]:
    """What must come out."""
    if not INPUT.exists():
        pytest.skip(f"the real input is not there: set TIDEMARK_HISTORY to {INPUT.name}")
    found: dict[str, Any] = json.loads(COUNTS.read_text())
    return found


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def environment(request: pytest.FixtureRequest, real_kafka: Kafka, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """The settings of every process of a run, as an operator would give them; topics and store are made."""
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/tidemark.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres_url")
    if request.param == "postgres":
        upgrade(url, partitions=PARTITIONS)
    return {
        **os.environ,
        "TIDEMARK_BROKERS": real_kafka.bootstrap,
        "TIDEMARK_STORE": url,
        "TIDEMARK_TOPIC_PREFIX": topic_prefix,
        "TIDEMARK_GROUP": f"{topic_prefix}group",
        "TIDEMARK_PARTITIONS": str(PARTITIONS),
        "TIDEMARK_HTTP": "127.0.0.1:0",
        "TIDEMARK_SESSION_TIMEOUT_MS": "6000",
        "TIDEMARK_LOG_LEVEL": "warning",
    }


async def run(environment: dict[str, str], *arguments: str) -> Any:
    """A command that has to end well; what it printed, as JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "processor.cli", *arguments, "--output", "json",
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return json.loads(printed)


class WorkerProcess:
    """A worker, and the most memory it was seen with."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.resident_bytes = 0

    async def watch(self) -> None:
        """Look at its memory until it ends."""
        watched = psutil.Process(self.process.pid)
        while self.process.returncode is None:
            self.resident_bytes = max(self.resident_bytes, watched.memory_info().rss)
            await asyncio.sleep(0.2)


@asynccontextmanager
async def worker(environment: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    """A worker process; ended cleanly, unless the test has killed it."""
    running = WorkerProcess(
        await asyncio.create_subprocess_exec(sys.executable, "-m", "processor.cli", "worker", env=environment)
    )
    watching = asyncio.create_task(running.watch())
    try:
        yield running
    finally:
        watching.cancel()
        if running.process.returncode is None:
            running.process.send_signal(signal.SIGTERM)
        await running.process.wait()


async def replies(environment: dict[str, str], names: TopicNames, at_least: int = 0) -> dict[tuple[int, int], Outcome]:
    """All that is on the standing topics; with `at_least`, once so many commands are answered. Replies must agree."""
    consumer = AIOKafkaConsumer(
        names.results, names.conflicts, bootstrap_servers=environment["TIDEMARK_BROKERS"], auto_offset_reset="earliest"
    )
    await consumer.start()
    answers: dict[tuple[int, int], Outcome] = {}
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        while len(answers) < at_least or any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    outcome = decode_outcome(record.value)
                    place = outcome.partition, outcome.offset
                    assert answers.setdefault(place, outcome) == outcome, "replies to one command disagree"
    finally:
        await consumer.stop()
    return answers


async def fed(environment: dict[str, str], names: TopicNames) -> tuple[Counter[str], Counter[str]]:
    """Events per stream and per type on the feed, positions checked: each partition's are 1, 2, 3 … at first sight."""
    consumer = AIOKafkaConsumer(bootstrap_servers=environment["TIDEMARK_BROKERS"], auto_offset_reset="earliest")
    await consumer.start()
    partitions = [TopicPartition(names.events, partition) for partition in range(PARTITIONS)]
    consumer.assign(partitions)
    seen = dict.fromkeys(partitions, 0)
    streams: Counter[str] = Counter()
    types: Counter[str] = Counter()
    try:
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    headers = dict(record.headers)
                    position = int(headers["ce_position"])
                    assert position <= seen[tp] + 1, "the feed has a hole"
                    if position == seen[tp] + 1:
                        seen[tp] = position
                        streams[headers["ce_subject"].decode()] += 1
                        types[headers["ce_type"].decode()] += 1
    finally:
        await consumer.stop()
    return streams, types


async def test_everything_is_accepted_once_and_known_afterwards(
    environment: dict[str, str], counts: dict[str, Any], topic_prefix: str, request: pytest.FixtureRequest
) -> None:
    names = TopicNames.of(topic_prefix, "default")
    total: int = counts["commands"]
    await run(environment, "topics", "create")

    async with worker(environment) as first:
        sending = asyncio.create_task(run(environment, "send", str(INPUT)))
        await replies(environment, names, at_least=KILL_AFTER)
        first.process.kill()
        await first.process.wait()
    async with worker(environment) as second:
        assert (await sending)["accepted"] == total
        assert (await run(environment, "send", str(INPUT)))["duplicate"] == total
        assert second.resident_bytes < RESIDENT_BYTES

    answers = await replies(environment, names)
    assert len(answers) == 2 * total
    accepted = {
        event: outcome for outcome in answers.values() if isinstance(outcome, Accepted) for event in outcome.event_ids
    }
    repeated = [outcome for outcome in answers.values() if isinstance(outcome, Duplicate)]
    assert (len(accepted), len(repeated)) == (total, total)
    for outcome in repeated:
        original = accepted[outcome.event_ids[0]]
        assert (outcome.first_version, outcome.first_position) == (original.first_version, original.first_position)

    streams, types = await fed(environment, names)
    assert len(streams) == counts["streams"]
    assert types == counts["events_per_type"]
    assert {name: streams[name] for name in counts["longest_streams"]} == counts["longest_streams"]

    verified = await run(environment, "verify")
    assert verified["ok"]
    assert (verified["events"], verified["streams"]) == (total, counts["streams"])
    store = request.node.callspec.params["environment"]
    chains[store] = [partition["chain"] for partition in verified["partitions"]]
    assert len(set(chains[store])) == PARTITIONS
    assert chains[store] == next(iter(chains.values())), "two stores came to different chains"
