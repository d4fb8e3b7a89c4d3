import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers import Kafka
from tests.world import SAMPLE, World, served


def test_what_was_written_is_found_sound(world: World) -> None:
    told = world.json("verify")
    assert told["ok"]
    assert [row["partition"] for row in told["partitions"]] == [0, 1, 2, 3]
    for row in told["partitions"]:
        assert row["feed"] == row["watermark"] == row["events"]
    assert "and the feed agrees" in world.run("verify").stdout


def test_a_store_in_memory_has_the_same_chains(world: World) -> None:
    rows = world.json("verify")["partitions"]
    assert [row["chain"] for row in rows] == [
        row["chain"] for row in world.json("verify", TIDEMARK_STORE="memory:")["partitions"]
    ]


@pytest.fixture
def copied(world: World, tmp_path: Path) -> Path:
    """A copy of the world's store, to be tampered with."""
    copy = tmp_path / "copy.db"
    path = world.environment["TIDEMARK_STORE"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as store, closing(sqlite3.connect(copy)) as target:
        store.backup(target)
    return copy


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE events SET data = X'7b7d' WHERE type = 'PaymentReceived'",
        "UPDATE events SET time_ms = time_ms + 1 WHERE type = 'PaymentReceived'",
        "DELETE FROM events WHERE type = 'OrderShipped'",
    ],
)
def test_tampering_is_found(world: World, copied: Path, tampering: str) -> None:
    with closing(sqlite3.connect(copied)) as store, store:
        assert store.execute(tampering).rowcount == 1
    result = world.run("verify", "--no-feed", "--store", f"sqlite:///{copied}")
    assert result.exit_code == 1
    assert "1 of 4 partitions are wrong" in result.stdout


def test_a_feed_with_something_else_on_it_is_found(kafka: Kafka, tmp_path: Path) -> None:
    with served(kafka, tmp_path) as world:
        assert world.run("send", SAMPLE).exit_code == 1
        with closing(sqlite3.connect(f"{tmp_path}/tidemark.db")) as store, store:
            assert store.execute("UPDATE events SET type = 'OrderLost' WHERE type = 'OrderShipped'").rowcount == 1
        result = world.run("verify")
        assert result.exit_code == 1
        assert "is another on the feed than in the store" in result.stdout
        assert world.run("verify", "--no-feed").exit_code == 1
