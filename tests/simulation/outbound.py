"""A worker's producer, without the idempotence of a real one: what was sent again may be there twice."""

import asyncio
from collections.abc import Sequence

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from processor.kafka.outgoing import Headers, Outgoing
from processor.kafka.publish import Outbound
from processor.replies import ReplyAddress
from tests.simulation.broker import Broker
from tests.simulation.chance import Chance
from tests.simulation.link import Link


class SimulatedOutbound(Outbound):
    """The real one's trying again, over a simulated network."""

    def __init__(self, broker: Broker, link: Link, chance: Chance) -> None:
        super().__init__({}, compression=None, max_record_bytes=1_000_000)
        self._broker = broker
        self._link = link
        self._chance = chance

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing], start: int = 0) -> int:
        chunk = records[start : start + self._chance.random.randint(1, self._chance.profile.chunk_records)]
        await self._append(topic, partition, chunk)
        return len(chunk)

    async def send_reply(self, address: ReplyAddress, key: bytes | None, value: bytes, headers: Headers) -> None:
        assert address.topic is not None
        async with asyncio.timeout(5.0):
            await self._append(address.topic, address.partition or 0, [(key, value, headers, None)])

    async def _append(self, topic: str, partition: int, chunk: Sequence[Outgoing]) -> None:
        chance, profile = self._chance, self._chance.profile
        await self._link.call(
            lambda: self._broker.append(topic, partition, chunk),
            KafkaConnectionError if chance.broker_away else RequestTimedOutError,
            away=chance.broker_away,
            lost=profile.send_lost,
            unknown=profile.send_unknown,
            late=profile.send_late,
        )
