"""Who owns which log: from Kafka's assignment, through the claim in the store, to the seek.

A log passes through: assigned → claimed (the store's epoch is ours) → checked (log and store fit) → sought → running.
It leaves by revocation, by being fenced or because the broker does not have what is next (claimed again after a pause,
if it is still assigned here), or because it does not fit the store (it stands still until an operator has chosen; the
others go on).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import structlog
from aiokafka.errors import KafkaConnectionError, KafkaError
from msgspec import Struct
from msgspec.structs import replace

from processor.balance import Loads
from processor.cycle import REFUSED_KEPT, Cycles, OwnedLog
from processor.errors import Misfit, StoreUnreachable
from processor.failpoints import FailPoint, reach
from processor.fit import Found, check_fit
from processor.kafka.publish import LogPublisher
from processor.messages import Checkpoint, Log
from processor.store import Store

logger = structlog.get_logger(__name__)

_RETRY_S = 1.0
_ACKNOWLEDGE_EVERY_S = 1.0
_LET_GO_S = 5.0
_AGAIN_EVERY = 10
_FORGET_EVERY = 10
_FORGET_AT_ONCE = 10_000
_NOTHING = (-1, -1)


class LogSource(Protocol):
    """Where the records of the logs come from: Kafka's consumer group."""

    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        """The offsets that are committed to the group."""
        ...

    async def seek(self, seeks: Mapping[Log, tuple[int, int]]) -> set[Log]:
        """Read on from (seek number, offset); returns the logs that are not assigned any more."""
        ...

    async def commit(self, offsets: Mapping[Log, int]) -> bool:
        """Commit offsets to the group. Never raises; returns whether it is done."""
        ...


class LogStatus(Struct):
    """What a log is at, for `doctor` and the health page."""

    state: Literal["claiming", "running", "stopped"]
    reason: str = ""


class Standing(Struct, frozen=True):
    """Where a log stands that runs: what is taken in, committed and acknowledged."""

    checkpoint: Checkpoint
    read_offset: int
    acknowledged_offset: int
    acknowledged_position: int


class _Running(Struct):
    owned: OwnedLog
    publisher: LogPublisher
    task: asyncio.Task[None]
    written: tuple[int, int] = _NOTHING

    @property
    def acknowledged(self) -> tuple[int, int]:
        """Up to which offset the replies, and up to which position the feed, are out."""
        return self.publisher.acknowledged_offset, self.publisher.acknowledged_position


