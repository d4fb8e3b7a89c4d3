"""Looks, again and again, at where the logs, the broker and the store are: for the probes and for the metrics.

A log that is behind and does not move, while store and broker answer and nothing is being tried again, is stuck: no
retry mends that, so the liveness probe says so and the worker is started anew.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog
from aiokafka.errors import KafkaError
from msgspec import Struct

from processor.balance import Loads
from processor.errors import SchemaMismatch, StoreUnreachable
from processor.kafka.ownership import LogStatus, Standing
from processor.kafka.slices import Fetched
from processor.messages import Log
from processor.store import Store, Usage
from processor.telemetry.reading import LogReading, Reading

logger = structlog.get_logger(__name__)

_LOOK_EVERY_S = 2.0
_ANSWER_TIMEOUT_S = 4.0
_Place = tuple[int, int, int, int, int]


class Owner(Protocol):
    """Who knows where the logs stand (`Ownership`)."""

    @property
    def statuses(self) -> Mapping[Log, LogStatus]:
        """Of the assigned logs."""
        ...

    @property
    def loads(self) -> Loads:
        """What comes in on them; is told where they end."""
        ...

    def standings(self) -> dict[Log, Standing]:
        """Of the logs that run; may be called on any thread."""
        ...


class _Still(Struct):
    """Where a log was when it moved last, and when that was."""

    place: _Place
    since_s: float


class Watch:
    """What was found when it was looked last. `faults` grows with everything that excuses a log for standing still.

    stall_timeout_s: after how long a log that does not move is stuck; 0 for never.
    """

    def __init__(
        self,
        store: Store,
        owner: Owner,
        fetched: Callable[[Sequence[Log]], Awaitable[dict[Log, Fetched]]],
        *,
        faults: Callable[[], int],
        stall_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store_fault = "not asked yet"
        self.stuck: list[Log] = []
        self._store = store
        self._owner = owner
        self._ask_fetched = fetched
        self._faults = faults
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._usage: Usage | None = None
        self._fetched: Mapping[Log, Fetched] = {}
        self._faults_seen = 0
        self._still: dict[Log, _Still] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Ask store and broker, and see who has moved."""
        standings = self._owner.standings()
        (self._usage, self.store_fault), fetched = await asyncio.gather(
            self._examine(), self._ask(list(standings))
        )  # fmt: skip
        self._fetched = fetched or {}
        if fetched is not None:
            self._owner.loads.note({log: of_log.end for log, of_log in fetched.items()}, self._clock())
        excused = self._usage is None or fetched is None or self._faults() != self._faults_seen
        self._faults_seen = self._faults()
        self._see_who_moved(standings, excused=excused)

    async def _examine(self) -> tuple[Usage | None, str]:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await self._store.examine(), ""
        except TimeoutError:
            return None, "no answer in time"
        except (StoreUnreachable, SchemaMismatch) as error:
            return None, str(error)

    async def _ask(self, logs: Sequence[Log]) -> dict[Log, Fetched] | None:
        """None where the broker does not answer. While no log runs, there may be no consumer to ask."""
        if not logs:
            return {}
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await self._ask_fetched(logs)
        except (KafkaError, TimeoutError):
            return None

    def _see_who_moved(self, standings: Mapping[Log, Standing], *, excused: bool) -> None:
        now_s = self._clock()
        still: dict[Log, _Still] = {}
        for log, standing in standings.items():
            place = _place(standing, self._fetched.get(log))
            before = self._still.get(log)
            has_moved = before is None or before.place != place
            if excused or has_moved or not _is_behind(standing, self._fetched.get(log)):
                before = _Still(place, now_s)
            assert before is not None
            still[log] = before
        stuck = [
            log for log, one in still.items() if self._stall_timeout_s and now_s - one.since_s >= self._stall_timeout_s
        ]
        for log in stuck:
            if log not in self.stuck:
                logger.error("the log does not move, though nothing is in its way", log=str(log))
        self._still, self.stuck = still, stuck

    def reading(self) -> Reading:
        """For the metrics; may be called on any thread."""
        fetched = self._fetched
        now_s = time.time()
        states = dict.fromkeys(("claiming", "running", "stopped"), 0)
        for status in list(self._owner.statuses.values()):
            states[status.state] += 1
        logs = [_reading(log, standing, fetched.get(log), now_s) for log, standing in self._owner.standings().items()]
        return Reading(states, logs, self._usage)


def _place(standing: Standing, fetched: Fetched | None) -> _Place:
    return (
        standing.checkpoint.next_offset,
        standing.read_offset,
        standing.acknowledged_offset,
        standing.acknowledged_position,
        fetched.position if fetched else -1,
    )


def _is_behind(standing: Standing, fetched: Fetched | None) -> bool:
    """Whether something waits: on the broker, on its way from the consumer, for a cycle, or for the publisher."""
    if fetched is None:
        return False
    return (
        fetched.position < fetched.end
        or standing.read_offset < fetched.handed
        or standing.checkpoint.next_offset < standing.read_offset
        # What was decided behind the last record is no command, and is not read again to be acknowledged.
        or standing.acknowledged_offset < min(standing.checkpoint.next_offset, standing.read_offset)
        or standing.acknowledged_position < standing.checkpoint.next_position - 1
    )


def _lag(standing: Standing, fetched: Fetched) -> int:
    # By the consumer's position, which passes what is no command: a transaction's markers, records that were compacted.
    return max(0, fetched.end - fetched.position) + max(0, fetched.handed - standing.checkpoint.next_offset)


def _reading(log: Log, standing: Standing, fetched: Fetched | None, now_s: float) -> LogReading:
    checkpoint = standing.checkpoint
    lag = _lag(standing, fetched) if fetched is not None else None
    watermark = checkpoint.next_position - 1
    return LogReading(
        log=log,
        epoch=checkpoint.epoch,
        watermark=watermark,
        lag=lag,
        behind_s=max(0.0, now_s - checkpoint.log_time_ms / 1000) if lag and checkpoint.log_time_ms else 0.0,
        feed_backlog=max(0, watermark - standing.acknowledged_position),
        reply_backlog=max(0, checkpoint.next_offset - standing.acknowledged_offset),
    )
