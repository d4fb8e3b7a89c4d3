"""An aiokafka consumer without a group, on the simulated broker: what `feed.find` and `rebuild` look at topics with."""

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import TopicPartition

from tests.records import SomeRecord
from tests.simulation.broker import BrokerClient


class SimulatedConsumer:
    """Takes aiokafka's options, and among them as `client` the way to the broker."""

    def __init__(self, *, client: BrokerClient, **_: Any) -> None:
        self._client = client
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await self._client.ask(lambda: None)

    async def stop(self) -> None:
        self._positions.clear()

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._client.ask(lambda: {place: self._client.broker.begin(*place) for place in places})

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._client.ask(lambda: {place: self._client.broker.end(*place) for place in places})

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places, 0)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[SomeRecord]]:
        """The next few records of each place; what is fetched of markers only moves the position."""
        broker, begins = self._client.broker, {place: self._positions[place] for place in places}

        def effect() -> dict[TopicPartition, tuple[int, list[SomeRecord]]]:
            fetched = {}
            for place, begin in begins.items():
                end = min(begin + self._client.fetch_records, broker.end(place.topic, place.partition))
                fetched[place] = end, broker.read(place.topic, place.partition, begin, end)
            return fetched

        fetched = await self._client.ask(effect)
        self._positions |= {place: end for place, (end, _) in fetched.items()}
        return {place: records for place, (_, records) in fetched.items() if records}
