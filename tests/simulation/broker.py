"""The broker: topics and the group's offsets, and how a worker reaches them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from processor.fit import Found
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
_LOOK_BACK = 4


class Broker:
    """Topics. Records are appended to a partition all at once; an offset without a record is a marker (None)."""

    def __init__(self, logs: Sequence[Log], checker: Checker) -> None:
        self.logs = logs
        self.group_offsets: dict[Log, int] = {}
        self._records: dict[tuple[str, int], list[SomeRecord | None]] = {}
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

    def read(self, topic: str, partition: int, begin: int = 0, end: int | None = None) -> list[SomeRecord]:
        """The records from an offset up to, not including, another."""
        there = self._records.get((topic, partition), [])
        return [record for record in there[begin:end] if record is not None]

    def commit(self, offsets: Mapping[Log, int]) -> None:
        """Commit offsets to the group."""
        self._checker.on_group_commit(offsets)
        self.group_offsets.update(offsets)

    def feed_position(self, log: Log) -> int:
        """The highest position among the last few records of the feed, as `feed.find` looks for it."""
        last = self.read(NAMES.events, log.partition)[-_LOOK_BACK:]
        return max(map(position_of, last), default=0)


def position_of(record: SomeRecord) -> int:
    """The position that a record on the feed carries."""
    return int(next(value for name, value in record.headers if name == "ce_position"))


class BrokerClient:
    """The broker as `Ownership` sees it, over the network."""

    def __init__(self, broker: Broker, link: Link, chance: Chance) -> None:
        self._broker = broker
        self._link = link
        self._chance = chance

    async def find(self, logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        """As `feed.find`: the log's ends first, then the feed's."""
        broker = self._broker
        ends = await self._ask(lambda: {log: broker.end(NAMES.commands, log.partition) for log in logs})
        feeds = await self._ask(lambda: {log: broker.feed_position(log) for log in logs})
        return {log: Found(0, ends[log], group_offsets.get(log), feeds[log]) for log in logs}

    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        """The group's committed offsets."""
        return await self._ask(lambda: {log: self._broker.group_offsets.get(log) for log in logs})

    async def commit(self, offsets: Mapping[Log, int], is_valid: Callable[[], bool]) -> None:
        """Commit offsets to the group, if the generation is still the group's."""

        def effect() -> None:
            if is_valid():
                self._broker.commit(offsets)

        try:
            await self._ask(effect)
        except KafkaError:
            return

    async def read(self, wanted: Mapping[Log, tuple[int, int]]) -> dict[Log, tuple[int, list[SomeRecord]]]:
        """Fetch from begin to end at the most: where the next fetch begins, and the records, of logs that have some."""

        def effect() -> dict[Log, tuple[int, list[SomeRecord]]]:
            fetched = {}
            for log, (begin, most) in wanted.items():
                end = min(most, self._broker.end(NAMES.commands, log.partition))
                if end > begin:
                    fetched[log] = end, self._broker.read(NAMES.commands, log.partition, begin, end)
            return fetched

        return await self._ask(effect)

    async def _ask(self, effect: Callable[[], _T]) -> _T:
        chance = self._chance
        away = chance.broker_away
        error = KafkaConnectionError if away else RequestTimedOutError
        return await self._link.call(effect, error, away=away, lost=chance.profile.broker_lost)
