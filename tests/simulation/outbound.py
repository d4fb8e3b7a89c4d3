"""A worker's producer, without the idempotence of a real one: what was sent again may be there twice."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from processor.kafka.outgoing import Headers, Outgoing
from processor.kafka.publish import Begun, Outbound
from processor.kafka.reply_topics import ReplyTopics
from tests.simulation.broker import Broker
from tests.simulation.chance import Chance
from tests.simulation.link import Link


class SimulatedOutbound(Outbound):
    """The real one's trying again, over a simulated network."""

    def __init__(self, broker: Broker, link: Link, chance: Chance) -> None:
        super().__init__({}, compression=None, max_record_bytes=1_000_000)
        self.reply_topics = _SimulatedReplyTopics(self)
        self._broker = broker
        self._link = link
        self._chance = chance

    def begin(self, topic: str, partition: int, records: Iterable[Outgoing]) -> Begun:
        chunk = [*islice(records, self._chance.random.randint(1, self._chance.profile.chunk_records))]
        return Begun(len(chunk), asyncio.ensure_future(self.append(topic, partition, chunk)))

    async def append(self, topic: str, partition: int, chunk: Sequence[Outgoing]) -> None:
        """Have the broker take records, in one of the ways in which that can end."""
        chance, profile = self._chance, self._chance.profile
        await self._link.call(
            lambda: self._broker.append(topic, partition, chunk),
            KafkaConnectionError if chance.broker_away else RequestTimedOutError,
            away=chance.broker_away,
            lost=profile.send_lost,
            unknown=profile.send_unknown,
            late=profile.send_late,
        )


class _SimulatedReplyTopics(ReplyTopics):
    def __init__(self, outbound: SimulatedOutbound) -> None:
        super().__init__({}, max_request_size=1_000_000)
        self._outbound = outbound

    async def send_once(
        self, topic: str, wanted: int | None, key: bytes | None, value: bytes, headers: Headers
    ) -> None:
        await self._outbound.append(topic, wanted or 0, [(key, value, headers, None)])
