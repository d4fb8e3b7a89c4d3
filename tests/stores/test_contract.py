"""What `processor.store.Store` promises, sentence by sentence, on every store."""

import asyncio
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from processor.chain import genesis
from processor.codec import decode
from processor.decide import decide
from processor.messages import Checkpoint, Conflict, Head, KnownEvent, Limits, Log, Plan, Rejected, View, Wanted
from processor.store import Committed, Store, StreamInfo, Usage
from processor.stores import open_store
from processor.stores.memory import MemoryStore
from tests.records import RULES, record
from tests.stores.logs import (
    ACME,
    LOG,
    OTHER,
    PARTITIONS,
    TIME_MS,
    claim,
    commit,
    event_id,
    new_events,
    plan,
    ship,
    stream_of,
    whole_log,
)

# --- what it takes


async def test_a_store_is_examined_while_it_is_open(store: Store) -> None:
    await store.claim([LOG])
    found = await store.examine()
    if isinstance(store, MemoryStore):
        assert found == Usage(0, 0, 0)
    else:
        assert found.bytes > 10_000
        assert found.connections_used == 0 < found.connections


# --- claim


async def test_a_new_log_gets_its_first_checkpoint(store: Store) -> None:
    first = Checkpoint(epoch=1, next_offset=0, next_position=1, streams=0, chain=genesis(LOG))
    assert await store.claim([LOG]) == {LOG: first}
    assert await store.checkpoints() == {LOG: first}


async def test_claiming_raises_the_epoch_by_one_and_nothing_else(store: Store) -> None:
    before = (await commit(store, LOG, await claim(store), ship(LOG, 1), ship(LOG, 2))).after
    assert await store.claim([LOG]) == {LOG: replace(before, epoch=2)}
    assert await store.claim([LOG]) == {LOG: replace(before, epoch=3)}


async def test_many_logs_of_many_tenants_are_claimed_at_once(store: Store) -> None:
    logs = [Log(tenant, partition) for tenant in ("zeta", "acme", "default") for partition in range(PARTITIONS)]
    await store.claim(logs[3:5])
    claimed = await store.claim(logs)
    assert {log: it.epoch for log, it in claimed.items()} == {log: 2 if log in logs[3:5] else 1 for log in logs}
    assert {it.chain for it in claimed.values()} == {genesis(log) for log in logs}
    assert await store.checkpoints() == claimed


async def test_claiming_nothing_is_nothing(store: Store) -> None:
    assert await store.claim([]) == {}
    assert await store.checkpoints() == {}


async def test_checkpoints_come_in_the_order_of_the_logs(store: Store) -> None:
    logs = [Log("default", 3), Log("Zeta", 0), Log("default", 0), Log("acme", 2), Log("ärger", 1)]
    await store.claim(logs)
    assert list(await store.checkpoints()) == sorted(logs)


# --- load


async def test_nothing_is_known_of_a_log_that_nobody_claimed(store: Store) -> None:
    asked = Wanted({stream_of(LOG): [event_id(1)]}, [(stream_of(LOG), "c")], [0])
    assert await store.load({LOG: asked, ACME: asked}) == {LOG: View.empty(), ACME: View.empty()}
    await claim(store)
    assert await store.load({LOG: asked, ACME: asked}) == {LOG: View.empty(), ACME: View.empty()}


async def test_what_is_wanted_is_loaded_and_nothing_else(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1, 2), ship(LOG, 3), ship(LOG, 4, stream=1))
    one, other = stream_of(LOG, 0), stream_of(LOG, 1)
    views = await store.load(
        {LOG: Wanted({one: [event_id(2), event_id(9)], other: [], "order-none": [event_id(1)]}, [], [])}
    )
    assert views[LOG].heads == {one: Head(1, 3), other: Head(2, 1)}
    assert views[LOG].known == {(one, event_id(2)): KnownEvent.of(done.events[1])}
    assert views[LOG].refused == {}
    assert views[LOG].refused_at == {}


