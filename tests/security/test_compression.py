"""A batch that is small on the wire and huge when unpacked."""

import cramjam
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from processor.kafka.topics import create_topics
from processor.names import TopicNames
from processor.settings import Settings
from tests.servers import Kafka

_BOMB_BYTES = 4 * 1024 * 1024  # four times what a topic takes, and little for a broker with a small heap


async def test_a_broker_that_unpacks_refuses_what_is_huge_inside(real_kafka: Kafka, topic_prefix: str) -> None:
    """What `docs/security.md` says of `compression.type=uncompressed`; without it, the broker takes the batch."""
    settings = Settings(brokers=[real_kafka.bootstrap], topic_prefix=topic_prefix, partitions=1)
    await create_topics(settings)
    topic = TopicNames.of(topic_prefix, "default").commands
    assert len(cramjam.zstd.compress(bytes(_BOMB_BYTES))) < 10_000
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.brokers,
        compression_type="zstd",
        max_batch_size=2 * _BOMB_BYTES,
        max_request_size=2 * _BOMB_BYTES,
    )
    await producer.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    try:
        await producer.send_and_wait(topic, bytes(_BOMB_BYTES), partition=0)
        unpacking = {"compression.type": "uncompressed"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=unpacking)])
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, bytes(_BOMB_BYTES), partition=0)
    finally:
        await producer.stop()
        await admin.close()
