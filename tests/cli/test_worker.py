import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from processor.kafka.batches import NATIVE
from tests.servers import Kafka
from tests.world import SAMPLE, World


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(real_kafka: Kafka, apart: World, tmp_path: Path, number: signal.Signals) -> None:
    assert apart.run("topics", "create").exit_code == 0
    worker = apart.start("worker", TIDEMARK_LOG_FORMAT="json")
    assert apart.run("send", SAMPLE).exit_code == 1
    worker.send_signal(number)
    printed, logged = worker.communicate(timeout=30)
    assert (worker.returncode, printed) == (0, "")
    entries = [json.loads(line) for line in logged.splitlines()]
    assert entries[0]["event"] == "the worker starts"
    assert entries[0]["native"] is NATIVE
    assert entries[-1]["event"] == "the worker has ended"
    assert {"time", "level", "logger"} <= entries[0].keys()
    # What the group was told is what the store says: nothing is answered twice after a clean end.
    with closing(sqlite3.connect(tmp_path / "tidemark.db")) as store:
        left = store.execute("SELECT sum(next_offset - acknowledged_offset) FROM checkpoints").fetchone()
    assert left == (0,)


def test_without_topics_it_says_what_to_do(real_kafka: Kafka, apart: World) -> None:
    result = apart.run("worker")
    assert result.exit_code == 2
    assert "tidemark topics create" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_broker_it_gives_up(apart: World) -> None:
    result = apart.run("worker", "--brokers", "127.0.0.1:1", TIDEMARK_STARTUP_TIMEOUT_S="1")
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr


def chains(world: World) -> list[str]:
    """The last hash of each partition; empty where there is no store yet."""
    result = world.run("verify", "--no-feed", "--output", "json")
    return [row["chain"] for row in json.loads(result.stdout)["partitions"]] if result.exit_code == 0 else []


def test_a_new_store_is_brought_up_when_asked(
    real_kafka: Kafka, world: World, sqlite_url: str, topic_prefix: str
) -> None:
    other = World(real_kafka.bootstrap, world.environment["TIDEMARK_TOPIC_PREFIX"], sqlite_url)
    other.environment["TIDEMARK_GROUP"] = f"{topic_prefix}other"
    worker = other.start("worker", "--rebuild")
    try:
        while chains(other) != chains(world):
            assert worker.poll() is None
            time.sleep(0.05)
        # Nothing was published twice: the feed is still what the first worker made of it.
        assert world.json("verify")["ok"]
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
