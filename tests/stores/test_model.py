"""Every store against a model of dicts: owners come and go, commit late, acknowledge, forget; stores are re-opened."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from processor.chain import genesis
from processor.messages import Checkpoint, Head, KnownEvent, Log, Plan, RecordedEvent, RefusedCommand, View, Wanted
from processor.store import Committed, Store
from processor.stores import open_store
from tests.records import RULES
from tests.stores.logs import PARTITIONS, TIME_MS, event_id, plan, ship, stream_of

_Result = TypeVar("_Result")

IDS = range(12)
COMMANDS = ["c-0", "c-1", "c-2"]


class ModelLog:
    """What a store has to know of a log, written down in the plainest way."""

    def __init__(self, log: Log) -> None:
        self.checkpoint = Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(log))
        self.events: list[RecordedEvent] = []
        self.heads: dict[str, Head] = {}
        self.refused: list[RefusedCommand] = []

    def takes(self, plan: Plan) -> bool:
        at, before = self.checkpoint, plan.before
        return (at.epoch, at.next_offset) == (before.epoch, before.next_offset)

    def apply(self, plan: Plan) -> None:
        self.events += plan.events
        self.heads |= plan.heads
        self.refused += plan.refused
        self.checkpoint = replace(
            plan.after,
            acknowledged_offset=self.checkpoint.acknowledged_offset,
            acknowledged_position=self.checkpoint.acknowledged_position,
        )

    def view(self) -> View:
        return View(
            heads=dict(self.heads),
            known={(it.stream, it.event_id): KnownEvent.of(it) for it in self.events},
            refused={(it.stream, it.command_id): it for it in self.refused if it.stream and it.command_id},
            refused_at={it.offset: it for it in self.refused},
        )


class StoreMachine(RuleBasedStateMachine):
    """Each example has a tenant of its own, so that one database serves them all."""

    owners = Bundle("owners")
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.opened()
        tenant = uuid4().hex
        self.logs = [Log(tenant, 1), Log(tenant, 2)]
        self.model = {log: ModelLog(log) for log in self.logs}
        self.claimed: set[Log] = set()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self.runner.run(work)

    def opened(self) -> Store:
        store = open_store(self.url, partitions=PARTITIONS)
        self.run(store.open())
        return store

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    @initialize(target=owners)
    def first_owner(self) -> dict[Log, Checkpoint]:
        return self.claim(self.logs[:1])

    @rule(target=owners, which=st.sampled_from([[0], [1], [0, 1], [1, 0]]))
    def claim_some(self, which: list[int]) -> dict[Log, Checkpoint]:
        return self.claim([self.logs[index] for index in which])

    def claim(self, logs: list[Log]) -> dict[Log, Checkpoint]:
        claimed = self.run(self.store.claim(logs))
        for log in logs:
            model = self.model[log]
            model.checkpoint = replace(model.checkpoint, epoch=model.checkpoint.epoch + 1)
            self.claimed.add(log)
        assert claimed == {log: self.model[log].checkpoint for log in logs}
        return claimed

    @rule(
        owner=owners,
        later_ms=st.sampled_from([0, 1, RULES.retention_ms + 1]),
        commands=st.lists(
            st.tuples(
                st.integers(0, 2),
                st.lists(st.sampled_from(IDS), min_size=1, max_size=3),
                st.sampled_from(["any", "no_stream", 0, 1, 2, 5]),
                st.sampled_from([None, *COMMANDS]),
            ),
            max_size=5,
        ),
        copies=st.sampled_from([0, 0, 0, 250]),
    )
    def commit(
        self,
        owner: dict[Log, Checkpoint],
        later_ms: int,
        commands: list[tuple[int, list[int], str | int, str | None]],
        copies: int,
    ) -> None:
        """All logs of an owner go on from where it last saw them, in one commit; the owner may be stale."""
        plans = []
        for log, seen in owner.items():
            values: list[Any] = [
                ship(log, *ids, stream=stream, expected_version=expected, **({"command_id": named} if named else {}))
                for stream, ids, expected, named in commands
            ]
            values += [ship(log, 1_000 + seen.next_offset * 1_000 + n, stream=n % 9) for n in range(copies)]
            if values:
                time_ms = max(seen.log_time_ms, TIME_MS) + later_ms
                plans.append(self.run(plan(self.store, log, seen, *values, time_ms=time_ms)))
        expected = {it.log: Committed.YES if self.model[it.log].takes(it) else Committed.FENCED for it in plans}
        assert self.run(self.store.commit(plans)) == expected
        for it in plans:
            if expected[it.log] is Committed.YES:
                self.model[it.log].apply(it)
                owner[it.log] = it.after

    @rule(owner=owners, offsets_back=st.integers(0, 3), positions_back=st.integers(0, 3))
    def acknowledge(self, owner: dict[Log, Checkpoint], offsets_back: int, positions_back: int) -> None:
        given = {
            log: replace(
                seen,
                acknowledged_offset=max(0, seen.next_offset - offsets_back),
                acknowledged_position=max(0, seen.next_position - 1 - positions_back),
            )
            for log, seen in owner.items()
        }
        self.run(self.store.acknowledge(given))
        for log, to in given.items():
            now = self.model[log].checkpoint
            if now.epoch == to.epoch:
                self.model[log].checkpoint = replace(
                    now,
                    acknowledged_offset=max(now.acknowledged_offset, to.acknowledged_offset),
                    acknowledged_position=max(now.acknowledged_position, to.acknowledged_position),
                )

    @rule(which=st.integers(0, 1), before_ms=st.sampled_from([0, 1, RULES.retention_ms * 3]), limit=st.integers(1, 4))
    def forget(self, which: int, before_ms: int, limit: int) -> None:
        log = self.logs[which]
        model = self.model[log]
        gone = [
            it
            for it in model.refused
            if it.log_time_ms < TIME_MS + before_ms and it.offset < model.checkpoint.acknowledged_offset
        ][:limit]
        assert self.run(self.store.forget_refused(log, TIME_MS + before_ms, limit)) == len(gone)
        model.refused = [it for it in model.refused if it not in gone]

    @rule()
    def open_again(self) -> None:
        if self.store.durable:
            self.run(self.store.close())
            self.store = self.opened()

    @rule(which=st.integers(0, 1), limit=st.integers(1, 7))
    def read_in_pages(self, which: int, limit: int) -> None:
        log = self.logs[which]
        assert self.run(self.pages(log, limit)) == self.model[log].events
        for name in self.model[log].heads:
            events = [it for it in self.model[log].events if it.stream == name]
            assert self.run(self.store.read_stream(log, name, limit, 1_000)) == events[limit:]

    async def pages(self, log: Log, limit: int) -> list[RecordedEvent]:
        read: list[RecordedEvent] = []
        while page := await self.store.read_log(log, read[-1].position if read else 0, limit * 20):
            read += page
        return read

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        checkpoints = self.run(self.store.checkpoints())
        for log, model in self.model.items():
            assert checkpoints.get(log) == (model.checkpoint if log in self.claimed else None)
            names = [stream_of(log, number) for number in range(9)]
            ids = [event_id(number) for number in IDS]
            offsets = list(range(model.checkpoint.next_offset + 2))
            commands = [(name, command_id) for name in names[:3] for command_id in COMMANDS]
            found = self.run(self.store.load({log: Wanted(dict.fromkeys(names, ids), commands, offsets)}))[log]
            expected = model.view()
            expected.known = {key: it for key, it in expected.known.items() if key[1] in ids}
            assert found == expected
            listed = self.run(self.store.streams(log, 0, 100))
            assert {info.stream: Head(number, info.version) for number, info in listed} == model.heads


def test_any_store_does_what_the_model_does(store_url: str) -> None:
    machine = type("Machine", (StoreMachine,), {"url": store_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
