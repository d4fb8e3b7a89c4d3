"""How the group gives out logs: by the load that their owners have seen (`balance.spread`).

Each worker tells, as it joins, what came in lately on the logs that it owns; the group's leader spreads them by that.
What nobody tells of, as of one that has crashed, counts as an average log until the group meets again.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec
from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from processor.balance import spread

LoadsByTopic = dict[str, dict[int, int]]
"""By topic and partition."""

_VERSION = 0
_told: msgspec.msgpack.Decoder[LoadsByTopic] = msgspec.msgpack.Decoder(LoadsByTopic)


class LoadAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Spreads partitions by `loads`, which says what this worker has seen of its own."""

    # As in earlier versions, which gave out logs in turn: a group only takes members that have a name in common. While
    # they share a group, as in a rolling upgrade, it is the leader's version that decides.
    name = "roundrobin"

    def __init__(self, loads: Callable[[], LoadsByTopic]) -> None:
        self._loads = loads

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker tells the leader."""
        return ConsumerProtocolMemberMetadata(_VERSION, list(topics), msgspec.msgpack.encode(self._loads()))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """As the leader: what each worker gets."""
        topics = {member: frozenset(metadata.subscription) for member, metadata in members.items()}
        loads: dict[TopicPartition, int | None] = {
            TopicPartition(topic, partition): None
            for topic in frozenset().union(*topics.values())
            for partition in cluster.partitions_for_topic(topic) or ()
        }
        for metadata in members.values():
            for place, load in _told_by(metadata):
                if place in loads:
                    # Two can tell of one that has moved a moment ago.
                    loads[place] = max(load, loads[place] or 0)
        given = spread(loads, members, lambda member, place: place.topic in topics[member])
        return {member: _assignment(places) for member, places in given.items()}

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is to be kept."""


def _told_by(metadata: ConsumerProtocolMemberMetadata) -> Iterable[tuple[TopicPartition, int]]:
    """The loads that a member tells of; none where they can't be read, which is no reason not to give out logs."""
    try:
        told = _told.decode(metadata.user_data or b"\x80")
    except msgspec.DecodeError:
        return
    for topic, of_topic in told.items():
        for partition, load in of_topic.items():
            yield TopicPartition(topic, partition), load


def _assignment(places: Iterable[TopicPartition]) -> ConsumerProtocolMemberAssignment:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(places):
        by_topic.setdefault(topic, []).append(partition)
    return ConsumerProtocolMemberAssignment(_VERSION, list(by_topic.items()), b"")
