"""The broker: topics and the group's offsets, and how a worker reaches them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from processor.fit import Found
from processor.kafka import feed
from processor.kafka.outgoing import Outgoing
from processor.messages import Log
from processor.names import TopicNames
from tests.records import SomeRecord
from tests.simulation.chance import Chance
from tests.simulation.checker import Checker
from tests.simulation.link import Link

NAMES = TopicNames.of("tidemark.", "default")
REPLY_TOPIC = "answers"

_T = TypeVar("_T")
_FIND_WITHIN_S = 30.0


class Broker:
    """Topics. Records are appended to a partition all at once; an offset without a record is a marker (None)."""

    def __init__(self, logs: Sequence[Log], checker: Checker) -> None:
        self.logs = logs
        self.group_offsets: dict[Log, int] = {}
        self._records: dict[tuple[str, int], list[SomeRecord | None]] = {}
        self._begins: dict[tuple[str, int], int] = {}
        self._checker = checker

    def append(self, topic: str, partition: int, records: Sequence[Outgoing | None]) -> None:
        """Add records to the end of a partition."""
        there = self._records.setdefault((topic, partition), [])
        fresh: list[SomeRecord] = []
        for outgoing in records:
            if outgoing is None:
                there.append(None)
                continue
            key, value, headers, timestamp = outgoing
            known = [(name, text or b"") for name, text in headers]
            record = SomeRecord(len(there), value, key, timestamp, known)
            there.append(record)
            fresh.append(record)
        self._checker.on_append(topic, partition, fresh)

    def end(self, topic: str, partition: int) -> int:
        """The offset of the next record."""
        return len(self._records.get((topic, partition), ()))

    def begin(self, topic: str, partition: int) -> int:
        """The offset of the first record there is."""
        return self._begins.get((topic, partition), 0)

    def delete(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below an offset, as retention does."""
        there = self._records.get((topic, partition), [])
        there[:before] = [None] * len(there[:before])
        self._begins[topic, partition] = max(before, self.begin(topic, partition))

    def read(self, topic: str, partition: int, begin: int = 0, end: int | None = None) -> list[SomeRecord]:
        """The records from an offset up to, not including, another."""
        there = self._records.get((topic, partition), [])
        return [record for record in there[begin:end] if record is not None]

    def commit(self, offsets: Mapping[Log, int]) -> None:
        """Commit offsets to the group."""
        self._checker.on_group_commit(offsets)
        self.group_offsets.update(offsets)


class BrokerClient:
    """The broker as `Ownership` sees it, over the network."""

    def __init__(self, broker: Broker, link: Link, chance: Chance) -> None:
        self.broker = broker
        self._link = link
        self._chance = chance

    @property
    def fetch_records(self) -> int:
        """How many offsets a fetch covers at the most."""
        return self._chance.profile.fetch_records

    async def find(self, logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        """The real one, on a simulated consumer."""
        return await feed.find({"client": self}, {"default": NAMES}, logs, group_offsets, _FIND_WITHIN_S)

    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        """The group's committed offsets."""
        return await self.ask(lambda: {log: self.broker.group_offsets.get(log) for log in logs})

    async def commit(self, offsets: Mapping[Log, int], is_valid: Callable[[], bool]) -> None:
        """Commit offsets to the group, if the generation is still the group's."""

        def effect() -> None:
            if is_valid():
                self.broker.commit(offsets)

        try:
            await self.ask(effect)
        except KafkaError:
            return

    async def read(self, wanted: Mapping[Log, tuple[int, int]]) -> dict[Log, tuple[int, list[SomeRecord]] | None]:
        """Fetch from begin to end at the most: where the next fetch begins, and the records, of logs that have some.

        None for a log that begins behind what is asked for.
        """

        def effect() -> dict[Log, tuple[int, list[SomeRecord]] | None]:
            fetched: dict[Log, tuple[int, list[SomeRecord]] | None] = {}
            for log, (begin, most) in wanted.items():
                if begin < self.broker.begin(NAMES.commands, log.partition):
                    fetched[log] = None
                    continue
                end = min(most, self.broker.end(NAMES.commands, log.partition))
                if end > begin:
                    fetched[log] = end, self.broker.read(NAMES.commands, log.partition, begin, end)
            return fetched

        return await self.ask(effect)

    async def ask(self, effect: Callable[[], _T]) -> _T:
        """Ask the broker for something; raises aiokafka's errors when the fates say so."""
        chance = self._chance
        away = chance.broker_away
        error = KafkaConnectionError if away else RequestTimedOutError
        return await self._link.call(effect, error, away=away, lost=chance.profile.broker_lost)
