from tests.servers import Kafka
from tests.world import World, event_line


def test_events_streams_and_lag_are_counted(world: World) -> None:
    told = world.json("stats")
    assert [row["partition"] for row in told["partitions"]] == [0, 1, 2, 3]
    assert told["events"] == sum(row["events"] for row in told["partitions"]) >= 6
    assert told["lag"] == 0
    for row in told["partitions"]:
        assert row["watermark"] == row["events"]
        assert row["next_offset"] == row["end_offset"]


def test_the_table_for_a_person(world: World) -> None:
    printed = world.run("stats").stdout.splitlines()
    assert printed[0].split() == ["partition", "events", "streams", "watermark", "decided", "log", "end", "lag"]
    assert printed[-1].endswith("lag 0")


def test_commands_that_nobody_has_decided_are_the_lag(real_kafka: Kafka, apart: World) -> None:
    assert apart.run("topics", "create").exit_code == 0
    assert apart.run("migrate", "up").exit_code == 0
    assert apart.run("send", "-", "--no-wait", stdin=event_line("order-1")).exit_code == 0
    told = apart.json("stats")
    assert (told["lag"], told["events"]) == (1, 0)


def test_a_store_in_memory_counts_the_same(world: World) -> None:
    assert world.json("stats", TIDEMARK_STORE="memory:")["streams"] == world.json("stats")["streams"]
