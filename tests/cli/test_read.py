import asyncio
import json

from msgspec import Raw

from processor.client import Client, Command
from processor.messages import NewEvent
from tests.world import World


def test_a_stream_is_printed_for_a_person(world: World) -> None:
    printed = world.run("read", "order-42").stdout.splitlines()
    assert len(printed) == 3
    assert printed[0].startswith("2025-07-17T09:00:00.000Z")
    assert printed[0].endswith('order-42 v1  OrderPlaced  {"by":"Ada","total":42.50}')


def test_a_stream_as_json_has_the_data_as_it_came(world: World) -> None:
    result = world.run("read", "order-42", "--output", "json")
    assert '"data":{"by":"Ada","total":42.50}' in result.stdout
    events = world.lines("read", "order-42")
    assert [(event["version"], event["type"]) for event in events] == [
        (1, "OrderPlaced"), (2, "PaymentReceived"), (3, "OrderShipped"),
    ]  # fmt: skip
    assert events[2]["metadata"] == {"user": "u-7"}
    assert len(events[0]["hash"]) == 64


def test_a_part_of_a_stream(world: World) -> None:
    assert [event["version"] for event in world.lines("read", "order-42", "--after", "1")] == [2, 3]
    assert [event["version"] for event in world.lines("read", "order-42", "--after", "1", "--limit", "1")] == [2]
    assert world.lines("read", "order-42", "--after", "3") == []


def test_a_stream_that_is_not_there(world: World) -> None:
    result = world.run("read", "order-4711")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no stream 'order-4711'" in result.stderr


def test_data_of_several_lines_stays_on_one(world: World, topic_prefix: str) -> None:
    # JSON text with a line break between tokens can't stand in a line of input: a client sends it.
    async def send() -> None:
        async with Client(world.settings) as client:
            await client.send(Command(topic_prefix, [NewEvent("Tested", data=Raw(b'{\n"a":\r\n"b"}'))]))

    asyncio.run(send())
    [line] = world.run("read", topic_prefix, "--output", "json").stdout.splitlines()
    assert json.loads(line)["data"] == {"a": "b"}


def test_the_streams_are_listed(world: World) -> None:
    found = {entry["stream"]: entry["version"] for entry in world.lines("streams")}
    assert (found["order-42"], found["order-43"]) == (3, 3)
    assert "v3        order-42" in world.run("streams").stdout
    assert len(world.lines("streams", "--limit", "1")) == 1


def test_a_store_in_memory_is_made_again_from_the_log(world: World) -> None:
    assert world.lines("read", "order-42", TIDEMARK_STORE="memory:") == world.lines("read", "order-42")


def test_without_a_store_it_says_what_to_do(apart: World) -> None:
    result = apart.run("streams")
    assert result.exit_code == 2
    assert "tidemark migrate up" in result.stderr