async def test_many_ids_are_loaded_at_once(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), *new_events(range(2_500)))
    asked: dict[str, list[str]] = {}
    for event in done.events:
        asked.setdefault(event.stream, []).append(event.event_id)
    view = (await store.load({LOG: Wanted(asked, [], [])}))[LOG]
    assert view.heads == done.heads
    assert view.known == {(event.stream, event.event_id): KnownEvent.of(event) for event in done.events}


async def test_an_event_id_is_known_within_its_stream_and_tenant_only(store: Store) -> None:
    checkpoints = await store.claim([LOG, OTHER, ACME])
    for before, log in enumerate((LOG, OTHER, ACME)):
        others = [ship(log, 2 + number) for number in range(before)]
        await commit(store, log, checkpoints[log], *others, ship(log, 1), ship(log, 1, stream=1))
    events = [
        event for log in (LOG, OTHER, ACME) for event in await whole_log(store, log) if event.event_id == event_id(1)
    ]
    assert len(events) == 6
    assert len({event.position for event in events[::2]}) == 3
    views = await store.load({log: Wanted({stream_of(log): [event_id(1)]}, [], []) for log in (LOG, OTHER, ACME)})
    assert [len(view.known) for view in views.values()] == [1, 1, 1]
    assert [view.known[stream_of(log), event_id(1)] for log, view in views.items()] == [
        KnownEvent.of(events[0]),
        KnownEvent.of(events[2]),
        KnownEvent.of(events[4]),
    ]


async def test_a_refusal_is_known_by_its_command_id_and_its_offset(store: Store) -> None:
    done = await commit(
        store, LOG, await claim(store), ship(LOG, 1, expected_version=7, command_id="c-1"), b"no command", ship(LOG, 2)
    )
    conflict, malformed = done.refused
    assert isinstance(conflict.outcome, Conflict)
    assert isinstance(malformed.outcome, Rejected)
    stream = stream_of(LOG)
    view = (await store.load({LOG: Wanted({}, [(stream, "c-1"), (stream, "c-2"), ("x", "c-1")], [0, 1, 2])}))[LOG]
    assert view.refused == {(stream, "c-1"): conflict}
    assert view.refused_at == {0: conflict, 1: malformed}


async def test_of_two_refusals_of_one_command_id_the_later_is_known(store: Store) -> None:
    refused = ship(LOG, 1, expected_version=7, command_id="c-1")
    first = await commit(store, LOG, await claim(store), refused)
    later = await commit(store, LOG, first.after, refused, time_ms=TIME_MS + 2 * RULES.retention_ms)
    view = (await store.load({LOG: Wanted({}, [(stream_of(LOG), "c-1")], [0, 1])}))[LOG]
    assert view.refused == {(stream_of(LOG), "c-1"): later.refused[0]}
    assert view.refused_at == {0: first.refused[0], 1: later.refused[0]}


# --- commit


@pytest.mark.parametrize("size", [1, 150, 1_500], ids=["one", "few", "many"])
async def test_what_is_committed_is_read_back_as_it_was(store: Store, size: int) -> None:
    first = await commit(store, LOG, await claim(store), *new_events(range(size)))
    second = await commit(store, LOG, first.after, *new_events(range(size, 2 * size)))
    assert await whole_log(store) == first.events + second.events
    assert await store.checkpoints() == {LOG: second.after}
    heads = {info.stream: Head(number, info.version) for number, info in await store.streams(LOG, 0, 100)}
    assert heads == first.heads | second.heads


async def test_every_field_of_an_event_is_kept(store: Store) -> None:
    rich = {
        "event_id": event_id(1).upper(),
        "type": "Überwiesen 💶",
        "schema_version": 2**31 - 1,
        "data": {"text": "ä\u0000\ud7ff", "big": 10**30, "list": [None, True, 1.5]},
        "metadata": {"user": "ü-7"},
    }
    poor = {"type": "x", "data": "y" * 300_000}
    command = {
        "stream": stream_of(LOG), "events": [rich, poor], "command_id": "c" * 255, "correlation_id": "'\"\\",
        "causation_id": "%s $1 ? :name",
    }  # fmt: skip
    done = await commit(store, LOG, await claim(store), command, time_ms=253_402_300_799_999)
    events = await whole_log(store)
    assert events == done.events
    assert (events[0].event_id, events[0].command_id, events[1].metadata) == (event_id(1), "c" * 255, b"")
    assert [type(value) for value in (events[0].data, events[0].metadata, events[0].hash)] == [bytes] * 3


