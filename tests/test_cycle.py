"""Cycles, on the memory store: each log on its own, and nothing handed on that is not committed."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from processor.cycle import CycleMeter, Cycles, Meter, OwnedLog, _Work
from processor.decide import Decider
from processor.errors import Misfit, StoreDamaged, StoreUnreachable
from processor.messages import Accepted, Checkpoint, Head, Limits, Log, Plan, Publication, Rules, Slice, View, Wanted
from processor.partition import partition_of
from processor.store import Committed
from processor.stores.memory import MemoryStore
from tests.records import SomeRecord, command, event, event_id, record

PARTITIONS = 4
STREAM = "order-1"
LOG = Log("default", partition_of(STREAM.encode(), PARTITIONS))


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.has_room = True
        self.publications: list[Publication] = []
        self.given = asyncio.Event()

    def put(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.given.set()


def piece(
    begin: int, count: int = 1, seek: int = 1, end: int | None = None, log: Log = LOG, bytes_of_data: int = 2
) -> Slice:
    value = b'{"stream":"order-1","events":[{"type":"Counted","data":"%b"}]}' % (b"x" * (bytes_of_data - 2))
    records = [SomeRecord(begin + number, value, STREAM.encode(), 1_000, ()) for number in range(count)]
    return Slice(log, seek, begin, begin + count if end is None else end, records)


class Told(Meter, CycleMeter):
    """A meter that keeps what it is told, in order."""

    def __init__(self) -> None:
        self.stations: list[object] = []

    def owning(self, owned: OwnedLog) -> None:
        self.stations.append(("owning", owned.log))

    def received(self, piece: Slice) -> None:
        self.stations.append(("received", piece.begin))

    def cycle(self, slices: Sequence[Slice]) -> CycleMeter:
        self.stations.append(("cycle", [(piece.begin, piece.end) for piece in slices]))
        return self

    def read(self, *, known: int, unknown: int) -> None:
        self.stations.append(("read", known, unknown))

    def loading(self) -> None:
        self.stations.append("loading")

    def loaded(self) -> None:
        self.stations.append("loaded")

    def decided(self) -> None:
        self.stations.append("decided")

    def committing(self) -> None:
        self.stations.append("committing")

    def committed(self, plans: Mapping[Log, Plan], results: Mapping[Log, Committed]) -> None:
        self.stations.append(("committed", [len(plan.answers) for plan in plans.values()], dict(results)))

    def store_failed(self) -> None:
        self.stations.append("store_failed")


FIRST_OF_1_000 = 4_000
"""So large cycles may be that the first one, beside which nothing is committed, has room for 1,000."""


class Bench:
    def __init__(self) -> None:
        self.use(MemoryStore())

    def use(self, store: MemoryStore, batch_size: int = 100) -> None:
        self.store = store
        self.outlet = Kept()
        self.lost: list[tuple[OwnedLog, Misfit | None]] = []
        self.told = Told()
        self.cycles = Cycles(
            self.store,
            Rules(PARTITIONS),
            Limits(),
            batch_size=batch_size,
            on_lost=lambda owned, why: self.lost.append((owned, why)),
            meter=self.told,
        )

    async def own(self, log: Log = LOG) -> OwnedLog:
        checkpoint = (await self.store.claim([log]))[log]
        owned = OwnedLog(log, checkpoint, self.outlet, 1, checkpoint.next_offset, 0)
        self.cycles.add(owned)
        return owned

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.cycles.run())
        try:
            async with asyncio.timeout(5):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_offered_is_decided_committed_and_handed_on(bench: Bench) -> None:
    await bench.own()
    bench.cycles.offer(piece(0, 3))
    async with bench.running():
        await bench.outlet.given.wait()
    (publication,) = bench.outlet.publications
    assert [type(outcome) for _, outcome in publication.answers] == [Accepted] * 3
    assert [event.position for event in publication.events] == [1, 2, 3]
    assert (publication.next_offset, publication.last_position) == (3, 3)
    assert (await bench.store.checkpoints())[LOG].next_offset == 3


async def test_the_meter_is_told_of_each_station_once(bench: Bench) -> None:
    await bench.own()
    bench.cycles.offer(piece(0, 3))
    async with bench.running():
        await bench.outlet.given.wait()
    assert bench.told.stations == [
        ("owning", LOG), ("received", 0), ("cycle", [(0, 3)]), ("read", 0, 1), "loading", "loaded", "decided",
        "committing", ("committed", [3], {LOG: Committed.YES}),
    ]  # fmt: skip


async def test_a_log_without_room_waits_and_goes_on_when_it_is_woken(bench: Bench) -> None:
    await bench.own()
    bench.outlet.has_room = False
    bench.cycles.offer(piece(0))
    async with bench.running():
        for _ in range(10):
            await asyncio.sleep(0)
        assert bench.outlet.publications == []
        bench.outlet.has_room = True
        bench.cycles.wake()
        await bench.outlet.given.wait()


async def test_a_hole_between_slices_is_a_misfit(bench: Bench) -> None:
    await bench.own()
    bench.cycles.offer(piece(0))
    with pytest.raises(Misfit, match="not at 1"):
        bench.cycles.offer(piece(2))


async def test_a_slice_from_before_the_last_seek_is_dropped(bench: Bench) -> None:
    owned = await bench.own()
    bench.cycles.offer(piece(7, seek=0))
    assert not owned.slices and owned.read_offset == 0


async def test_offsets_without_records_are_passed_over(bench: Bench) -> None:
    await bench.own()
    bench.cycles.offer(piece(0, 1, end=5))
    bench.cycles.offer(piece(5, 1))
    async with bench.running():
        await bench.outlet.given.wait()
    (publication,) = bench.outlet.publications
    assert [outcome.offset for _, outcome in publication.answers] == [0, 5]
    assert publication.next_offset == 6


async def test_slices_that_wait_go_together_until_they_are_enough(bench: Bench) -> None:
    owned = await bench.own()
    for begin, count in ((0, 2), (2, 300), (302, 300), (602, 1)):
        bench.cycles.offer(piece(begin, count))
    taken = [owned.take(256) for _ in range(2)]
    assert [(it.begin, it.end, len(it.records)) for it in taken] == [(0, 302, 302), (302, 602, 300)]
    assert len(owned.slices) == 1


async def test_a_backlog_of_one_log_fills_a_cycle_beside_which_another_is_committed(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=1_000)
    await bench.own()
    for begin in range(0, 1_800, 300):
        bench.cycles.offer(piece(begin, 300))
    async with bench.running():
        while len(bench.outlet.publications) < 3:
            bench.outlet.given.clear()
            await bench.outlet.given.wait()
    assert [station[1] for station in bench.told.stations if isinstance(station, tuple) and station[0] == "cycle"] == [
        [(0, 300)],
        [(300, 1_500)],
        [(1_500, 1_800)],
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
async def test_the_smallest_cycles_have_room_for_something(bench: Bench, batch_size: int) -> None:
    bench.use(MemoryStore(), batch_size=batch_size)
    await bench.own()
    bench.cycles.offer(piece(0, 3))
    async with bench.running():
        await bench.outlet.given.wait()


async def test_what_others_leave_of_a_cycle_goes_to_the_log_with_a_long_line(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=FIRST_OF_1_000)
    busy, others = LOG, [Log("default", n) for n in range(PARTITIONS) if n != LOG.partition]
    for log in (busy, *others):
        await bench.own(log)
        bench.cycles.offer(piece(0, 10, log=log))
    for begin in range(10, 1_510, 100):
        bench.cycles.offer(piece(begin, 100))
    async with bench.running():
        await bench.outlet.given.wait()
    _, (busy_begin, busy_end), *of_others = next(
        [None, *station[1]] for station in bench.told.stations if isinstance(station, tuple) and station[0] == "cycle"
    )
    assert of_others == [(0, 10)] * len(others)
    assert (busy_begin, busy_end) == (0, 1_010), "a slice is not divided"


async def test_a_long_line_takes_nothing_from_the_others(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=FIRST_OF_1_000)
    logs = [LOG, *(Log("default", n) for n in range(PARTITIONS) if n != LOG.partition)]
    for log in logs:
        await bench.own(log)
    for begin in range(0, 2_000, 100):
        bench.cycles.offer(piece(begin, 100))
    for log in logs[1:]:
        for begin in range(0, 300, 100):
            bench.cycles.offer(piece(begin, 100, log=log))
    async with bench.running():
        await bench.outlet.given.wait()
    first = next(station[1] for station in bench.told.stations if isinstance(station, tuple) and station[0] == "cycle")
    assert first == [(0, 300)] * PARTITIONS


@pytest.mark.parametrize(("count", "bytes_of_data"), [(400, 2), (40, 2_500)], ids=["small", "large"])
async def test_a_cycle_is_not_larger_than_it_may_be_by_more_than_a_slice(
    bench: Bench, count: int, bytes_of_data: int
) -> None:
    bench.use(MemoryStore(), batch_size=FIRST_OF_1_000)
    for log in (Log("default", n) for n in range(PARTITIONS)):
        await bench.own(log)
        bench.cycles.offer(piece(0, count, log=log, bytes_of_data=bytes_of_data))
    async with bench.running():
        await bench.outlet.given.wait()
    first = next(station[1] for station in bench.told.stations if isinstance(station, tuple) and station[0] == "cycle")
    assert first == [(0, count)] * 3


async def test_large_commands_are_read_ahead_by_their_size_however_few_they_are(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=500)
    await bench.own()
    bench.cycles.offer(piece(0, 9, bytes_of_data=25_000))
    assert bench.cycles.to_fetch() == {LOG}
    bench.cycles.offer(piece(9, 2, bytes_of_data=25_000))
    assert bench.cycles.to_fetch() == set()


async def test_what_waits_for_an_answer_goes_on_while_a_cycle_is_decided(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=4_096)
    logs = [LOG, *(Log("default", n) for n in range(PARTITIONS) if n != LOG.partition)]
    for log in logs:
        await bench.own(log)
        bench.cycles.offer(piece(0, 300, log=log))
    turns = 0
    decided = asyncio.get_running_loop().create_future()
    bench.told.decided = lambda: decided.set_result(turns)  # type: ignore[method-assign]

    def turn() -> None:
        nonlocal turns
        turns += "loaded" in bench.told.stations
        if not decided.done():
            asyncio.get_running_loop().call_soon(turn)

    async with bench.running():
        turn()
        assert await decided >= len(logs) - 1


async def test_a_log_is_fetched_for_while_it_or_all_together_have_few_records_waiting(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=500)
    owned = await bench.own()
    other = Log("default", (LOG.partition + 1) % PARTITIONS)
    bench.cycles.add(OwnedLog(other, owned.checkpoint, Kept(), 1, 0, 0))

    bench.cycles.offer(piece(0, 900))
    assert bench.cycles.to_fetch() == {LOG, other}, "two cycles do not wait yet"
    bench.cycles.offer(piece(900, 100))
    assert bench.cycles.to_fetch() == {other}
    owned.take(900)
    assert bench.cycles.to_fetch() == {LOG, other}
    bench.outlet.has_room = False
    assert bench.cycles.to_fetch() == {other}


async def test_records_of_logs_whose_publications_pile_up_count_among_those_that_wait(bench: Bench) -> None:
    bench.use(MemoryStore(), batch_size=500)
    owned = await bench.own()
    other = OwnedLog(Log("default", (LOG.partition + 1) % PARTITIONS), owned.checkpoint, Kept(), 1, 0, 0)
    bench.cycles.add(other)
    bench.cycles.offer(piece(0, 1_000))
    bench.outlet.has_room = False
    other.put(piece(0, 256))

    assert bench.cycles.to_fetch() == set()


async def test_a_fenced_log_leaves_and_publishes_nothing(bench: Bench) -> None:
    owned = await bench.own()
    await bench.store.claim([LOG])
    bench.cycles.offer(piece(0))
    async with bench.running():
        while not bench.lost:
            await asyncio.sleep(0)
    assert bench.lost == [(owned, None)]
    assert bench.outlet.publications == []
    assert LOG not in bench.cycles.logs


async def test_commands_that_are_decided_already_are_answered_from_the_store(bench: Bench) -> None:
    await bench.own()
    bench.cycles.offer(piece(0, 2))
    async with bench.running():
        await bench.outlet.given.wait()
    first = bench.outlet.publications.pop()
    bench.outlet.given.clear()

    checkpoint = (await bench.store.claim([LOG]))[LOG]
    bench.cycles.add(OwnedLog(LOG, checkpoint, bench.outlet, 2, 0, 0))
    bench.cycles.offer(piece(0, 3, seek=2))
    async with bench.running():
        await bench.outlet.given.wait()
    (again,) = bench.outlet.publications
    assert [outcome for _, outcome in again.answers[:2]] == [outcome for _, outcome in first.answers]
    assert [event.position for event in again.events] == [3]


class SlowStore(MemoryStore):
    """Commits when it is told to; what was loaded before does not have its effect."""

    def __init__(self) -> None:
        super().__init__()
        self.may_commit = asyncio.Semaphore(0)
        self.loads = 0
        self.answers: list[Committed] = []

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        self.loads += 1
        return await super().load(wanted)

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        await self.may_commit.acquire()
        if self.answers:
            return dict.fromkeys((plan.log for plan in plans), self.answers.pop())
        return await super().commit(plans)


async def outcomes_of_three(bench: Bench, store: SlowStore) -> list[str]:
    """Three slices with the same event: the second is decided while the first is about to be committed."""
    value = b'{"stream":"order-1","events":[{"type":"A","event_id":"0199f2d4-9c1e-7b53-8a55-6d5f0c2f9a10"}]}'
    await bench.own()
    async with bench.running():
        for offset in range(3):
            bench.cycles.offer(Slice(LOG, 1, offset, offset + 1, [SomeRecord(offset, value, STREAM.encode(), 1, ())]))
            while store.loads <= offset and offset < 2:
                await asyncio.sleep(0)
        for _ in range(8):
            store.may_commit.release()
        while len(answers := [answer for given in bench.outlet.publications for answer in given.answers]) < 3:
            await asyncio.sleep(0)
    return [type(outcome).__name__ for _, outcome in answers]


async def test_a_cycle_is_decided_upon_what_the_one_before_it_will_leave(bench: Bench) -> None:
    bench.use(store := SlowStore())
    assert await outcomes_of_three(bench, store) == ["Accepted", "Duplicate", "Duplicate"]


async def test_plans_upon_one_that_was_not_written_are_made_again(bench: Bench) -> None:
    bench.use(store := SlowStore())
    store.answers = [Committed.BUSY]
    assert await outcomes_of_three(bench, store) == ["Accepted", "Duplicate", "Duplicate"]
    events = await store.read_log(LOG, 0, 10)
    assert [event.position for event in events] == [1]


class CutStore(MemoryStore):
    """The connection breaks as the commit ends, and once more as it is asked about; then its row is still held."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Committed | None] = [None, Committed.BUSY]
        self.is_reachable = [False]

    async def commit(self, plans: Sequence[Plan]) -> dict[Log, Committed]:
        if not self.commits:
            return await super().commit(plans)
        how = self.commits.pop(0)
        if how is None:
            await super().commit(plans)
            raise StoreUnreachable("the connection broke")
        return dict.fromkeys((plan.log for plan in plans), how)

    async def checkpoints(self) -> dict[Log, Checkpoint]:
        if self.is_reachable and not self.is_reachable.pop():
            raise StoreUnreachable("the connection broke")
        return await super().checkpoints()


