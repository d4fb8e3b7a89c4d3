"""The topics that clients name for their replies: any of them may be missing, full, or forbidden.

They have a producer of their own, which gives up. That of feed and standing topics never does: what a topic can't take
would be sent again for ever.
"""

import asyncio
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from processor.kafka.outgoing import Headers
from processor.partition import partition_of
from processor.replies import ReplyAddress

logger = structlog.get_logger(__name__)

_TIMEOUT_S = 5.0
# Below the other, so that the broker's own reason comes first.
_REQUEST_TIMEOUT_MS = 4_000
_REST_S = 30.0


class ReplyTopics:
    """Sends to clients' own topics. One that can't be written holds nothing up: its clients have the standing topic.

    It is left alone for a while, so that not each command waits for it again. The producer starts with the first reply.
    """

    def __init__(self, options: dict[str, Any], *, max_request_size: int) -> None:
        self._options = dict(
            options, acks="all", max_request_size=max_request_size, request_timeout_ms=_REQUEST_TIMEOUT_MS
        )
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._resting: dict[str, tuple[float, str]] = {}

    @property
    def unwritable(self) -> dict[str, str]:
        """The topics that are left alone at the moment, and why."""
        now = asyncio.get_running_loop().time()
        return {topic: why for topic, (until, why) in self._resting.items() if until > now}

    async def send(self, address: ReplyAddress, key: bytes | None, value: bytes, headers: Headers) -> bool:
        """Send one reply, or say why it can't be sent; returns whether it is. Never raises aiokafka's errors."""
        assert address.topic is not None
        if self._rests(address.topic):
            return False
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self.send_once(address.topic, address.partition, key, value, headers)
        except UnknownTopicOrPartitionError:
            self._leave_alone(address.topic, "it does not exist")
        except TimeoutError:
            self._leave_alone(address.topic, f"no answer in {_TIMEOUT_S:g} s")
        except KafkaError as error:
            self._leave_alone(address.topic, repr(error))
        else:
            return True
        return False

    def _rests(self, topic: str) -> bool:
        until, _ = self._resting.get(topic, (0.0, ""))
        return until > asyncio.get_running_loop().time()

    def _leave_alone(self, topic: str, why: str) -> None:
        # Others that were under way fail with it: it is said once.
        if self._rests(topic):
            return
        logger.warning(
            "a reply topic can't be written, left alone for a while: its clients have the standing topics",
            topic=topic, error=why, rest_s=_REST_S,
        )  # fmt: skip
        self._resting = {other: rest for other, rest in self._resting.items() if self._rests(other)}
        self._resting[topic] = asyncio.get_running_loop().time() + _REST_S, why

    async def send_once(
        self, topic: str, wanted: int | None, key: bytes | None, value: bytes, headers: Headers
    ) -> None:
        """Send one reply to the partition that is wanted, or else the key's. Raises aiokafka's errors."""
        producer = await self._started()
        partitions = await producer.partitions_for(topic)
        chosen = sorted(partitions)[partition_of(key or b"", len(partitions))]
        partition = wanted if wanted in partitions else chosen
        await producer.send_and_wait(topic, value, key, partition=partition, headers=headers)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._options)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def stop(self) -> None:
        """Let go of the connections."""
        if self._producer is not None:
            await self._producer.stop()