async def test_plans_of_many_logs_are_committed_together(store: Store) -> None:
    logs = [LOG, ACME, OTHER]
    checkpoints = await store.claim(logs)
    plans = [await plan(store, log, checkpoints[log], *new_events(range(40), log)) for log in logs]
    assert await store.commit(plans) == dict.fromkeys(logs, Committed.YES)
    assert [await whole_log(store, log) for log in logs] == [it.events for it in plans]


async def test_committing_nothing_is_nothing(store: Store) -> None:
    assert await store.commit([]) == {}


async def test_a_plan_without_events_moves_the_checkpoint(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), b"no command")
    assert await store.checkpoints() == {LOG: done.after}
    assert done.after.next_offset == 1


@pytest.mark.parametrize("size", [3, 600], ids=["few", "many"])
async def test_a_stale_owner_is_fenced_and_leaves_no_trace(store: Store, size: int) -> None:
    before = await store.claim([LOG, OTHER])
    stale = await plan(store, LOG, before[LOG], *new_events(range(size)), b"no command")
    good = await plan(store, OTHER, before[OTHER], *new_events(range(size), OTHER))
    after = await claim(store)
    assert await store.commit([stale, good]) == {LOG: Committed.FENCED, OTHER: Committed.YES}
    assert await store.checkpoints() == {LOG: after, OTHER: good.after}
    assert await whole_log(store) == []
    assert await store.streams(LOG, 0, 10) == []
    assert (await store.load({LOG: Wanted({}, [], list(range(size + 1)))}))[LOG] == View.empty()
    assert await whole_log(store, OTHER) == good.events


@pytest.mark.parametrize("size", [1, 600], ids=["few", "many"])
async def test_an_event_id_that_is_taken_is_found_when_it_is_written_and_nothing_is(store: Store, size: int) -> None:
    done = await commit(store, LOG, await claim(store), *new_events(range(size)))
    entries = [
        (it, decode(it.key, it.value, Limits()))
        for it in (record(size, ship(LOG, 9_000)), record(size + 1, new_events(range(size))[-1]))
    ]
    unknowing = decide(RULES, LOG, done.after, View(dict(done.heads), {}, {}, {}), entries, size + 2)
    assert len(unknowing.events) == 2
    assert await store.commit([unknowing]) == {LOG: Committed.TAKEN}
    assert await store.checkpoints() == {LOG: done.after}
    assert await whole_log(store) == done.events
    await commit(store, LOG, done.after, ship(LOG, 9_000))


async def test_an_event_id_that_is_in_a_plan_twice_is_found_when_it_is_written(store: Store) -> None:
    before = await claim(store)
    records = [record(offset, ship(LOG, 1, expected_version=offset)) for offset in range(2)]
    entries = [(it, decode(it.key, it.value, Limits())) for it in records]
    unknowing = decide(RULES, LOG, before, View({}, {}, {}, {}, {0, 1}), entries, 2)
    assert len(unknowing.events) == 2
    assert await store.commit([unknowing]) == {LOG: Committed.TAKEN}
    assert await whole_log(store) == []


async def test_a_plan_beside_one_with_a_taken_event_id_is_written_or_is_taken_too(store: Store) -> None:
    before = await store.claim([LOG, OTHER])
    done = await commit(store, LOG, before[LOG], ship(LOG, 1))
    entry = record(1, ship(LOG, 1))
    unknowing = decide(
        RULES,
        LOG,
        done.after,
        View(dict(done.heads), {}, {}, {}),
        [(entry, decode(entry.key, entry.value, Limits()))],
        2,
    )
    beside = await plan(store, OTHER, before[OTHER], ship(OTHER, 1))
    ended = await store.commit([unknowing, beside])
    assert ended[LOG] is Committed.TAKEN
    assert (await whole_log(store, OTHER) == beside.events) == (ended[OTHER] is Committed.YES)
    assert ended[OTHER] in (Committed.YES, Committed.TAKEN)


