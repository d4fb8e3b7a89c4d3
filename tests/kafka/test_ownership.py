"""Claims, on the memory store: what happens to a log between its claim and its beginning."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

import processor.kafka.ownership
from processor.cycle import Cycles
from processor.fit import Found
from processor.kafka.ownership import Ownership
from processor.kafka.publish import LogPublisher, Outbound
from processor.messages import Limits, Log, Rules
from processor.names import TopicNames
from processor.stores.memory import MemoryStore
from tests.stores.logs import LOG, commit, ship

Find = Callable[[Sequence[Log], Mapping[Log, int | None]], Awaitable[dict[Log, Found]]]


class DurableStore(MemoryStore):
    durable = True


class Source:
    async def group_offsets(self, logs: Sequence[Log]) -> dict[Log, int | None]:
        return dict.fromkeys(logs)

    async def seek(self, seeks: Mapping[Log, tuple[int, int]]) -> set[Log]:
        return set()

    async def commit(self, offsets: Mapping[Log, int]) -> bool:
        return True


def publisher(log: Log, feed_position: int, reply_from: int) -> LogPublisher:
    outbound = Outbound({}, compression=None, max_record_bytes=1_000_000)
    return LogPublisher(
        log, outbound, TopicNames.of("t.", "default"), is_allowed=lambda _: False, feed_position=feed_position,
        reply_from=reply_from, backlog=10, on_room=lambda: None,
    )  # fmt: skip


def ownership_of(store: MemoryStore, find: Find) -> Ownership:
    ownership = Ownership(
        store, Source(), find, publisher, partitions=4, retention_ms=1_000, rebuild=False, on_crash=lambda _: None
    )
    ownership.cycles = Cycles(store, Rules(4), Limits(), batch_size=10, on_lost=ownership.lost)
    return ownership


async def is_claimed(ownership: Ownership) -> None:
    async with asyncio.timeout(5):
        while any(status.state == "claiming" for status in ownership.statuses.values()):
            await asyncio.sleep(0.01)


async def test_a_log_that_another_owner_went_on_with_during_the_claim_is_claimed_again_not_stopped() -> None:
    store = DurableStore()
    finds = 0

    async def find(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        nonlocal finds
        finds += 1
        if finds == 1:
            # One that is taken for dead, but lives: claims late, decides and publishes.
            await commit(store, LOG, (await store.claim([LOG]))[LOG], ship(LOG, 1))
        return {LOG: Found(begin=0, end=1, acknowledged=None, feed_position=1)}

    ownership = ownership_of(store, find)
    ownership.assigned([LOG])
    await is_claimed(ownership)
    assert (ownership.statuses[LOG].state, finds) == ("running", 2), ownership.statuses[LOG].reason
    await ownership.close()


async def test_a_log_that_is_fenced_while_it_is_revoked_is_not_claimed_again() -> None:
    class Fenced(Cycles):
        """The last cycle of the logs that are taken out comes back fenced."""

        async def remove(self, logs: Sequence[Log], timeout_s: float) -> None:
            leaving = [self.logs[log] for log in logs]
            await super().remove(logs, timeout_s)
            for owned in leaving:
                ownership.lost(owned, None)

    async def find(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        return {LOG: Found(begin=0, end=0, acknowledged=None, feed_position=0)}

    store = DurableStore()
    ownership = ownership_of(store, find)
    ownership.cycles = Fenced(store, Rules(4), Limits(), batch_size=10, on_lost=ownership.lost)
    ownership.assigned([LOG])
    await is_claimed(ownership)
    await ownership.revoked([LOG])
    assert ownership.statuses == {}
    ownership.assigned([LOG])
    await is_claimed(ownership)
    assert (await store.checkpoints())[LOG].epoch == 2
    await ownership.close()


@pytest.mark.parametrize(("begin", "state"), [(1, "running"), (2, "stopped")])
async def test_a_log_whose_records_are_deleted_before_they_are_read_stops_only_for_those_that_are_not_decided(
    begin: int, state: str
) -> None:
    deleted = 0

    async def find(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        return {LOG: Found(begin=deleted, end=3, acknowledged=None, feed_position=0)}

    store = DurableStore()
    await commit(store, LOG, (await store.claim([LOG]))[LOG], ship(LOG, 1))
    ownership = ownership_of(store, find)
    ownership.assigned([LOG])
    await is_claimed(ownership)
    deleted = begin
    ownership.out_of_range(LOG, 0)
    assert ownership.statuses[LOG].state == "claiming"
    # The report may come more than once.
    ownership.out_of_range(LOG, 0)
    await is_claimed(ownership)
    assert ownership.statuses[LOG].state == state
    assert ("deleted before they were decided" in ownership.statuses[LOG].reason) is (state == "stopped")
    await ownership.close()


async def test_what_is_assigned_while_the_worker_ends_is_not_claimed() -> None:
    async def find(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        return {LOG: Found(begin=0, end=0, acknowledged=None, feed_position=0)}

    store = DurableStore()
    ownership = ownership_of(store, find)
    ownership.assigned([LOG])
    await is_claimed(ownership)
    await ownership.close()
    ownership.assigned([LOG])
    assert ownership.statuses == {}
    await ownership.close()
    assert (await store.checkpoints())[LOG].epoch == 1


async def test_every_log_has_its_turn_to_forget_refusals_and_only_some_have_it_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    done = asyncio.Event()

    class Forgetting(DurableStore):
        async def forget_refused(self, log: Log, before_log_time_ms: int, limit: int) -> int:
            asked.append(log.partition)
            if len(asked) == 8:
                done.set()
            return await super().forget_refused(log, before_log_time_ms, limit)

    async def find(logs: Sequence[Log], group_offsets: Mapping[Log, int | None]) -> dict[Log, Found]:
        return {log: Found(begin=0, end=1, acknowledged=None, feed_position=1) for log in logs}

    monkeypatch.setattr(processor.kafka.ownership, "_ACKNOWLEDGE_EVERY_S", 0.001)
    monkeypatch.setattr(processor.kafka.ownership, "_FORGET_EVERY", 2)
    logs = [Log(LOG.tenant, partition) for partition in range(4)]
    store = Forgetting()
    for log in logs:
        await commit(store, log, (await store.claim([log]))[log], ship(log, 1))
    ownership = ownership_of(store, find)
    ownership.assigned(logs)
    await is_claimed(ownership)
    keeping = asyncio.create_task(ownership.keep_house())
    async with asyncio.timeout(5):
        await done.wait()
    keeping.cancel()
    await asyncio.wait([keeping])
    assert [sorted(asked[begin : begin + 2]) for begin in range(0, 8, 2)] == [[1, 3], [0, 2], [1, 3], [0, 2]]
    await ownership.close()
