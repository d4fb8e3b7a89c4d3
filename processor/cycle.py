"""One commit cycle after another: slices → load → decide → commit → what to publish.

A cycle takes what is waiting in all logs, up to a bound, decides it, and commits it in one transaction. Each log stands
on its own: one that is fenced, held by another transaction, or does not fit the store leaves the cycle, the others go
on. Nothing is handed on to be published before the commit is known to have happened.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Protocol

import structlog
from msgspec import UNSET, Struct
from msgspec.structs import replace

from processor.codec import NO_LIMITS, decode
from processor.decide import decide, event_ids, recall
from processor.errors import Misfit, StoreUnreachable
from processor.fit import check_first_record
from processor.messages import (
    Checkpoint,
    Command,
    Decoded,
    Limits,
    Log,
    Outcome,
    Plan,
    Publication,
    Record,
    Rules,
    Slice,
    View,
    Wanted,
)
from processor.store import Committed, Store

logger = structlog.get_logger(__name__)

_RETRY_FIRST_S, _RETRY_MOST_S = 0.05, 2.0
_BUSY_PAUSE_S = 0.02


class Outlet(Protocol):
    """Where a log's publications go."""

    @property
    def has_room(self) -> bool:
        """Whether more may be put; a log without room is left out of the cycles."""
        ...

    @property
    def acknowledged_offset(self) -> int:
        """All commands below it have their replies on the broker."""
        ...

    @property
    def acknowledged_position(self) -> int:
        """All events up to it are on the feed."""
        ...

    def put(self, publication: Publication) -> None:
        """Hand on what is committed. Never waits."""
        ...


class OwnedLog:
    """A log that this worker has claimed: where it stands, and what waits for it.

    `read_offset` is where its next slice must begin, `seek` the number of the seek that it must come after.
    `reply_from`: commands below it are answered already.
    """

    def __init__(
        self, log: Log, checkpoint: Checkpoint, outlet: Outlet, seek: int, read_from: int, reply_from: int
    ) -> None:
        self.log = log
        self.checkpoint = checkpoint
        self.outlet = outlet
        self.seek = seek
        self.read_offset = read_from
        self.reply_from = reply_from
        self.slices: deque[Slice] = deque()

    @property
    def wants_records(self) -> bool:
        """At most one slice waits per log, and none while its publications pile up: the broker keeps the rest."""
        return not self.slices and self.outlet.has_room


class _Work(Struct):
    """A log's share of a cycle: what was taken, read, and what came of it."""

    owned: OwnedLog
    taken: Slice
    old: list[tuple[Record, Decoded]]
    new: list[tuple[Record, Decoded]]
    plan: Plan | None = None
    recalled: list[tuple[Record, Outcome]] = []