# --- commits that are staged


async def two_plans(store: Store, size: int) -> tuple[Plan, Plan]:
    """Two that follow on each other, with streams of their own."""
    first = await plan(store, LOG, await claim(store), *new_events(range(size)))
    return first, await plan(store, LOG, first.after, *(ship(LOG, 9_000 + n, stream=7 + n % 7) for n in range(size)))


@pytest.mark.parametrize("size", [1, 300], ids=["few", "many"])
async def test_commits_that_are_staged_are_written_in_their_turn(store: Store, size: int) -> None:
    first, second = await two_plans(store, size)
    with store.staged([first]), store.staged([second]):
        assert await whole_log(store) == []
        assert await store.commit([first]) == {LOG: Committed.YES}
        assert await whole_log(store) == first.events
        assert await store.commit([second]) == {LOG: Committed.YES}
    assert await store.checkpoints() == {LOG: second.after}
    assert await whole_log(store) == first.events + second.events


@pytest.mark.parametrize("size", [1, 300], ids=["few", "many"])
async def test_of_what_is_staged_and_not_committed_nothing_is_left(store: Store, size: int) -> None:
    first, second = await two_plans(store, size)
    with store.staged([first]), store.staged([second]):
        assert await store.commit([first]) == {LOG: Committed.YES}
    assert await whole_log(store) == first.events
    assert await store.commit([second]) == {LOG: Committed.YES}
    assert await whole_log(store) == first.events + second.events


@pytest.mark.parametrize("size", [1, 300], ids=["few", "many"])
async def test_a_plan_can_leave_those_that_it_is_staged_with(store: Store, size: int) -> None:
    before = await store.claim([LOG, OTHER])
    plans = [await plan(store, log, before[log], *new_events(range(size), log)) for log in (LOG, OTHER)]
    with store.staged(plans):
        assert await store.commit(plans[1:]) == {OTHER: Committed.YES}
    assert await whole_log(store) == []
    assert await whole_log(store, OTHER) == plans[1].events


@pytest.mark.parametrize("size", [1, 300], ids=["few", "many"])
async def test_what_is_staged_of_a_log_that_was_lost_is_fenced(store: Store, size: int) -> None:
    stale, _ = await two_plans(store, size)
    with store.staged([stale]):
        fresh = await claim(store)
        assert await store.commit([stale]) == {LOG: Committed.FENCED}
    assert await store.checkpoints() == {LOG: fresh}
    assert await whole_log(store) == []


@pytest.mark.parametrize("size", [1, 300], ids=["few", "many"])
async def test_ids_in_what_is_staged_behind_hold_up_no_commit(store: Store, size: int) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 0))
    ids = range(9_000, 9_000 + size)
    taken = unknowing(done, *(ship(LOG, n) for n in (*ids, 0)))
    behind = unknowing(taken, *(ship(LOG, n) for n in ids))
    with store.staged([taken]), store.staged([behind]):
        assert await store.commit([taken]) == {LOG: Committed.TAKEN}
    assert await whole_log(store) == done.events


def unknowing(before: Plan, *commands: dict[str, Any]) -> Plan:
    """What follows on a plan, decided without a look at what the store knows of the event ids."""
    begin = before.after.next_offset
    entries = [(it, decode(it.key, it.value, Limits())) for it in map(record, count(begin), commands)]
    return decide(RULES, LOG, before.after, View(dict(before.heads), {}, {}, {}), entries, begin + len(entries))