async def test_a_commit_of_unknown_end_is_settled_by_the_checkpoint_even_while_its_row_is_held(bench: Bench) -> None:
    bench.use(CutStore())
    await bench.own()
    bench.cycles.offer(piece(0, 2))
    async with bench.running():
        await bench.outlet.given.wait()
    (publication,) = bench.outlet.publications
    assert [type(outcome) for _, outcome in publication.answers] == [Accepted] * 2
    assert bench.lost == []
    assert bench.told.stations.count("store_failed") == 1


def appends(offset: int, *numbers: int, expected_version: int) -> Slice:
    """A slice of one command with events of these ids."""
    value = command(*(event(number) for number in numbers), stream=STREAM, expected_version=expected_version)
    return Slice(LOG, 1, offset, offset + 1, [record(offset, value, key=STREAM)])


async def outcomes_of(bench: Bench, *slices: Slice) -> list[str]:
    """One slice after the other, each when the one before is done with."""
    for piece in slices:
        bench.outlet.given.clear()
        bench.cycles.offer(piece)
        await bench.outlet.given.wait()
    return [type(outcome).__name__ for given in bench.outlet.publications for _, outcome in given.answers]


async def test_commands_that_go_on_from_known_heads_are_decided_without_a_look_at_the_store(bench: Bench) -> None:
    bench.use(store := SlowStore())
    for _ in range(4):
        store.may_commit.release()
    owned = await bench.own()
    owned.refused = set()
    async with bench.running():
        commands = (appends(n, n, expected_version=n) for n in range(4))
        assert await outcomes_of(bench, *commands) == ["Accepted"] * 4
    assert store.loads == 1  # the stream's head, before it was there


