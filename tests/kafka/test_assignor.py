"""What the group's leader makes of what the members tell."""

from collections.abc import Sequence

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.metadata import MetadataResponse_v0

from processor.kafka.assignor import LoadAssignor, LoadsByTopic

PARTITIONS = range(4)


@pytest.fixture
def cluster() -> ClusterMetadata:
    cluster = ClusterMetadata()
    partitions = [(0, partition, 0, [0], [0]) for partition in PARTITIONS]
    topics = [(0, topic, partitions) for topic in ("one", "two")]
    cluster.update_metadata(MetadataResponse_v0([(0, "127.0.0.1", 9092)], topics))
    return cluster


def member(loads: LoadsByTopic, topics: Sequence[str] = ("one",)) -> ConsumerProtocolMemberMetadata:
    """As it comes over the wire."""
    return ConsumerProtocolMemberMetadata.decode(LoadAssignor(lambda: loads).metadata(topics).encode())


def assigned(
    cluster: ClusterMetadata, **members: ConsumerProtocolMemberMetadata
) -> dict[str, list[tuple[str, list[int]]]]:
    given = LoadAssignor(dict).assign(cluster, members)
    return {name: ConsumerProtocolMemberAssignment.decode(own.encode()).assignment for name, own in given.items()}


def test_who_knows_nothing_shares_by_number(cluster: ClusterMetadata) -> None:
    assert assigned(cluster, a=member({}), b=member({})) == {"a": [("one", [0, 2])], "b": [("one", [1, 3])]}


def test_what_one_member_has_seen_counts_for_all(cluster: ClusterMetadata) -> None:
    seen = member({"one": {0: 10, 1: 10, 2: 1_000, 3: 10}})
    assert assigned(cluster, a=member({}), b=seen) == {"a": [("one", [2])], "b": [("one", [0, 1, 3])]}


def test_members_add_up_what_they_know(cluster: ClusterMetadata) -> None:
    """Of what both tell of, the larger one counts; a topic that nobody reads any more does not."""
    a, b = member({"one": {0: 10, 1: 90}}), member({"one": {1: 10, 2: 50, 3: 40}, "gone": {0: 9}})
    assert assigned(cluster, a=a, b=b) == {"a": [("one", [0, 1])], "b": [("one", [2, 3])]}


def test_a_member_gets_no_topic_that_it_does_not_read(cluster: ClusterMetadata) -> None:
    found = assigned(cluster, a=member({}, ["one", "two"]), b=member({}, ["two"]))
    assert found == {"a": [("one", [0, 1, 2, 3])], "b": [("two", [0, 1, 2, 3])]}


def test_a_member_that_can_not_be_understood_gets_its_share(cluster: ClusterMetadata) -> None:
    for said in (b"", b"\xc1", b"{}"):
        strange = ConsumerProtocolMemberMetadata(0, ["one"], said)
        assert assigned(cluster, a=member({}), b=strange)["b"] == [("one", [1, 3])]


def test_a_group_can_have_workers_that_give_out_in_turn(cluster: ClusterMetadata) -> None:
    """Those of earlier versions, whichever of them leads it."""
    assert LoadAssignor.name == RoundRobinPartitionAssignor.name
    before = ConsumerProtocolMemberMetadata.decode(RoundRobinPartitionAssignor.metadata(["one"]).encode())
    now = member({"one": {0: 1_000, 1: 10, 2: 10, 3: 10}})
    assert assigned(cluster, a=now, b=before) == {"a": [("one", [0])], "b": [("one", [1, 2, 3])]}
    in_turn = RoundRobinPartitionAssignor.assign(cluster, {"a": now, "b": before})
    assert {name: own.assignment for name, own in in_turn.items()} == {"a": [("one", [0, 2])], "b": [("one", [1, 3])]}


def test_a_topic_that_the_broker_does_not_have_is_nobodys(cluster: ClusterMetadata) -> None:
    assert assigned(cluster, a=member({}, ["none"])) == {"a": []}
