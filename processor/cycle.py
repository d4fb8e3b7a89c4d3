"""One commit cycle after another: slices → load → decide → commit → what to publish.

A cycle takes what is waiting in all logs, up to a bound, decides it, and commits it in one transaction. Each log stands
on its own: one that is fenced, held by another transaction, or does not fit the store leaves the cycle, the others go
on. Nothing is handed on to be published before the commit is known to have happened.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Protocol

import structlog
from msgspec import Struct, field

from processor.codec import NO_LIMITS, decode
from processor.decide import Decider, Unread, learn, recall
from processor.errors import Misfit, StoreDamaged, StoreUnreachable
from processor.failpoints import FailPoint, reach
from processor.fit import SKIP_DELETED, check_first_record
from processor.lookup import doubtful, presumed_new, streams_of, wanted
from processor.messages import (
    Checkpoint,
    Decoded,
    Head,
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
_HEADS_KEPT = 4_096
REFUSED_KEPT = 8_192
"""Of a log that remembers more command ids than this, each command's is looked up in the store."""
_LITTLE = 256
_AT_A_STRETCH = 256
_PIECE = 128
"""The weight of what is decided together: all that is made of it, some 2 KB for each, stays in a core's cache."""
_PART = 1_024
"""The weight of the shares of a cycle that the store is asked about together: while it answers, the next are read."""
_TURNS = 6
"""Of the event loop in a pause: a commit takes one for each of its steps, and the next one waits for it."""
_CYCLES_AHEAD = 2
_FIRST_CYCLES = 4
"""A cycle beside which nothing is committed is so many times smaller: the store has something to do sooner."""
_CAREFUL_CYCLES = 32
"""How long every event id is looked up after a presumption was wrong: clients that resend are seldom alone."""


_Entry = tuple[Record, Decoded]


class Outlet(Protocol):
    """Where a log's publications go."""

    @property
    def has_room(self) -> bool:
        """Whether more may be put; a log without room is left out of the cycles."""
        ...

    def put(self, publication: Publication) -> None:
        """Hand on what is committed. Never waits."""
        ...


