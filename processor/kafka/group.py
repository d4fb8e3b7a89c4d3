"""The consumer group of the workers, from outside."""

import asyncio
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata

from processor.balance import Group, Member
from processor.kafka.connection import client_options, stop_consumer
from processor.kafka.ends import logs_by_place
from processor.messages import Log
from processor.settings import Settings

_PAUSE_S = 0.1
# A broker that is asked for its first group makes the topic for groups; one that takes a group over reads it first.
_NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


async def describe_group(settings: Settings) -> Group:
    """The group of the workers; of what they own, the configured tenants' logs. Raises aiokafka's errors."""
    deadline_s = time.monotonic() + settings.startup_timeout_s
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        while True:
            try:
                return await _described(admin, settings)
            except _NOT_YET:
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(_PAUSE_S)
    finally:
        await admin.close()


async def _described(admin: AIOKafkaAdminClient, settings: Settings) -> Group:
    [response] = await admin.describe_consumer_groups([settings.group])
    [(error_code, _, state, _, _, members, *_)] = response.groups
    if error_code:
        raise for_code(error_code)
    logs = logs_by_place(settings)
    return Group(state.lower(), [_member(settings, logs, *member) for member in members])


def _member(
    settings: Settings,
    logs: Mapping[TopicPartition, Log],
    member_id: str,
    client_id: str,
    host: str,
    metadata: bytes,
    assignment: bytes,
) -> Member:
    # A worker's client id is its group instance id, where it has one. Before a member is told, it has no assignment.
    instance = client_id if client_id != settings.group else None
    places = ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions() if assignment else []
    owned = sorted(logs[place] for place in places if place in logs)
    topics = set(ConsumerProtocol.METADATA.decode(metadata).subscription) if metadata else set()
    tenants = frozenset(log.tenant for place, log in logs.items() if place.topic in topics)
    return Member(member_id, instance, host.lstrip("/"), owned, tenants)


async def set_group_offsets(settings: Settings, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the committed offsets of a group without members. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(offsets))
        await consumer.commit({place: OffsetAndMetadata(offset, "") for place, offset in offsets.items()})
    finally:
        await stop_consumer(consumer)
