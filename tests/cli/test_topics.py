import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from processor.kafka.topics import create_topics
from tests.servers import Kafka
from tests.world import World


@pytest.fixture(autouse=True)
def _needs_a_real_broker(real_kafka: Kafka) -> None:
    """The embedded one takes no requests that make or describe topics."""


def test_topics_are_made_and_then_are_there(apart: World, topic_prefix: str) -> None:
    made = apart.json("topics", "create")
    assert made["ok"]
    assert f"{topic_prefix}commands" in made["created"]
    assert len(made["created"]) == 5
    again = apart.json("topics", "create")
    assert (again["created"], len(again["existing"])) == ([], 5)
    assert apart.json("topics", "check") == {"ok": True, "findings": []}
    assert "all 5 topics" in apart.run("topics", "check").stdout


def test_missing_topics_are_told(apart: World, topic_prefix: str) -> None:
    result = apart.run("topics", "check")
    assert result.exit_code == 1
    assert f"The topic {topic_prefix}commands is missing: run `tidemark topics create`." in result.stdout


def test_topics_that_are_not_as_they_must_be_are_told(apart: World) -> None:
    assert apart.run("topics", "create").exit_code == 0
    result = apart.run("topics", "create", "--partitions", "8")
    assert result.exit_code == 1
    assert "has 4 partitions" in result.stdout


def test_topics_that_others_make_are_waited_for(apart: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(asyncio.run, create_topics(apart.settings))
        result = apart.run("topics", "wait", "--timeout", "60")
        made.result()
    assert (result.exit_code, result.stdout) == (0, "all 5 topics are there\n")


def test_topics_that_do_not_come_are_told(apart: World, topic_prefix: str) -> None:
    result = apart.run("topics", "wait", "--timeout", "0")
    assert result.exit_code == 2
    assert f"The topic {topic_prefix}commands is missing" in result.stderr