class OwnedLog:
    """A log that this worker has claimed: where it stands, and what waits for it.

    `checkpoint` is the last committed one, `tip` where the last plan leads, which may be about to be committed.
    `read_offset` is where the next slice must begin, `seek` the number of the seek that it must come after. `waiting`
    is the weight of the slices in line.
    `reply_from`: commands below it are answered already. `refused` are the command ids that the store remembers
    refusals of (and maybe more), None where they are too many to be kept here.
    """

    def __init__(
        self,
        log: Log,
        checkpoint: Checkpoint,
        outlet: Outlet,
        seek: int,
        read_from: int,
        reply_from: int,
        refused: set[str] | None = None,
    ) -> None:
        self.log = log
        self.checkpoint = checkpoint
        self.tip = checkpoint
        self.outlet = outlet
        self.seek = seek
        self.read_offset = read_from
        self.reply_from = reply_from
        self.refused = refused
        self.slices: deque[Slice] = deque()
        self.waiting = 0
        self.taken: deque[Slice] = deque()
        self.pending: deque[Plan] = deque()
        self.starts = 0
        self._heads: dict[str, Head] = {}

    def put(self, piece: Slice) -> None:
        """Put a slice in line."""
        self.slices.append(piece)
        self.waiting += piece.weight
        self.read_offset = piece.end

    def whole(self, least: int) -> int:
        """The weight that `take` would take: slices are not divided."""
        return sum(piece.weight for piece in self._first(least))

    def take(self, least: int) -> Slice:
        """What waits, until it has this weight, as one slice, for a cycle."""
        pieces = self._first(least)
        for piece in pieces:
            self.slices.popleft()
            self.waiting -= piece.weight
        piece = _joined(pieces)
        self.taken.append(piece)
        return piece

    def _first(self, least: int) -> list[Slice]:
        pieces: list[Slice] = []
        weight = 0
        for piece in self.slices:
            if pieces and weight >= least:
                break
            pieces.append(piece)
            weight += piece.weight
        return pieces

    def heads_of(self, names: Sequence[str]) -> tuple[dict[str, Head], list[str]]:
        """The heads that are known without asking the store, and the names of the others.

        As long as the log is ours, nobody else moves them.
        """
        known = {name: head for name in names if (head := self._heads.get(name)) is not None}
        return known, [name for name in names if name not in known]

    def loaded(self, heads: Mapping[str, Head]) -> None:
        """Keep heads that the store has told, in bounds."""
        self._heads.update(heads)
        if len(self._heads) > _HEADS_KEPT:
            for name in list(islice(self._heads, len(self._heads) - _HEADS_KEPT // 2)):
                del self._heads[name]

    def planned(self, plan: Plan) -> None:
        """Go on from where a plan leads, before it is committed."""
        self.pending.append(plan)
        self._heads.update(plan.heads)
        if self.refused is not None:
            self.refused.update(refused.command_id for refused in plan.refused if refused.command_id is not None)
            if len(self.refused) > REFUSED_KEPT:
                self.refused = None
        self.tip = plan.after

    def finished(self, plan: Plan | None) -> None:
        """The oldest slice that was taken is done with, and its plan committed."""
        self.taken.popleft()
        if plan is not None:
            self.pending.popleft()
            self.checkpoint = plan.after

    def start_over(self) -> None:
        """Put back what was taken: the plans that were made of it are void."""
        self.starts += 1
        self.slices.extendleft(reversed(self.taken))
        self.waiting += sum(piece.weight for piece in self.taken)
        self.taken.clear()
        self.pending.clear()
        self._heads.clear()
        self.tip = self.checkpoint


class CycleMeter:
    """Is told of the stations of one cycle, each when it is behind; this one keeps nothing (`telemetry`)."""

    def read(self, *, known: int, unknown: int) -> None:
        """A log's share is read: of so many streams the head is known, and so many have to be looked up."""

    def loading(self) -> None:
        """What is to do next waits for the store to say what decisions depend on."""

    def loaded(self) -> None:
        """It has said so."""

    def decided(self) -> None:
        """The plans are made, and wait until the cycle before is committed."""

    def committing(self) -> None:
        """It is this cycle's turn at the store."""

    def committed(self, plans: Mapping[Log, Plan], results: Mapping[Log, Committed]) -> None:
        """How the commits of these plans ended."""


class Meter:
    """Is told how the cycles go: once for a cycle or a log's share of it, never for each command."""

    def owning(self, owned: OwnedLog) -> None:
        """A log that was claimed takes part from now on."""

    def received(self, piece: Slice) -> None:
        """A slice waits in line."""

    def cycle(self, slices: Sequence[Slice]) -> CycleMeter:  # noqa: ARG002 — for overrides
        """A cycle begins with these slices."""
        return CycleMeter()

    def store_failed(self) -> None:
        """The store did not answer; it is asked again."""


class _Work(Struct):
    """A log's share of a cycle: what was taken, read, and what came of it.

    `upon` are the plans that were not known to be committed when it was taken: what is loaded from the store may or may
    not have their effect. `decider` has decided what comes first, about which the store need not be asked. `old` are
    records that were decided in an earlier life, `new` the others that are left, `unknown` their streams whose head is
    not known, and `wanted` is what else to look up for them: every event id, if it is `careful`.
    """

    owned: OwnedLog
    start: int
    upon: list[Plan]
    taken: Slice
    decider: Decider
    careful: bool
    old: list[_Entry] = []
    new: list[_Entry] = []
    unknown: list[str] = []
    wanted: Wanted = field(default_factory=Wanted.nothing)
    plan: Plan | None = None
    recalled: list[tuple[Record, Outcome]] = []

    @property
    def is_void(self) -> bool:
        """Whether what it was planned upon did not happen; its slice has been put back, or its log has left."""
        return self.start != self.owned.starts

    @property
    def is_open(self) -> bool:
        """Whether there is something to ask the store about."""
        return bool(self.old or self.new)

    async def read(self, limits: Limits, stretch: "_Stretch") -> None:
        """Decode what was taken; may be void afterwards. Raises `Unread`.

        As long as the store need not be asked, it is decided piece by piece, while that is in the processor's cache.
        """
        owned = self.owned
        again, fresh = _parted(self.taken, owned.tip.next_offset)
        again = [record for record in again if record.offset >= owned.reply_from]
        self.old = []
        for weight, piece in _pieces(again, self.taken):
            await stretch.before(weight)
            self.old += _decoded(piece, NO_LIMITS)
        self.new = []
        for weight, piece in _pieces(fresh, self.taken):
            await stretch.before(weight)
            if self.is_void:
                return
            entries = _decoded(piece, limits)
            if self.is_open or not self._is_known(entries):
                self.new += entries
            else:
                self.decider.decide(entries)
        self.unknown = self._meet(chain(self.old, self.new)) if self.is_open else []

    def _is_known(self, entries: Sequence[_Entry]) -> bool:
        """Whether the store need not be asked; in this case the view is filled."""
        return not self._meet(entries) and not self._doubtful(entries).is_something

    def _meet(self, entries: Iterable[_Entry]) -> list[str]:
        """Bring the streams' heads into the view; returns the names of those that are not known."""
        heads = self.decider.view.heads
        known, unknown = self.owned.heads_of([name for name in streams_of(entries) if name not in heads])
        heads.update(known)
        return unknown

    def _doubtful(self, entries: Sequence[_Entry]) -> Wanted:
        """What there is to look up, now that the heads are known. What need not be is presumed to be new."""
        owned, view = self.owned, self.decider.view
        presumed = set() if self.careful else presumed_new(view.heads, entries)
        view.presumed_new |= presumed
        return doubtful(owned.log, owned.tip.incarnation, entries, presumed, owned.refused)

    def with_heads(self, found: Mapping[str, Head]) -> None:
        """Take over the heads that were loaded, brought up to what the plans before will leave."""
        heads = dict(found)
        for plan in self.upon:
            heads.update((name, plan.heads[name]) for name in self.unknown if name in plan.heads)
        self.decider.view.heads.update(heads)
        # What the store said may be from before those plans: kept as it was, it would be taken for the head later on.
        if not self.is_void:
            self.owned.loaded({name: heads[name] for name in found})

    def want(self) -> None:
        """Say what there is to look up, now that the heads are known."""
        owned, incarnation = self.owned, self.owned.tip.incarnation
        asked = self._doubtful(self.new)
        if self.old:
            again = wanted(owned.log, incarnation, self.old, [record.offset for record, _ in self.old])
            for name, event_ids in asked.event_ids.items():
                again.event_ids.setdefault(name, []).extend(event_ids)
            asked = Wanted(again.event_ids, again.commands + asked.commands, again.offsets)
        asked.heads = self.decider.view.heads
        self.wanted = asked

    def with_answers(self, found: View) -> None:
        """Bring what was looked up to what the plans before, and what is decided already, will leave."""
        view = self.decider.view
        view.known = found.known
        view.asked = set(chain.from_iterable(self.wanted.event_ids.values()))
        for plan in self.upon:
            learn(view, plan.events)
            found.refused.update(
                ((refused.stream, refused.command_id), refused)
                for refused in plan.refused
                if refused.stream is not None and refused.command_id is not None
            )
        self.decider.remember()
        view.refused = found.refused | view.refused
        view.refused_at = found.refused_at


class _Stretch:
    """How much was decided without a pause: what waits for an answer only, as a commit does, goes on now and then."""

    def __init__(self) -> None:
        self._weight = 0

    async def before(self, weight: int) -> None:
        """Pause if it is time to, before so much more."""
        if self._weight >= _AT_A_STRETCH:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            self._weight = 0
        self._weight += weight


class Cycles:
    """The engine: owns the logs that are claimed, and runs cycles over them until it is cancelled.

    `on_lost` is called with a log that left: with None when it was fenced, else with the reason why it stands still.
    `wanting` is set when a log may want records that did not before. `meter` is told how it goes.
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
        meter: Meter | None = None,
    ) -> None:
        self.logs: dict[Log, OwnedLog] = {}
        self._store = store
        self._rules = rules
        self._limits = limits
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._on_lost = on_lost
        self._meter = meter or Meter()
        self.wanting = asyncio.Event()
        self._waiting = asyncio.Event()
        self._idle = asyncio.Condition()
        self._at_work: Counter[Log] = Counter()
        self._careful_cycles = 0

    # --- what comes in

    def add(self, owned: OwnedLog) -> None:
        """Take a claimed log into the cycles."""
        self.logs[owned.log] = owned
        self._meter.owning(owned)
        self.wanting.set()

    async def remove(self, logs: Sequence[Log], timeout_s: float) -> None:
        """Take logs out of the cycles; returns when the running cycle has let go of them, or it takes too long.

        In the latter case the store does not answer. Should it come back, the cycle commits before the next owner has
        claimed the log, or is fenced.
        """
        for log in logs:
            self.logs.pop(log, None)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._idle:
                await self._idle.wait_for(lambda: not any(self._at_work[log] for log in logs))

    def offer(self, piece: Slice) -> None:
        """Put a fetched slice in line. Raises `Misfit` for a hole in the log; a slice that is void is dropped."""
        owned = self.logs.get(piece.log)
        if owned is None or owned.seek != piece.seek:
            return
        if piece.begin != owned.read_offset:
            raise Misfit(
                f"{piece.log}: the next records begin at offset {piece.begin}, not at {owned.read_offset}: commands "
                f"were deleted before they were decided. {SKIP_DELETED}"
            )
        owned.put(piece)
        self._meter.received(piece)
        self._waiting.set()

    def to_fetch(self) -> set[Log]:
        """The logs to fetch for: little waits for a log, or little altogether, and its publications do not pile up.

        Where the backlog lies on a few logs, these are read ahead as far as many would be. The broker keeps the rest.
        """
        open_logs = [owned for owned in self.logs.values() if owned.outlet.has_room]
        is_ahead = _waiting(self.logs.values()) >= _CYCLES_AHEAD * self._batch_size
        return {owned.log for owned in open_logs if owned.waiting < _LITTLE or not is_ahead}

    def wake(self) -> None:
        """Look again at what waits: a log that had no room may have some now."""
        self._waiting.set()
        self.wanting.set()

    # --- the loop

    async def run(self) -> None:
        """Run cycles for ever; a fault that is not of one log ends it.

        While one cycle commits, the next is read, loaded and decided on what the first will leave. When more waits than
        a cycle holds, one more is decided before it is its turn to commit, so that neither side waits for the other.
        """
        commits: deque[asyncio.Task[None]] = deque()
        turn = asyncio.Event()
        turn.set()
        try:
            while True:
                await self._waiting.wait()
                while commits and (commits[0].done() or len(commits) > (2 if self._is_behind else 1)):
                    await commits.popleft()
                if self._linger_s:
                    await asyncio.sleep(self._linger_s)
                works = self._take(self._batch_size if commits else max(1, self._batch_size // _FIRST_CYCLES))
                if not works:
                    self._waiting.clear()
                    continue
                meter = self._meter.cycle([work.taken for work in works])
                ready = await self._decide(works, meter)
                mine, turn = turn, asyncio.Event()
                commits.append(asyncio.create_task(self._commit_in_turn(mine, turn, ready, meter)))
                commits[-1].add_done_callback(lambda _: self._waiting.set())
                # If it is its turn, the commit begins before more is decided.
                await asyncio.sleep(0)
        finally:
            for commit in commits:
                commit.cancel()
            await asyncio.gather(*commits, return_exceptions=True)

    @property
    def _is_behind(self) -> bool:
        """Whether a whole cycle waits: less gains nothing by being taken before it can be committed."""
        return _waiting(owned for owned in self.logs.values() if owned.outlet.has_room) >= self._batch_size

    def _take(self, most: int) -> list[_Work]:
        """Take what is waiting, up to a weight."""
        works: list[_Work] = []
        self._careful_cycles = max(0, self._careful_cycles - 1)
        for owned, share in self._shares(most).items():
            # To the end of the line, so that the logs take turns when there is more than a cycle holds.
            self.logs[owned.log] = self.logs.pop(owned.log)
            decider, careful = self._decider_of(owned), self._careful_cycles > 0
            works.append(_Work(owned, owned.starts, list(owned.pending), owned.take(share), decider, careful))
            self._at_work[owned.log] += 1
        self.wanting.set()
        return works

    def _decider_of(self, owned: OwnedLog) -> Decider:
        return Decider(self._rules, owned.log, owned.tip, View.empty())

    def _shares(self, room: int) -> dict[OwnedLog, int]:
        """The logs whose turn it is, and the weight of each share: what others leave of a cycle, a long line gets.

        A log that has more than its share of the load would otherwise fall behind in cycles that are not full.
        """
        ready = [owned for owned in self.logs.values() if owned.slices and owned.outlet.has_room]
        fair = max(_LITTLE, room // max(1, len(ready)))
        shares: dict[OwnedLog, int] = {}
        for owned in ready:
            if room <= 0:
                break
            shares[owned] = owned.whole(fair)
            room -= shares[owned]
        for owned, share in shares.items():
            if room > 0:
                shares[owned] = owned.whole(share + room)
                room -= shares[owned] - share
        return shares

    async def _decide(self, works: list[_Work], meter: CycleMeter) -> list[_Work]:
        """Plan each log's share; those that do not fit leave.

        A share about which the store need not be asked is decided as soon as it is read, while it is warm memory. While
        the store looks up what some of the others depend on, the next are read, and those before are decided.
        """
        ready: list[_Work] = []
        stretch = _Stretch()
        asked: list[_Work] = []
        lookup: asyncio.Task[None] | None = None
        try:
            for part in (*_parts(works), []):
                asking = await self._read(part, ready, stretch, meter)
                if lookup is not None:
                    meter.loading()
                    await lookup
                    meter.loaded()
                before, asked = asked, asking
                lookup = asyncio.create_task(self._load(asked)) if asked else None
                if lookup is not None:
                    # The store has the question before more is decided.
                    await asyncio.sleep(0)
                for work in before:
                    await stretch.before(work.taken.weight)
                    await self._settle(work, ready, stretch)
        finally:
            if lookup is not None:
                lookup.cancel()
                await asyncio.gather(lookup, return_exceptions=True)
        meter.decided()
        return ready

    async def _read(
        self, works: Iterable[_Work], ready: list[_Work], stretch: _Stretch, meter: CycleMeter
    ) -> list[_Work]:
        """Read some shares, and settle those about which the store need not be asked; returns the others."""
        asking: list[_Work] = []
        for work in works:
            try:
                await work.read(self._limits, stretch)
            except Unread:
                await self._read_again(work, stretch)
            meter.read(known=len(work.decider.view.heads), unknown=len(work.unknown))
            if work.is_open and not work.is_void:
                asking.append(work)
            else:
                await self._settle(work, ready, stretch)
        return asking

    async def _read_again(self, work: _Work, stretch: _Stretch) -> None:
        """Start over, with every event id looked up."""
        work.careful = True
        work.decider = self._decider_of(work.owned)
        await work.read(self._limits, stretch)

    async def _settle(self, work: _Work, ready: list[_Work], stretch: _Stretch) -> None:
        if not work.is_void and await self._plan_surely(work, stretch):
            ready.append(work)
        else:
            await self._let_go([work])

    async def _plan_surely(self, work: _Work, stretch: _Stretch) -> bool:
        try:
            return self._plan(work)
        except Unread:
            await self._read_again(work, stretch)
            await self._load([work])
            return not work.is_void and self._plan(work)

    def _plan(self, work: _Work) -> bool:
        owned, before, decider = work.owned, work.owned.tip, work.decider
        try:
            if work.taken.records:
                check_first_record(owned.log, before, work.taken.records[0])
            work.recalled = [
                (record, recall(owned.log, before.incarnation, decider.view, record, decoded))
                for record, decoded in work.old
            ]
        except Misfit as misfit:
            self._lose(owned, misfit)
            return False
        if work.taken.end > before.next_offset:
            decider.decide(work.new)
            work.plan = decider.plan(work.taken.end)
            owned.planned(work.plan)
        return True

    async def _commit_in_turn(
        self, mine: asyncio.Event, following: asyncio.Event, works: list[_Work], meter: CycleMeter
    ) -> None:
        with self._store.staged([work.plan for work in works if work.plan is not None]):
            await mine.wait()
            publications = await self._commit_all(works, meter)
        following.set()
        # The next commit begins before this one's records are made: that takes its time, which the store would idle.
        await asyncio.sleep(0)
        for outlet, publication in publications:
            outlet.put(publication)
        await self._let_go(works)

    async def _commit_all(self, works: list[_Work], meter: CycleMeter) -> list[tuple[Outlet, Publication]]:
        """Commit what still stands; returns what is to be published where."""
        standing = [work for work in works if not work.is_void]
        plans = {work.owned.log: work.plan for work in standing if work.plan is not None}
        meter.committing()
        results = await self._commit(plans)
        meter.committed(plans, results)
        if Committed.TAKEN in results.values():
            if not any(work.decider.view.presumed_new for work in standing):
                raise StoreDamaged("the store knows event ids by its index that it does not find when asked for them")
            self._careful_cycles = _CAREFUL_CYCLES
        finished = [
            (work.owned.outlet, self._finish(work, results.get(work.owned.log, Committed.YES)))
            for work in standing
            if not work.is_void
        ]
        if Committed.BUSY in results.values():
            await asyncio.sleep(_BUSY_PAUSE_S)
        return [(outlet, publication) for outlet, publication in finished if publication is not None]

    def _finish(self, work: _Work, committed: Committed) -> Publication | None:
        """Go on from how a commit ended; returns what is to be published."""
        owned, plan = work.owned, work.plan
        if committed is Committed.FENCED:
            self._lose(owned, None)
        elif committed is not Committed.YES:
            owned.start_over()
        else:
            owned.finished(plan)
            return Publication(
                events=plan.events if plan else [],
                answers=work.recalled + (plan.answers if plan else []),
                next_offset=work.taken.end,
                last_position=owned.checkpoint.next_position - 1,
                weight=work.taken.weight,
            )
        return None

    def _lose(self, owned: OwnedLog, why: Misfit | None) -> None:
        owned.start_over()
        if self.logs.get(owned.log) is owned:
            del self.logs[owned.log]
        self._on_lost(owned, why)

    async def _let_go(self, works: Iterable[_Work]) -> None:
        async with self._idle:
            self._at_work.subtract(work.owned.log for work in works)
            self._idle.notify_all()

    # --- the store

    async def _load(self, works: list[_Work]) -> None:
        """Fill the views: heads first, as they tell what else there is to look up."""
        beginning = [work for work in works if work.unknown]
        found = await self._ask(
            {work.owned.log: Wanted({name: [] for name in work.unknown}, [], []) for work in beginning}
        )
        for work in beginning:
            work.with_heads(found[work.owned.log].heads)
        for work in works:
            work.want()
        found = await self._ask({work.owned.log: work.wanted for work in works if work.wanted.is_something})
        for work in works:
            work.with_answers(found.get(work.owned.log) or View.empty())

    async def _ask(self, of_logs: Mapping[Log, Wanted]) -> dict[Log, View]:
        if not of_logs:
            return {}
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                return await self._store.load(of_logs)
            except StoreUnreachable as error:
                self._meter.store_failed()
                pause_s = await _wait_for_store(error, pause_s)

    async def _commit(self, plans: dict[Log, Plan]) -> dict[Log, Committed]:
        """Commit, however long the store is away. An unknown end is read back from the checkpoints, never guessed.

        Once the end is unknown, a log that is held may be held by that very transaction: only its checkpoint tells.
        """
        results: dict[Log, Committed] = {}
        left = dict(plans)
        unknown = False
        pause_s = _RETRY_FIRST_S
        while left:
            await reach(FailPoint.BEFORE_COMMIT)
            try:
                answers = await self._store.commit(list(left.values()))
                results |= {log: how for log, how in answers.items() if not (unknown and how is Committed.BUSY)}
                if len(results) < len(plans):
                    await asyncio.sleep(_BUSY_PAUSE_S)
            except StoreUnreachable as error:
                unknown = True
                self._meter.store_failed()
                pause_s = await _wait_for_store(error, pause_s)
            left = {log: plan for log, plan in left.items() if log not in results}
            if left:
                results |= await self._read_back(left)
                left = {log: plan for log, plan in left.items() if log not in results}
        await reach(FailPoint.AFTER_COMMIT)
        return results

    async def _read_back(self, plans: Mapping[Log, Plan]) -> dict[Log, Committed]:
        """How commits of unknown end did end; nothing of those that left no trace, or while the store is away."""
        try:
            found = await self._store.checkpoints()
        except StoreUnreachable:
            return {}
        return {log: ended for log, plan in plans.items() if (ended := _ended(plan, found.get(log))) is not None}


def _parts(works: Iterable[_Work]) -> Iterator[list[_Work]]:
    """Shares of a cycle by some, of the weight of a part."""
    part: list[_Work] = []
    weight = 0
    for work in works:
        part.append(work)
        weight += work.taken.weight
        if weight >= _PART:
            yield part
            part, weight = [], 0
    if part:
        yield part


def _waiting(logs: Iterable[OwnedLog]) -> int:
    return sum(owned.waiting for owned in logs)


def _joined(pieces: Sequence[Slice]) -> Slice:
    """Slices that follow on each other as one."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    records = [record for piece in pieces for record in piece.records]
    return Slice(first.log, first.seek, first.begin, pieces[-1].end, records)


def _pieces(records: Sequence[Record], taken: Slice) -> Iterator[tuple[int, Sequence[Record]]]:
    """Records of a slice by pieces, each behind its weight, as it is on the average of the slice."""
    each = max(1.0, taken.weight / max(1, len(taken.records)))
    size = max(1, int(_PIECE / each))
    for begin in range(0, len(records), size):
        piece = records[begin : begin + size]
        yield int(len(piece) * each), piece


def _decoded(records: Iterable[Record], limits: Limits) -> list[_Entry]:
    return [(record, decode(record.key, record.value, limits)) for record in records]


def _parted(piece: Slice, decided: int) -> tuple[Sequence[Record], Sequence[Record]]:
    """The records of a slice below an offset, and the others."""
    if piece.begin >= decided:
        return (), piece.records
    return (
        [record for record in piece.records if record.offset < decided],
        [record for record in piece.records if record.offset >= decided],
    )


def _ended(plan: Plan, found: Checkpoint | None) -> Committed | None:
    """How a commit of unknown end did end, by the checkpoint that is there now; None where it left no trace."""
    if found is None or found.epoch != plan.before.epoch:
        return Committed.FENCED
    if found.next_offset == plan.before.next_offset:
        return None
    is_after = (found.next_offset, found.chain) == (plan.after.next_offset, plan.after.chain)
    return Committed.YES if is_after else Committed.FENCED


async def _wait_for_store(error: StoreUnreachable, pause_s: float) -> float:
    logger.warning("the store does not answer, trying again", error=str(error), pause_s=pause_s)
    await asyncio.sleep(pause_s)
    return min(2 * pause_s, _RETRY_MOST_S)
