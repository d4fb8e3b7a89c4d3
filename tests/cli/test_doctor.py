import json
from typing import Any

from tests.servers import Kafka
from tests.world import World


def findings(world: World, *arguments: str, exit_code: int) -> dict[str, Any]:
    """The findings by what they are of."""
    result = world.run("doctor", *arguments, "--output", "json")
    assert result.exit_code == exit_code, result.output
    return {finding["what"]: finding for finding in json.loads(result.stdout)["findings"]}


def test_all_is_well(real_kafka: Kafka, world: World) -> None:
    found = findings(world, exit_code=0)
    assert {name: finding["state"] for name, finding in found.items() if name != "topics"} == dict.fromkeys(
        ("settings", "broker", "store", "workers", "logs"), "ok"
    )
    assert found["workers"]["text"].startswith("1 in the group")


def test_the_table_for_a_person(world: World) -> None:
    printed = world.run("doctor").stdout
    assert "settings" in printed
    assert "answers" in printed


def test_wrong_settings(apart: World) -> None:
    result = apart.run("doctor", "--output", "json", TIDEMARK_PARTITIONS="0", TIDEMARK_BROKERS="nowhere")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["findings"]) == 2


def test_no_broker(apart: World) -> None:
    result = apart.run("doctor", "--brokers", "127.0.0.1:1", "--output", "json", TIDEMARK_STARTUP_TIMEOUT_S="1")
    assert result.exit_code == 3
    assert "TIDEMARK_BROKERS" in result.stdout


def test_nothing_done_yet(real_kafka: Kafka, apart: World) -> None:
    found = findings(apart, exit_code=2)
    assert "tidemark topics create" in found["topics"]["text"]
    assert (found["store"]["state"], found["workers"]["state"]) == ("note", "note")


def test_a_store_that_does_not_answer(real_kafka: Kafka, apart: World) -> None:
    assert apart.run("topics", "create").exit_code == 0
    found = findings(apart, "--store", "postgresql://nobody@127.0.0.1:1/nothing", exit_code=3)
    assert "TIDEMARK_STORE" in found["store"]["text"]


def test_a_new_store_for_an_old_log(real_kafka: Kafka, world: World, sqlite_url: str) -> None:
    assert world.run("migrate", "up", "--store", sqlite_url).exit_code == 0
    found = findings(world, "--store", sqlite_url, exit_code=1)
    assert "--rebuild" in found["logs"]["text"]


def test_a_store_in_memory_is_worth_a_note(world: World) -> None:
    assert findings(world, "--store", "memory:", exit_code=0)["store"]["state"] == "note"