async def test_the_command_ids_of_refusals_are_known_up_to_a_limit(store: Store) -> None:
    await store.claim([LOG, OTHER, ACME])
    await commit(
        store, LOG, await claim(store), *(ship(LOG, n, expected_version=7, command_id=f"c-{n}") for n in range(3)),
        b"no command", ship(LOG, 9, command_id="accepted"),
    )  # fmt: skip
    await commit(store, ACME, await claim(store, ACME), ship(ACME, 1, expected_version=7, command_id="acme"))
    logs = [LOG, OTHER, ACME]
    assert await store.refused_ids(logs, 3) == {LOG: {"c-0", "c-1", "c-2"}, OTHER: set(), ACME: {"acme"}}
    assert await store.refused_ids(logs, 2) == {LOG: None, OTHER: set(), ACME: {"acme"}}


async def test_a_plan_for_a_log_that_moved_is_fenced(store: Store) -> None:
    before = await claim(store)
    again = await plan(store, LOG, before, ship(LOG, 1), ship(LOG, 2))
    done = await commit(store, LOG, before, ship(LOG, 3))
    assert await store.commit([again]) == {LOG: Committed.FENCED}
    assert await store.commit([done]) == {LOG: Committed.FENCED}
    assert await whole_log(store) == done.events


async def test_a_plan_for_a_log_that_nobody_claimed_is_fenced(store: Store) -> None:
    first = Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(LOG))
    other = await claim(store, OTHER)
    unclaimed = [await plan(store, log, replace(first, chain=genesis(log)), ship(log, 1)) for log in (LOG, ACME)]
    good = await plan(store, OTHER, other, ship(OTHER, 1))
    ended = await store.commit([*unclaimed, good])
    assert ended == {LOG: Committed.FENCED, ACME: Committed.FENCED, OTHER: Committed.YES}
    assert list(await store.checkpoints()) == [OTHER]


async def test_a_new_incarnation_starts_its_offsets_and_acknowledgements_anew(store: Store) -> None:
    refused = ship(LOG, 1, expected_version=7, command_id="c-1")
    old = await commit(store, LOG, await claim(store), refused, ship(LOG, 2))
    await store.acknowledge({LOG: replace(old.after, acknowledged_offset=2, acknowledged_position=1)})
    anew = replace(old.after, incarnation=1, next_offset=0, last_offset=-1, last_digest=b"", acknowledged_position=1)
    assert await store.commit([Plan(LOG, old.after, anew, {}, [], [], [])]) == {LOG: Committed.YES}
    assert await store.checkpoints() == {LOG: anew}
    assert (await store.load({LOG: Wanted({}, [], [0])}))[LOG].refused_at == {}
    new = await commit(store, LOG, anew, b"no command", refused)
    view = (await store.load({LOG: Wanted({}, [(stream_of(LOG), "c-1")], [0])}))[LOG]
    assert view.refused == {(stream_of(LOG), "c-1"): old.refused[0]}
    assert view.refused_at == {0: new.refused[0]}
    assert new.refused[1].outcome == replace(old.refused[0].outcome, offset=1, replayed=True)


# --- acknowledge


async def test_what_is_acknowledged_only_rises(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1), ship(LOG, 2))
    for offset, position in ((1, 2), (2, 1), (0, 0)):
        await store.acknowledge({LOG: replace(done.after, acknowledged_offset=offset, acknowledged_position=position)})
    assert await store.checkpoints() == {LOG: replace(done.after, acknowledged_offset=2, acknowledged_position=2)}


async def test_a_stale_owner_acknowledges_nothing(store: Store) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1))
    other = await claim(store, OTHER)
    claimed = await claim(store)
    acknowledged = replace(done.after, acknowledged_offset=1, acknowledged_position=1)
    await store.acknowledge({LOG: acknowledged, OTHER: replace(other, acknowledged_offset=5), ACME: acknowledged})
    assert await store.checkpoints() == {LOG: claimed, OTHER: replace(other, acknowledged_offset=5)}


