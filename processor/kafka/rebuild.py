"""A store out of the log alone: every command decided again, from the first to the last there is now.

What a store holds is a function of the log, so a reader of a `memory:` store can have it without asking a worker. No
group is joined and nothing is published.
"""

from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from processor.codec import decode
from processor.decide import decide
from processor.errors import BrokerUnreachable, Misfit
from processor.kafka.connection import client_options, stop_consumer
from processor.kafka.ends import logs_by_place
from processor.kafka.topics import require_topics
from processor.lookup import wanted
from processor.messages import Checkpoint, Log, Record
from processor.settings import Settings
from processor.store import Committed, Store

_FETCH_BYTES = 256 * 1024
_AT_ONCE = 2_000
_WAIT_MS = 1_000


async def rebuild(settings: Settings, store: Store, on_progress: Callable[[int, int], None]) -> None:
    """Fill an empty store with what the logs of all tenants lead to, up to where they end now.

    `on_progress` is told how many offsets are done, and of how many. Raises `BrokerUnreachable`, `TopicMismatch`, and
    `Misfit` where the beginning of a log is gone.
    """
    await require_topics(settings)
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=_FETCH_BYTES,
        max_poll_records=_AT_ONCE,
    )
    try:
        await consumer.start()
        await _Rebuild(settings, store).run(consumer, on_progress)
    except KafkaError as error:
        raise BrokerUnreachable(f"The commands could not be read: {error or type(error).__name__}.") from None
    finally:
        await stop_consumer(consumer)


class _Rebuild:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._rules = settings.rules
        self._limits = settings.limits
        self._store = store
        self._logs = logs_by_place(settings)
        self._checkpoints: dict[Log, Checkpoint] = {}

    async def run(self, consumer: AIOKafkaConsumer, on_progress: Callable[[int, int], None]) -> None:
        places = list(self._logs)
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place, begin in begins.items():
            if begin > 0:
                raise Misfit(f"{self._logs[place]}: the log begins at offset {begin}: what came before was deleted.")
        self._checkpoints = await self._store.claim(list(self._logs.values()))
        left = {place for place in places if ends[place] > 0}
        consumer.assign(list(left))
        for place in left:
            consumer.seek(place, 0)
        done = 0
        while left:
            fetched = await consumer.getmany(*left, timeout_ms=_WAIT_MS)
            for place, records in fetched.items():
                fresh = [record for record in records if record.offset < ends[place]]
                await self._decide(self._logs[place], fresh)
                done += len(fresh)
            on_progress(done, sum(ends.values()))
            left = {place for place in left if await consumer.position(place) < ends[place]}

    async def _decide(self, log: Log, records: Sequence[Record]) -> None:
        if not records:
            return
        before = self._checkpoints[log]
        entries = [(record, decode(record.key, record.value, self._limits)) for record in records]
        views = await self._store.load({log: wanted(log, before.incarnation, entries, [])})
        plan = decide(self._rules, log, before, views[log], entries, records[-1].offset + 1)
        ended = await self._store.commit([plan])
        if ended[log] is not Committed.YES:
            raise Misfit(f"{log}: something else writes to the store that is being rebuilt.")
        self._checkpoints[log] = plan.after
