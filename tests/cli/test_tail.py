from tests.world import World


def positions(events: list[dict[str, int]], partition: int) -> list[int]:
    return [event["position"] for event in events if event["partition"] == partition]


def test_the_feed_from_the_start_has_each_event_once_in_order(world: World) -> None:
    events = world.lines("tail", "--from-start", "--no-follow")
    for partition in range(4):
        found = positions(events, partition)
        assert found == list(range(1, len(found) + 1))
    [placed] = [event for event in events if event["stream"] == "order-42" and event["version"] == 1]
    assert placed["data"] == {"by": "Ada", "total": 42.5}
    assert placed["time"] == "2025-07-17T09:00:00.000Z"


def test_the_feed_from_a_position_on(world: World) -> None:
    [partition] = {event["partition"] for event in world.lines("read", "order-42")}
    events = world.lines("tail", "--partition", str(partition), "--from", "2", "--count", "2")
    assert positions(events, partition) == [2, 3]
    assert len(events) == 2


def test_an_event_for_a_person(world: World) -> None:
    printed = world.run("tail", "--from-start", "--no-follow").stdout
    assert 'order-42 v1  OrderPlaced  {"by":"Ada","total":42.50}' in printed


def test_from_now_there_is_nothing_yet(world: World) -> None:
    assert world.lines("tail", "--no-follow") == []


def test_a_partition_that_is_none(world: World) -> None:
    result = world.run("tail", "--partition", "99")
    assert result.exit_code == 2
    assert "0 to 3" in result.stderr


def test_two_places_to_begin_are_wrong_usage(world: World) -> None:
    assert world.run("tail", "--from", "1", "--from-start").exit_code == 2