class Ownership:
    """Keeps the cycles' logs in step with the assignment."""

    def __init__(
        self,
        store: Store,
        source: LogSource,
        find: Callable[[Sequence[Log], Mapping[Log, int | None]], Awaitable[dict[Log, Found]]],
        publisher: Callable[[Log, int, int], LogPublisher],
        *,
        partitions: int,
        retention_ms: int,
        rebuild: bool,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self.statuses: dict[Log, LogStatus] = {}
        self.joined = False
        self.loads = Loads()
        self.cycles: Cycles
        self._store = store
        self._source = source
        self._find = find
        self._publisher = publisher
        self._partitions = partitions
        self._retention_ms = retention_ms
        # The store is behind what was published, and is brought up from the log: on request, or as it is in memory.
        self._rebuilding = rebuild or not store.durable
        self._on_crash = on_crash
        self._running: dict[Log, _Running] = {}
        self._claims: set[asyncio.Task[None]] = set()
        self._seeks = 0
        self._closing = False

    def standings(self) -> dict[Log, Standing]:
        """Of the logs that run; may be called on any thread."""
        return {
            log: Standing(running.owned.checkpoint, running.owned.read_offset, *running.acknowledged)
            for log, running in list(self._running.items())
        }

    # --- from the assignment

    def assigned(self, logs: Iterable[Log]) -> None:
        """Begin to claim; returns at once."""
        if self._closing:
            # The group does not know yet that this worker ends.
            return
        self.joined = True
        fresh = sorted(log for log in logs if log not in self.statuses)
        for log in fresh:
            if log.partition >= self._partitions:
                self.statuses[log] = LogStatus("claiming")
                more = f"{log}: the commands topic has more than the store's {self._partitions} partitions."
                self.stop(log, Misfit(f"{more} Make it anew with as many, or set up a new store for the new number."))
        self._start_claim([log for log in fresh if log.partition < self._partitions])

    async def revoked(self, logs: Iterable[Log]) -> None:
        """Let go of logs: no more cycles with them, what is committed is published as far as that goes quickly."""
        gone = [log for log in logs if self.statuses.pop(log, None) is not None]
        if not gone:
            return
        await reach(FailPoint.ON_REVOCATION)
        await self.cycles.remove(gone, _LET_GO_S)
        leaving = {log: running for log in gone if (running := self._running.pop(log, None)) is not None}
        deadline = asyncio.get_running_loop().time() + _LET_GO_S
        while asyncio.get_running_loop().time() < deadline:
            if all(running.publisher.is_idle for running in leaving.values()):
                break
            await asyncio.sleep(0.01)
        await self._acknowledge(leaving)
        await _end(leaving.values())

    async def close(self) -> None:
        """Let go of everything, claims under way included, and claim no more."""
        self._closing = True
        await reach(FailPoint.ON_SHUTDOWN)
        for task in list(self._claims):
            task.cancel()
        await asyncio.gather(*self._claims, return_exceptions=True)
        await self.revoked(list(self.statuses))

    # --- from the cycles and the consumer

    def lost(self, owned: OwnedLog, why: Misfit | None) -> None:
        """A log has left the cycles: fenced (None), or it does not fit."""
        running = self._running.get(owned.log)
        if running is None or running.owned is not owned:
            return
        if why is not None:
            self.misfit(owned.log, why)
            return
        self._drop(owned.log)
        self._claim_again(owned.log, "another owner has claimed the log")

    def out_of_range(self, log: Log, offset: int) -> None:
        """The broker does not have the offset that was to be read next.

        What was deleted may be decided and answered. Where it is not, or the log has become shorter, the claim says so.
        """
        if log not in self._running:
            # A claim is under way, which looks for itself.
            return
        self.cycles.logs.pop(log, None)
        self._drop(log)
        self._claim_again(log, f"the broker does not have offset {offset}")

    def misfit(self, log: Log, why: Misfit) -> None:
        """A log does not fit the store, as far as this worker knows.

        An owner that was paused may have been overtaken: what it lacks, a later one has decided, and let go of. One
        that is being revoked has nothing more to say of the log.
        """
        running = self._running.get(log)
        self.cycles.logs.pop(log, None)
        self._drop(log)
        if log not in self.statuses:
            return
        if running is None:
            self.stop(log, why)
            return
        status = self.statuses[log] = LogStatus("claiming", str(why))
        self._start(self._settle(log, running.owned.checkpoint.epoch, status, why))

    async def _settle(self, log: Log, epoch: int, status: LogStatus, why: Misfit) -> None:
        while True:
            try:
                now = (await self._store.checkpoints()).get(log)
            except StoreUnreachable as error:
                logger.warning("can't see yet who owns the log, trying again", log=str(log), error=repr(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if self.statuses.get(log) is not status:
                return
            if now is None or now.epoch == epoch:
                self.stop(log, why)
            else:
                self._claim_again(log, "another owner has claimed the log")
            return

    def _claim_again(self, log: Log, why: str) -> None:
        if log not in self.statuses:
            # It is being revoked. Claimed now, it would be taken for one that is served when it is assigned anew.
            return
        logger.warning("claiming the log again, if it stays assigned", log=str(log), reason=why)
        self._start_claim([log], after_s=_RETRY_S)

    def stop(self, log: Log, why: Misfit) -> None:
        """A log stands still until an operator has chosen."""
        logger.error("the log stands still", log=str(log), reason=str(why))
        self.cycles.logs.pop(log, None)
        self._drop(log)
        if log in self.statuses:
            self.statuses[log] = LogStatus("stopped", str(why))

    # --- claims

    def _start_claim(self, logs: list[Log], after_s: float = 0.0) -> None:
        if not logs:
            return
        # The status is the token of this claim: a later assignment of the log puts another in its place.
        claiming = {log: LogStatus("claiming") for log in logs}
        self.statuses |= claiming
        self._start(self._claim(claiming, after_s))

    def _start(self, claim: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(claim)
        self._claims.add(task)
        task.add_done_callback(self._claimed)

    def _claimed(self, task: asyncio.Task[None]) -> None:
        self._claims.discard(task)
        self._crash_of(task)

    async def _claim(self, claiming: dict[Log, LogStatus], after_s: float) -> None:
        await asyncio.sleep(after_s)
        while logs := self._still(claiming):
            await reach(FailPoint.BEFORE_CLAIM)
            try:
                checkpoints = await self._store.claim(logs)
                await reach(FailPoint.AFTER_CLAIM)
                refused = await self._store.refused_ids(logs, REFUSED_KEPT)
                found = await self._find(logs, await self._source.group_offsets(logs))
                overtaken = await self._overtaken({log: (checkpoints[log], found[log]) for log in logs})
            except (StoreUnreachable, KafkaError, TimeoutError) as error:
                logger.warning("the logs can't be claimed yet, trying again", error=repr(error), logs=len(logs))
                for log in logs:
                    claiming[log].reason = repr(error)
                await asyncio.sleep(_RETRY_S)
                if len(logs) > 1 and not isinstance(error, KafkaConnectionError):
                    # It may be one of them that is held or can't be looked at now: by halves, it holds up no other.
                    logs = self._still(claiming)
                    self._start_claim(logs[::2])
                    self._start_claim(logs[1::2])
                    return
            else:
                still = self._still(claiming)
                self._start_claim([log for log in still if log in overtaken], after_s=_RETRY_S)
                await self._begin_all(
                    {log: (checkpoints[log], found[log]) for log in still if log not in overtaken}, refused
                )
                return

    async def _overtaken(self, claimed: Mapping[Log, tuple[Checkpoint, Found]]) -> set[Log]:
        """The logs that do not fit only because another owner has claimed them since, and gone on."""
        suspects = [log for log, state in claimed.items() if self._misfit(log, *state) is not None]
        if not suspects:
            return set()
        now = await self._store.checkpoints()
        return {log for log in suspects if now[log].epoch != claimed[log][0].epoch}

    def _misfit(self, log: Log, checkpoint: Checkpoint, found: Found) -> Misfit | None:
        try:
            check_fit(log, checkpoint, found, rebuilding=self._rebuilding)
        except Misfit as misfit:
            return misfit
        return None

    def _still(self, claiming: Mapping[Log, LogStatus]) -> list[Log]:
        return [log for log, status in claiming.items() if self.statuses.get(log) is status]

    async def _begin_all(
        self, claimed: Mapping[Log, tuple[Checkpoint, Found]], refused: Mapping[Log, set[str] | None]
    ) -> None:
        begun = [
            owned for log, state in claimed.items() if (owned := self._begin(log, *state, refused[log])) is not None
        ]
        logger.info(
            "owning logs",
            logs=len(begun),
            commands=sum(state[1].end - state[0].next_offset for state in claimed.values()),
        )
        gone = await self._source.seek({owned.log: (owned.seek, owned.read_offset) for owned in begun})
        await self.revoked(gone)

    def _begin(self, log: Log, checkpoint: Checkpoint, found: Found, refused: set[str] | None) -> OwnedLog | None:
        misfit = self._misfit(log, checkpoint, found)
        if misfit is not None:
            self.stop(log, misfit)
            return None
        answered = max(checkpoint.acknowledged_offset, found.acknowledged or 0)
        reply_from = answered if self._rebuilding else min(answered, checkpoint.next_offset)
        feed_position = max(found.feed_position, checkpoint.acknowledged_position)
        if found.feed_position < checkpoint.acknowledged_position:
            logger.warning(
                "the feed has lost events that were on it, and goes on behind them: to have them again, end the "
                "workers and run `tidemark recover republish` before the log's next event",
                log=str(log),
                feed=found.feed_position,
                was=checkpoint.acknowledged_position,
            )
        publisher = self._publisher(log, feed_position, reply_from)
        task = asyncio.create_task(publisher.run(self._store.read_log, checkpoint.next_position - 1))
        task.add_done_callback(self._crash_of)
        self._seeks += 1
        read_from = _read_from(checkpoint, found, reply_from)
        owned = OwnedLog(log, checkpoint, publisher, self._seeks, read_from, reply_from, refused)
        self._running[log] = _Running(owned, publisher, task)
        self.cycles.add(owned)
        self.loads.begin(log, checkpoint.next_offset, time.monotonic())
        self.statuses[log] = LogStatus("running")
        logger.debug(
            "owning the log", log=str(log), epoch=checkpoint.epoch, next_offset=checkpoint.next_offset,
            watermark=checkpoint.next_position - 1, feed=feed_position, answered=reply_from,
        )  # fmt: skip
        return owned

    def _crash_of(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

    def _drop(self, log: Log) -> None:
        running = self._running.pop(log, None)
        if running is not None:
            running.task.cancel()

    # --- acknowledgements and refusals

    async def keep_house(self) -> None:
        """For ever: write down how far replies and feed are out, and forget refusals whose time is over."""
        turn = 0
        while True:
            await asyncio.sleep(_ACKNOWLEDGE_EVERY_S)
            turn += 1
            if turn % _AGAIN_EVERY == 0:
                # A copy of the store that has taken over may lack them: where no command comes, nothing else tells.
                for running in self._running.values():
                    running.written = _NOTHING
            await self._acknowledge(dict(self._running))
            await self._forget_refused(turn)

    async def _acknowledge(self, logs: Mapping[Log, _Running]) -> None:
        """Where it fails it is only later: what is not written down is published again."""
        behind = {log: running.acknowledged for log, running in logs.items() if running.acknowledged != running.written}
        if not behind:
            return
        acknowledged = {
            log: replace(logs[log].owned.checkpoint, acknowledged_offset=offset, acknowledged_position=position)
            for log, (offset, position) in behind.items()
        }
        try:
            await self._store.acknowledge(acknowledged)
        except StoreUnreachable as error:
            logger.warning("acknowledgements are not written down yet", error=str(error))
            return
        await reach(FailPoint.BEFORE_OFFSET_COMMIT)
        if await self._source.commit({log: offset for log, (offset, _) in behind.items()}):
            for log, written in behind.items():
                logs[log].written = written

    async def _forget_refused(self, turn: int) -> None:
        """Of some logs each time: commits wait for it, and for all logs at once they would wait long."""
        for log, running in list(self._running.items()):
            over = running.owned.checkpoint.log_time_ms - self._retention_ms
            try:
                if over > 0 and log.partition % _FORGET_EVERY == turn % _FORGET_EVERY:
                    await self._store.forget_refused(log, over, _FORGET_AT_ONCE)
            except StoreUnreachable:
                return


async def _end(leaving: Iterable[_Running]) -> None:
    tasks = [running.task for running in leaving]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _read_from(checkpoint: Checkpoint, found: Found, reply_from: int) -> int:
    """Where to read on: at what is not answered yet, or at the last decided record, whose fingerprint tells the log."""
    start = min(checkpoint.next_offset, reply_from)
    if checkpoint.last_offset >= 0:
        start = min(start, checkpoint.last_offset)
    return max(start, found.begin)
