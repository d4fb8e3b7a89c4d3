"""Where the logs end."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from processor.errors import BrokerUnreachable
from processor.kafka.connection import client_options, stop_consumer
from processor.kafka.topics import require_topics
from processor.messages import Log
from processor.names import TopicNames
from processor.settings import Settings


def logs_by_place(settings: Settings) -> dict[TopicPartition, Log]:
    """The partition of a commands topic that each log of the configured tenants is."""
    return {
        TopicPartition(TopicNames.of(settings.topic_prefix, tenant).commands, partition): Log(tenant, partition)
        for tenant in settings.tenants
        for partition in range(settings.partitions)
    }


async def log_ends(settings: Settings) -> dict[Log, int]:
    """The offset that the next command of each log will have. Raises `TopicMismatch` and `BrokerUnreachable`."""
    await require_topics(settings)
    logs = logs_by_place(settings)
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        ends = await consumer.end_offsets(list(logs))
    except KafkaError as error:
        what = str(error) or type(error).__name__
        raise BrokerUnreachable(f"The ends of the commands topics can't be told: {what}.") from None
    finally:
        await stop_consumer(consumer)
    return {logs[place]: end for place, end in ends.items()}