class SilentStore(MemoryStore):
    """Answers what is looked up when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        self.asked.set()
        await self.may_answer.wait()
        return await super().load(wanted)


async def test_what_the_store_need_not_be_asked_about_is_decided_before_it_has_answered_for_the_others(
    bench: Bench,
) -> None:
    bench.use(store := SilentStore())
    other = Log("default", (LOG.partition + 1) % PARTITIONS)
    owned = await bench.own()
    owned.refused = set()
    await bench.own(other)
    async with bench.running():
        store.may_answer.set()
        await outcomes_of(bench, appends(0, 0, expected_version=0))
        store.may_answer.clear()
        store.asked.clear()
        bench.cycles.offer(appends(1, 1, expected_version=1))
        bench.cycles.offer(piece(0, log=other))
        await store.asked.wait()
        assert [plan.after.next_offset for plan in owned.pending] == [2]
        store.may_answer.set()
        while len(bench.outlet.publications) < 3:
            await asyncio.sleep(0)
    assert [bench.told.stations.count(("read", *heads)) for heads in ((1, 0), (0, 1))] == [1, 2]
    assert {log: to.next_offset for log, to in (await bench.store.checkpoints()).items()} == {LOG: 2, other: 1}


async def test_while_the_store_looks_up_the_next_shares_are_read_and_those_before_are_decided(bench: Bench) -> None:
    bench.use(store := SilentStore(), batch_size=100_000)
    logs = [Log("default", (LOG.partition + number) % PARTITIONS) for number in range(3)]
    owned = [await bench.own(log) for log in logs]
    for log in logs:
        bench.cycles.offer(piece(0, 2_000, log=log))
    read, answered = ("read", 0, 1), asyncio.Event()
    bench.told.loaded = answered.set  # type: ignore[method-assign]
    async with bench.running():
        await store.asked.wait()
        while bench.told.stations[-1] != "loading":
            await asyncio.sleep(0)
        assert bench.told.stations.count(read) == 2
        store.may_answer.set()
        await answered.wait()
        store.may_answer.clear()
        while bench.told.stations.count("loading") < 2:
            await asyncio.sleep(0)
        assert bench.told.stations.count(read) == 3
        assert [len(log.pending) for log in owned] == [1, 0, 0]
        store.may_answer.set()
        while len(bench.outlet.publications) < 3:
            await asyncio.sleep(0)
    assert [to.next_offset for to in (await bench.store.checkpoints()).values()] == [2_000] * 3


async def test_events_that_were_stored_are_found_though_their_command_now_expects_the_right_version(
    bench: Bench,
) -> None:
    await bench.own()
    async with bench.running():
        outcomes = await outcomes_of(
            bench,
            appends(0, 1, expected_version=0),
            appends(1, 1, expected_version=1),
            appends(2, 1, 2, expected_version=1),
            appends(3, 2, expected_version=1),
        )
    assert outcomes == ["Accepted", "Duplicate", "Rejected", "Accepted"]
    assert [event.event_id for event in await bench.store.read_log(LOG, 0, 9)] == [event_id(1), event_id(2)]


async def test_a_presumption_that_the_decision_finds_wrong_is_looked_up(bench: Bench) -> None:
    await bench.own()
    twice = command(event(7), event(7), stream=STREAM, expected_version=1)
    async with bench.running():
        await outcomes_of(bench, appends(0, 1, expected_version=0))
        # It would leave the stream at version 3, which the next one expects; but it is refused.
        records = [record(1, twice, key=STREAM), *appends(2, 1, expected_version=3).records]
        outcomes = await outcomes_of(bench, Slice(LOG, 1, 1, 3, records))
    assert outcomes == ["Accepted", "Rejected", "Duplicate"]


async def test_a_command_id_that_was_refused_is_looked_up(bench: Bench) -> None:
    owned = await bench.own()
    owned.refused = set()
    value = command(event(2), stream=STREAM, expected_version=5, command_id="c")
    refused = [Slice(LOG, 1, offset, offset + 1, [record(offset, value, key=STREAM)]) for offset in (1, 2)]
    async with bench.running():
        await outcomes_of(bench, appends(0, 1, expected_version=0), *refused)
    outcomes = [outcome for given in bench.outlet.publications for _, outcome in given.answers]
    assert [getattr(outcome, "replayed", None) for outcome in outcomes] == [None, False, True]


async def test_an_index_that_knows_what_the_table_does_not_is_damage(bench: Bench) -> None:
    bench.use(ForgetfulStore())
    await bench.own()
    running = asyncio.create_task(bench.cycles.run())
    await outcomes_of(bench, appends(0, 1, expected_version=0))
    bench.cycles.offer(appends(1, 1, expected_version=1))
    with pytest.raises(StoreDamaged):
        await asyncio.wait_for(running, 5)


class ForgetfulStore(MemoryStore):
    """Says of no event that it knows it."""

    async def load(self, wanted: Mapping[Log, Wanted]) -> dict[Log, View]:
        views = await super().load(wanted)
        for view in views.values():
            view.known.clear()
        return views


async def test_a_head_that_was_read_before_the_plan_upon_it_was_committed_is_not_kept(bench: Bench) -> None:
    owned = await bench.own()
    before = owned.checkpoint
    upon = Plan(LOG, before, before, {STREAM: Head(1, 5)}, [], [], [])
    decider = Decider(Rules(1), LOG, before, View.empty())
    work = _Work(owned, 0, [upon], piece(0), decider, careful=False, unknown=[STREAM])
    work.with_heads({STREAM: Head(1, 4)})
    assert owned.heads_of([STREAM]) == ({STREAM: Head(1, 5)}, [])
    owned.start_over()
    work.with_heads({STREAM: Head(1, 4)})
    assert owned.heads_of([STREAM]) == ({}, [STREAM])
