"""Two workers in one group, and what is to be seen of them."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Kafka
from tests.world import World, event_line

INSTANCE = "worker-b"


@pytest.fixture
def shared(real_kafka: Kafka, topic_prefix: str, postgres_url: str) -> World:
    """Topics and a store that several workers can have; none runs."""
    world = World(real_kafka.bootstrap, topic_prefix, postgres_url)
    world.create_topics(real_kafka)
    assert world.run("migrate", "up").exit_code == 0
    return world


@contextmanager
def worker(world: World, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as written:
        process = world.start("worker", stderr=written, **environment)
    try:
        while "owning logs" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def pair(shared: World, tmp_path: Path) -> Iterator[World]:
    """Two workers, the second one with a name of its own, and each owning two of the four partitions."""
    named = {"TIDEMARK_GROUP_INSTANCE_ID": INSTANCE}
    with worker(shared, tmp_path / "a.log"), worker(shared, tmp_path / "b.log", **named):
        yield shared


def test_who_owns_what(pair: World) -> None:
    for number in range(8):
        assert pair.run("send", "-", stdin=event_line(f"order-{number}")).exit_code == 0
    told = pair.json("nodes", "--seconds", "0.5")
    assert (told["ok"], told["state"], told["advice"]) == (True, "stable", [])
    assert {row["instance"] for row in told["workers"]} == {None, INSTANCE}
    assert [row["partitions"] for row in told["workers"]] == [2, 2]
    assert all(row["host"] == "127.0.0.1" for row in told["workers"])
    assert {row["worker"] for row in told["logs"]} == {row["worker"] for row in told["workers"]}
    assert sum(row["next_offset"] for row in told["logs"]) == 8
    assert all(row["epoch"] >= 1 and row["lag"] == 0 for row in told["logs"])


def test_the_tables_for_a_person(pair: World) -> None:
    printed = pair.run("nodes", "--seconds", "0.5").stdout.splitlines()
    assert printed[0].split()[:3] == ["worker", "host", "partitions"]
    assert printed[4].split()[:4] == ["partition", "owner", "epoch", "decided"]
    assert printed[-1].startswith("2 workers in the group")


def test_a_worker_that_stands_still(shared: World, tmp_path: Path) -> None:
    with worker(shared, tmp_path / "a.log", TIDEMARK_SESSION_TIMEOUT_MS="30000") as process:
        process.send_signal(signal.SIGSTOP)
        assert shared.run("send", "-", "--no-wait", stdin=event_line("order-1")).exit_code == 0
        result = shared.run("nodes", "--seconds", "0.5")
    assert result.exit_code == 1
    assert "wrong: Commands wait, and none was decided" in result.stdout


def test_no_worker(shared: World) -> None:
    result = shared.run("nodes", "--seconds", "0.1")
    assert result.exit_code == 1, result.output
    assert "start `tidemark worker`" in result.stdout


def test_no_broker(apart: World) -> None:
    assert apart.run("migrate", "up").exit_code == 0
    result = apart.run("nodes", "--brokers", "127.0.0.1:1", TIDEMARK_STARTUP_TIMEOUT_S="1")
    assert result.exit_code == 3, result.output


def test_a_store_in_memory_can_not_be_looked_at(apart: World) -> None:
    result = apart.run("nodes", "--store", "memory:")
    assert result.exit_code == 2
    assert "tidemark stats" in result.stderr
