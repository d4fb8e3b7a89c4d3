"""The consumer group of the workers, from outside."""

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from processor.kafka.connection import client_options
from processor.settings import Settings


async def group_members(settings: Settings) -> tuple[int, str]:
    """How many workers are in the group, and its state in Kafka's word.

    Raises aiokafka's errors, and `ValueError` where the answer can't be read.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        [response] = await admin.describe_consumer_groups([settings.group])
        [(error_code, _, state, _, _, members, *_)] = response.groups
    finally:
        await admin.close()
    if error_code:
        raise ValueError(f"error {error_code}")
    return len(members), state.lower()


async def set_group_offsets(settings: Settings, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the committed offsets of a group without members. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(offsets))
        await consumer.commit({place: OffsetAndMetadata(offset, "") for place, offset in offsets.items()})
    finally:
        await consumer.stop()