async def test_a_commit_does_not_take_back_what_was_acknowledged_meanwhile(store: Store) -> None:
    first = await commit(store, LOG, await claim(store), ship(LOG, 1))
    next_plan = await plan(store, LOG, first.after, ship(LOG, 2))
    await store.acknowledge({LOG: replace(first.after, acknowledged_offset=1, acknowledged_position=1)})
    assert await store.commit([next_plan]) == {LOG: Committed.YES}
    assert await store.checkpoints() == {LOG: replace(next_plan.after, acknowledged_offset=1, acknowledged_position=1)}


async def test_acknowledging_nothing_is_nothing(store: Store) -> None:
    await store.acknowledge({})


# --- forget


async def refusals(store: Store) -> Checkpoint:
    """Six refusals at the offsets 0 to 5, with the log times 0 to 5 s; all are acknowledged but the last."""
    checkpoint = await claim(store)
    for second in range(6):
        command = ship(LOG, 1, expected_version=7, command_id=f"c-{second}")
        checkpoint = (await commit(store, LOG, checkpoint, command, time_ms=TIME_MS + second * 1000)).after
    await store.acknowledge({LOG: replace(checkpoint, acknowledged_offset=5)})
    return checkpoint


async def remembered(store: Store) -> tuple[list[int], list[str]]:
    commands = [(stream_of(LOG), f"c-{second}") for second in range(6)]
    view = (await store.load({LOG: Wanted({}, commands, list(range(6)))}))[LOG]
    return sorted(view.refused_at), sorted(command_id for _, command_id in view.refused)


async def test_old_refusals_are_forgotten_the_oldest_first(store: Store) -> None:
    await refusals(store)
    assert await store.forget_refused(LOG, TIME_MS + 3000, 2) == 2
    assert await remembered(store) == ([2, 3, 4, 5], ["c-2", "c-3", "c-4", "c-5"])
    assert await store.forget_refused(LOG, TIME_MS + 3000, 2) == 1
    assert await store.forget_refused(LOG, TIME_MS + 3000, 2) == 0
    assert await remembered(store) == ([3, 4, 5], ["c-3", "c-4", "c-5"])


async def test_a_refusal_that_is_not_acknowledged_is_not_forgotten(store: Store) -> None:
    await refusals(store)
    assert await store.forget_refused(LOG, TIME_MS + 1_000_000, 100) == 5
    assert await remembered(store) == ([5], ["c-5"])


async def test_other_logs_forget_nothing(store: Store) -> None:
    await refusals(store)
    await store.claim([OTHER])
    assert [await store.forget_refused(log, TIME_MS + 1_000_000, 100) for log in (OTHER, ACME)] == [0, 0]
    assert len((await remembered(store))[0]) == 6


# --- the readers' side


async def test_a_log_is_read_in_pages(store: Store) -> None:
    events = (await commit(store, LOG, await claim(store), *new_events(range(10)))).events
    assert await store.read_log(LOG, 0, 4) == events[:4]
    assert await store.read_log(LOG, 4, 4) == events[4:8]
    assert await store.read_log(LOG, 8, 4) == events[8:]
    assert await store.read_log(LOG, 10, 4) == []


async def test_a_stream_is_read_in_pages(store: Store) -> None:
    events = (
        await commit(store, LOG, await claim(store), ship(LOG, 1, 2), ship(LOG, 3, stream=1), ship(LOG, 4))
    ).events
    stream = [events[0], events[1], events[3]]
    assert await store.read_stream(LOG, stream_of(LOG), 0, 2) == stream[:2]
    assert await store.read_stream(LOG, stream_of(LOG), 2, 2) == stream[2:]
    assert await store.read_stream(LOG, stream_of(LOG), 3, 2) == []


async def test_streams_are_listed_in_the_order_in_which_they_began(store: Store) -> None:
    commands = [ship(LOG, n, stream=stream) for n, stream in enumerate((2, 0, 2, 1))]
    await commit(store, LOG, await claim(store), *commands)
    listed = [(n, StreamInfo(LOG, stream_of(LOG, of), version)) for n, of, version in ((1, 2, 2), (2, 0, 1), (3, 1, 1))]
    assert await store.streams(LOG, 0, 2) == listed[:2]
    assert await store.streams(LOG, 2, 2) == listed[2:]
    assert await store.streams(LOG, 3, 2) == []