class Cycles:
    """The engine: owns the logs that are claimed, and runs cycles over them until it is cancelled.

    `on_lost` is called with a log that left: with None when it was fenced, else with the reason why it stands still.
    """

    def __init__(
        self,
        store: Store,
        rules: Rules,
        limits: Limits,
        *,
        batch_size: int,
        linger_s: float = 0.0,
        on_lost: Callable[[OwnedLog, Misfit | None], None],
    ) -> None:
        self.logs: dict[Log, OwnedLog] = {}
        self._store = store
        self._rules = rules
        self._limits = limits
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._on_lost = on_lost
        self._waiting = asyncio.Event()
        self._idle = asyncio.Condition()
        self._busy: set[Log] = set()

    # --- what comes in

    def add(self, owned: OwnedLog) -> None:
        """Take a claimed log into the cycles."""
        self.logs[owned.log] = owned

    async def remove(self, logs: Sequence[Log], timeout_s: float) -> None:
        """Take logs out of the cycles; returns when the running cycle has let go of them, or it takes too long.

        In the latter case the store does not answer. Should it come back, the cycle commits before the next owner has
        claimed the log, or is fenced.
        """
        for log in logs:
            self.logs.pop(log, None)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._idle:
                await self._idle.wait_for(lambda: self._busy.isdisjoint(logs))

    def offer(self, piece: Slice) -> None:
        """Put a fetched slice in line. Raises `Misfit` for a hole in the log; a slice that is void is dropped."""
        owned = self.logs.get(piece.log)
        if owned is None or owned.seek != piece.seek:
            return
        if piece.begin != owned.read_offset:
            raise Misfit(
                f"{piece.log}: the next records begin at offset {piece.begin}, not at {owned.read_offset}: commands "
                "were deleted before they were decided. Restore the topic or a newer backup of the store."
            )
        owned.slices.append(piece)
        owned.read_offset = piece.end
        self._waiting.set()

    def wake(self) -> None:
        """Look again at what waits: a log that had no room may have some now."""
        self._waiting.set()

    # --- the loop

    async def run(self) -> None:
        """Run cycles for ever; a fault that is not of one log ends it."""
        while True:
            await self._waiting.wait()
            if self._linger_s:
                await asyncio.sleep(self._linger_s)
            works = self._take()
            if not works:
                self._waiting.clear()
                continue
            try:
                await self._cycle(works)
            finally:
                async with self._idle:
                    self._busy.clear()
                    self._idle.notify_all()

    def _take(self) -> list[_Work]:
        works: list[_Work] = []
        count = 0
        for owned in list(self.logs.values()):
            if not owned.slices or not owned.outlet.has_room:
                continue
            if count >= self._batch_size:
                break
            # To the end of the line, so that the logs take turns when there is more than a cycle holds.
            self.logs[owned.log] = self.logs.pop(owned.log)
            piece = owned.slices.popleft()
            count += len(piece.records)
            works.append(self._read(owned, piece))
            self._busy.add(owned.log)
        return works

    def _read(self, owned: OwnedLog, piece: Slice) -> _Work:
        decided = owned.checkpoint.next_offset
        old = [
            (record, decode(record.key, record.value, NO_LIMITS))
            for record in piece.records
            if owned.reply_from <= record.offset < decided
        ]
        new = [
            (record, decode(record.key, record.value, self._limits))
            for record in piece.records
            if record.offset >= decided
        ]
        return _Work(owned, piece, old, new)

    async def _cycle(self, works: list[_Work]) -> None:
        views = await self._load(works)
        ready = [work for work in works if self._plan(work, views[work.owned.log])]
        plans = {work.owned.log: work.plan for work in ready if work.plan is not None}
        results = await self._commit(plans)
        for work in ready:
            self._finish(work, results.get(work.owned.log, Committed.YES))
        if Committed.BUSY in results.values():
            await asyncio.sleep(_BUSY_PAUSE_S)

    def _plan(self, work: _Work, view: View) -> bool:
        owned = work.owned
        before = replace(
            owned.checkpoint,
            acknowledged_offset=owned.outlet.acknowledged_offset,
            acknowledged_position=owned.outlet.acknowledged_position,
        )
        try:
            if work.taken.records:
                check_first_record(owned.log, before, work.taken.records[0])
            work.recalled = [
                (record, recall(owned.log, before.incarnation, view, record, decoded)) for record, decoded in work.old
            ]
        except Misfit as misfit:
            self._lose(owned, misfit)
            return False
        if work.taken.end > before.next_offset:
            work.plan = decide(self._rules, owned.log, before, view, work.new, work.taken.end)
        return True

    def _finish(self, work: _Work, committed: Committed) -> None:
        owned, plan = work.owned, work.plan
        if committed is Committed.FENCED:
            self._lose(owned, None)
        elif committed is Committed.BUSY:
            owned.slices.appendleft(work.taken)
        else:
            if plan is not None:
                owned.checkpoint = plan.after
            owned.outlet.put(
                Publication(
                    events=plan.events if plan else [],
                    answers=work.recalled + (plan.answers if plan else []),
                    next_offset=work.taken.end,
                    last_position=owned.checkpoint.next_position - 1,
                )
            )

    def _lose(self, owned: OwnedLog, why: Misfit | None) -> None:
        if self.logs.get(owned.log) is owned:
            del self.logs[owned.log]
        self._on_lost(owned, why)

    # --- the store

    async def _load(self, works: list[_Work]) -> dict[Log, View]:
        of_logs = {work.owned.log: _wanted(work) for work in works}
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                return await self._store.load(of_logs)
            except StoreUnreachable as error:
                pause_s = await _wait_for_store(error, pause_s)

    async def _commit(self, plans: dict[Log, Plan]) -> dict[Log, Committed]:
        """Commit, however long the store is away. An unknown end is read back from the checkpoints, never guessed."""
        results: dict[Log, Committed] = {}
        left = dict(plans)
        pause_s = _RETRY_FIRST_S
        while left:
            try:
                results |= await self._store.commit(list(left.values()))
                break
            except StoreUnreachable as error:
                pause_s = await _wait_for_store(error, pause_s)
            try:
                found = await self._store.checkpoints()
            except StoreUnreachable:
                continue
            results |= {log: ended for log, plan in left.items() if (ended := _ended(plan, found.get(log))) is not None}
            left = {log: plan for log, plan in left.items() if log not in results}
        return results


def _ended(plan: Plan, found: Checkpoint | None) -> Committed | None:
    """How a commit of unknown end did end, by the checkpoint that is there now; None where it left no trace."""
    if found is None or found.epoch != plan.before.epoch:
        return Committed.FENCED
    return Committed.YES if found.next_offset == plan.after.next_offset else None


async def _wait_for_store(error: StoreUnreachable, pause_s: float) -> float:
    logger.warning("the store does not answer, trying again", error=str(error), pause_s=pause_s)
    await asyncio.sleep(pause_s)
    return min(2 * pause_s, _RETRY_MOST_S)


def _wanted(work: _Work) -> Wanted:
    owned = work.owned
    entries = chain(work.old, work.new)
    return wanted(owned.log, owned.checkpoint.incarnation, entries, [record.offset for record, _ in work.old])


def wanted(log: Log, incarnation: int, entries: Iterable[tuple[Record, Decoded]], offsets: list[int]) -> Wanted:
    """What the decision of these records can depend on, and what was decided at these offsets."""
    ids: dict[str, list[str]] = {}
    commands: list[tuple[str, str]] = []
    for record, decoded in entries:
        if isinstance(decoded, Command):
            ids.setdefault(decoded.stream, []).extend(event_ids(log, incarnation, record, decoded))
            if decoded.command_id is not UNSET:
                commands.append((decoded.stream, decoded.command_id))
    return Wanted(ids, commands, offsets)
