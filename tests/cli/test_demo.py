import json

import pytest

from tests.servers import Kafka
from tests.world import World


@pytest.fixture(scope="module")
def told() -> str:
    """What a person sees."""
    result = World("localhost:1", "unused.", "memory:").run("demo")
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    "line",
    [
        "Ada places an order           order-42  0        accepted as version 1",
        "no answer: it is sent again   order-42  1        duplicate of version 2",
        "support cancels, seeing v1    order-42  1        conflict: now at version 2",
        "Grace orders with a coupon    order-43  0        accepted as versions 1 to 2",
        "other payment, same event id  order-42  any      rejected: event_id_reused",
        '      3  OrderShipped     {"carrier":"DHL"}           2025-07-17T09:02:00Z',
        "        0         3  order-42        3  OrderShipped",
        "…  ok",
    ],
)
def test_the_story_shows_each_outcome_the_stream_the_feed_and_the_proof(told: str, line: str) -> None:
    assert line in told


def test_it_fits_a_terminal(told: str) -> None:
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 100


def test_on_a_real_broker_as_json(real_kafka: Kafka, apart: World) -> None:
    result = apart.run("demo", "--broker", real_kafka.bootstrap, "--output", "json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["ok"]
    assert [outcome["outcome"] for outcome in document["outcomes"]] == [
        *("accepted", "accepted", "duplicate", "conflict", "accepted", "accepted", "rejected", "accepted"),
    ]
    assert [event["version"] for event in document["stream"]] == [1, 2, 3]
    assert len(document["feed"]) == 6
