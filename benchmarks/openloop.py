"""Open loop: commands are sent when they are due, whatever has been answered, at shares of the drain rate.

Each command's time counts from when it was due, so that a stall is seen by all whom it would have kept waiting.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import quantiles

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from msgspec import Struct

from benchmarks.bed import Bed
from benchmarks.client import BatchingClient, Waits
from benchmarks.invariants import check_run
from benchmarks.load import HOT_PARTITION, CommandRecord, Commands, Mix
from benchmarks.process import WORKER, running

SHARES = (25, 50, 75, 90)
HOT_AT = 50

_HOT = Mix(hot_share=0.9)
_WARM_UP_RATE, _WARM_UP_S = 10_000.0, 1.0
_NOT_COUNTED = 0.1
"""The beginning of each level, while queues fill."""


class Level(Struct):
    """A steady rate for a while. `percents`: the 1st to the 99th percentile in ms; p99_ms of these is the last."""

    rate: float
    p99_ms: float
    percents: list[float]

    def __repr__(self) -> str:
        return f"{self.rate:.0f}/s: {self.p99_ms:.1f} ms"


class Offered(Struct):
    """One run; `levels` by their share of the drain rate. `failure`: why none of them counts.

    even_ms, hot_ms: p99 of the partitions beside the hot one, under even load and beside it.
    """

    levels: dict[str, Level] = {}
    even_ms: float | None = None
    hot_ms: float | None = None
    failure: str | None = None


async def offer(bed: Bed, drain_rate: Callable[[], Awaitable[float]], seconds: float) -> Offered:
    """All levels one after the other, each for so many seconds, on PostgreSQL; one of them with a hot partition, too.

    A drain before each level says what 100% is: in the minute that they take, the machine's speed may change.
    """
    load, sent = Commands(), list[CommandRecord]()
    offered = Offered()
    async with bed.site("postgres") as site:
        try:
            async with AsyncExitStack() as stack:
                worker = await stack.enter_async_context(running(WORKER, site.environment()))
                await worker.ready()
                client = await stack.enter_async_context(BatchingClient(site))

                async def at(rate: float, seconds: float, mix: Mix | None = None) -> Waits:
                    records = load.take(int(rate * seconds), mix)
                    sent.extend(records)
                    await bed.settle()
                    waits = await client.measure(records, rate)
                    worker.check()
                    return waits[int(len(waits) * _NOT_COUNTED) :]

                await at(_WARM_UP_RATE, _WARM_UP_S)
                for share in SHARES:
                    rate = share / 100 * await drain_rate()
                    waits = await at(rate, seconds)
                    offered.levels[str(share)] = _level(rate, waits)
                    if share == HOT_AT:
                        offered.even_ms = _p99_beside_hot(waits)
                        offered.hot_ms = _p99_beside_hot(await at(rate, seconds, _HOT))
        except (TimeoutError, RuntimeError, KafkaException, KafkaError) as error:
            return Offered(failure=str(error) or "not every command was answered in time")
        failure = await check_run(site, sent)
    return offered if failure is None else Offered(failure=failure)


def _level(rate: float, waits: Waits) -> Level:
    percents = quantiles([waited for _, waited in waits], n=100, method="inclusive")
    return Level(rate, percents[-1], percents)


def _p99_beside_hot(waits: Waits) -> float:
    beside = [waited for partition, waited in waits if partition != HOT_PARTITION]
    return quantiles(beside, n=100, method="inclusive")[-1]