async def test_what_is_not_there_reads_as_empty(store: Store) -> None:
    await claim(store)
    for log in (LOG, OTHER, ACME):
        assert await store.read_log(log, 0, 10) == []
        assert await store.read_stream(log, "order-1", 0, 10) == []
        assert await store.streams(log, 0, 10) == []
    await commit(store, LOG, await claim(store), ship(LOG, 1))
    assert await store.read_stream(LOG, "order-none", 0, 10) == []
    assert await store.read_stream(ACME, stream_of(LOG), 0, 10) == []


async def test_readers_beside_a_writer_see_whole_commits(store: Store) -> None:
    """Commits are of three events each, so what is read ends at a multiple of three, up to the watermark."""
    checkpoint = await claim(store)
    done = asyncio.Event()
    seen: list[int] = []

    async def read() -> None:
        while not done.is_set():
            before = (await store.checkpoints())[LOG]
            events = await whole_log(store)
            after = (await store.checkpoints())[LOG]
            assert [event.position for event in events] == list(range(1, len(events) + 1))
            assert before.next_position - 1 <= len(events) <= after.next_position - 1
            assert len(events) % 3 == 0
            stream = await store.read_stream(LOG, stream_of(LOG), 0, 1000)
            assert [event.version for event in stream] == list(range(1, len(stream) + 1))
            seen.append(len(events))
            await asyncio.sleep(0)  # a memory store never waits for anything

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for number in range(30):
        checkpoint = (await commit(store, LOG, checkpoint, ship(LOG, *range(3 * number, 3 * number + 3)))).after
        await store.acknowledge({LOG: replace(checkpoint, acknowledged_offset=number)})
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*readers)
    assert len(await whole_log(store)) == 90
    assert seen


async def test_a_writer_s_methods_may_run_at_the_same_time(store: Store) -> None:
    logs = [Log("default", partition) for partition in range(PARTITIONS)]
    checkpoints = await store.claim(logs)
    plans = [await plan(store, log, checkpoints[log], *new_events(range(50), log)) for log in logs]
    results = await asyncio.gather(
        *(store.commit([it]) for it in plans),
        *(store.load({log: Wanted({stream_of(log): [event_id(1)]}, [], [])}) for log in logs),
        store.acknowledge(checkpoints),
        store.claim([ACME]),
        store.forget_refused(LOG, 0, 10),
    )
    # An acknowledgement may hold a row just then, of this or another worker: the plan stands, and goes with the next.
    assert results[: len(plans)] == [{it.log: Committed.YES} for it in plans]


async def test_a_cancelled_commit_is_whole_or_nothing_and_leaves_the_store_usable(store: Store) -> None:
    checkpoint = await claim(store)
    for number in range(20):
        task = asyncio.create_task(
            store.commit([await plan(store, LOG, checkpoint, ship(LOG, 2 * number, 2 * number + 1))])
        )
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        checkpoint = await claim(store)
        assert checkpoint.next_position % 2 == 1
    done = await commit(store, LOG, checkpoint, ship(LOG, 1000))
    events = await whole_log(store)
    assert [event.position for event in events] == list(range(1, done.after.next_position))


# --- open and close


async def test_a_durable_store_is_there_again_after_it_was_closed(store: Store, store_url: str) -> None:
    done = await commit(store, LOG, await claim(store), ship(LOG, 1), b"no command")
    await store.close()
    again = open_store(store_url, partitions=PARTITIONS)
    await again.open()
    try:
        assert await again.checkpoints() == ({LOG: done.after} if again.durable else {})
        assert await whole_log(again) == (done.events if again.durable else [])
        assert again.durable is not store_url.startswith("memory")
    finally:
        await again.close()


async def test_a_store_may_be_closed_twice_and_before_it_was_opened(store: Store, store_url: str) -> None:
    await store.close()
    await store.close()
    await open_store(store_url, partitions=PARTITIONS).close()
