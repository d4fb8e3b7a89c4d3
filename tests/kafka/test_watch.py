"""Who is stuck and who only waits, as the watch sees it."""

from collections.abc import Sequence
from typing import Literal

import pytest
from aiokafka.errors import KafkaConnectionError
from msgspec.structs import replace

from processor.balance import Loads
from processor.chain import genesis
from processor.errors import SchemaMismatch, StoreUnreachable
from processor.kafka.ownership import LogStatus, Standing
from processor.kafka.slices import Fetched
from processor.kafka.watch import Watch
from processor.messages import Checkpoint, Log
from processor.store import Usage
from processor.stores.memory import MemoryStore

LOG = Log("default", 3)
CHECKPOINT = Checkpoint(epoch=4, next_offset=10, next_position=21, streams=3, chain=genesis(LOG), log_time_ms=1_000)
DONE = Standing(CHECKPOINT, read_offset=10, acknowledged_offset=10, acknowledged_position=20)
ALL_FETCHED = Fetched(end=10, position=10, handed=10)


class World(MemoryStore):
    """A log, the store, the broker and the clock, as a test wants them; the watch looks every second."""

    def __init__(self) -> None:
        super().__init__()
        self.standing, self.fetched = DONE, ALL_FETCHED
        self.loads = Loads()
        self.statuses = {LOG: LogStatus("running")}
        self.store_fault: Exception | None = None
        self.broker_fault: Exception | None = None
        self.faults = 0
        self.now_s = 100.0
        self.watch = Watch(
            self, self, self.ask, faults=lambda: self.faults, stall_timeout_s=10, clock=lambda: self.now_s
        )  # fmt: skip

    def standings(self) -> dict[Log, Standing]:
        return {LOG: self.standing}

    async def ask(self, logs: Sequence[Log]) -> dict[Log, Fetched]:
        if self.broker_fault is not None:
            raise self.broker_fault
        return dict.fromkeys(logs, self.fetched)

    async def examine(self) -> Usage:
        if self.store_fault is not None:
            raise self.store_fault
        return Usage(1_000, 1, 5)

    async def pass_s(self, seconds: int) -> list[Log]:
        for _ in range(seconds):
            self.now_s += 1
            await self.watch.look()
        return self.watch.stuck


WAITING = {
    "on the broker": (DONE, Fetched(12, 10, 10)),
    "between consumer and agent": (DONE, Fetched(12, 12, 12)),
    "for a cycle": (replace(DONE, read_offset=12), Fetched(12, 12, 12)),
    "for its reply": (replace(DONE, acknowledged_offset=9), ALL_FETCHED),
    "for the feed": (replace(DONE, acknowledged_position=19), ALL_FETCHED),
}


@pytest.mark.parametrize(("standing", "fetched"), WAITING.values(), ids=WAITING.keys())
async def test_what_waits_and_does_not_move_is_stuck_until_it_moves(standing: Standing, fetched: Fetched) -> None:
    world = World()
    world.standing, world.fetched = standing, fetched
    assert await world.pass_s(10) == []
    assert await world.pass_s(1) == [LOG]
    world.standing = replace(standing, checkpoint=replace(CHECKPOINT, next_offset=11))
    assert await world.pass_s(1) == []


IDLE = {
    "all is done": (DONE, ALL_FETCHED),
    "the end of the log is no command": (DONE, Fetched(12, 12, 10)),
    "what was decided last was no command, and is not read again": (
        replace(DONE, read_offset=9, acknowledged_offset=9), Fetched(10, 10, 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("standing", "fetched"), IDLE.values(), ids=IDLE.keys())
async def test_an_idle_log_is_never_stuck(standing: Standing, fetched: Fetched) -> None:
    world = World()
    world.standing, world.fetched = standing, fetched
    assert await world.pass_s(30) == []
    (log,) = world.watch.reading().logs
    assert (log.lag, log.behind_s) == (0, 0.0)


@pytest.mark.parametrize("why", ["store", "broker", "retries"])
async def test_what_is_in_its_way_excuses_a_log(why: Literal["store", "broker", "retries"]) -> None:
    world = World()
    world.standing, world.fetched = WAITING["for a cycle"]
    for _ in range(30):
        if why == "store":
            world.store_fault = StoreUnreachable("the server is away")
        elif why == "broker":
            world.broker_fault = KafkaConnectionError("no broker")
        else:
            world.faults += 1
        assert await world.pass_s(1) == []
    world.store_fault = world.broker_fault = None
    assert await world.pass_s(9) == []
    assert await world.pass_s(2) == [LOG]


async def test_a_log_that_moves_slowly_is_not_stuck() -> None:
    world = World()
    for done in range(10, 20):
        checkpoint = replace(CHECKPOINT, next_offset=done)
        world.standing = Standing(checkpoint, read_offset=100, acknowledged_offset=done, acknowledged_position=20)
        world.fetched = Fetched(1_000, 100, 100)
        assert await world.pass_s(9) == []


@pytest.mark.parametrize("error", [StoreUnreachable("the server is away"), SchemaMismatch("schema 0009 is newer")])
async def test_what_the_store_says_is_known(error: Exception) -> None:
    world = World()
    assert world.watch.store_fault == "not asked yet"
    await world.watch.look()
    assert (world.watch.store_fault, world.watch.reading().store) == ("", Usage(1_000, 1, 5))
    world.store_fault = error
    await world.watch.look()
    assert (world.watch.store_fault, world.watch.reading().store) == (str(error), None)


async def test_where_a_log_is_is_read_at_any_time() -> None:
    world = World()
    world.standing = replace(DONE, acknowledged_offset=7, acknowledged_position=16)
    world.fetched = Fetched(110, 60, 55)
    assert world.watch.reading().logs[0].lag is None
    await world.watch.look()
    reading = world.watch.reading()
    (log,) = reading.logs
    assert reading.states == {"claiming": 0, "running": 1, "stopped": 0}
    assert (log.epoch, log.watermark, log.lag, log.feed_backlog, log.reply_backlog) == (4, 20, 95, 4, 3)
    assert log.behind_s > 1_000_000
