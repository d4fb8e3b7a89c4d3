"""The store without Kafka, one process each: `python -m benchmarks.alone cycles COMMANDS` and `… bulk COMMANDS`.

They take the worker's settings from the environment and print the commands a second.

cycles: the worker's own cycles, from the bytes of the commands, handed over slice by slice, through decode, load,
decide and commit, to a publisher that throws away. bulk: as many ready-made rows of `events` by the database's bulk
path, a cycle's worth in a transaction.
"""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence

import uvloop

from benchmarks.bare import inserting
from benchmarks.bed import LOGS, Bed, StoreKind
from benchmarks.drain import Drained, counted
from benchmarks.invariants import check_store
from benchmarks.load import CommandRecord, by_partition, commands
from benchmarks.ready import StoredRow, ready
from processor.cli.tuning import tune_interpreter
from processor.cycle import REFUSED_KEPT, Cycles, OwnedLog
from processor.errors import Misfit, TidemarkError
from processor.messages import Log, Publication, Slice
from processor.settings import Settings, load_settings
from processor.stores import open_store

_SLICE = 1_000
"""About what a fetch of one partition holds."""
_LONGEST_S = 120.0


class _Nowhere:
    """A publisher that throws away `count` answers, and says when it has."""

    has_room = True

    def __init__(self, count: int) -> None:
        self.done = asyncio.Event()
        self._left = count

    def put(self, publication: Publication) -> None:
        self._left -= len(publication.answers)
        if self._left <= 0:
            self.done.set()


async def cycles(settings: Settings, records: Sequence[CommandRecord]) -> float:
    """Decide and commit all; returns the seconds."""
    store = open_store(settings.store, partitions=settings.partitions, durability=settings.durability)
    await store.open()
    engine = Cycles(store, settings.rules, settings.limits, batch_size=settings.batch_size, on_lost=_lost)
    outlet = _Nowhere(len(records))
    refused = await store.refused_ids(LOGS, REFUSED_KEPT)
    for log, checkpoint in (await store.claim(LOGS)).items():
        engine.add(OwnedLog(log, checkpoint, outlet, 1, 0, 0, refused[log]))
    of_partition = by_partition(records)
    waiting = {log: of_partition[log.partition] for log in LOGS}
    work = [asyncio.create_task(one) for one in (engine.run(), _feed(engine, waiting), outlet.done.wait())]
    try:
        begin = time.perf_counter()
        for task in asyncio.as_completed(work):
            # The feeding ends first, then the last answer is given; the cycles end by a fault alone.
            await task
            if outlet.done.is_set():
                break
        return time.perf_counter() - begin
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await store.close()


async def _feed(engine: Cycles, waiting: dict[Log, list[CommandRecord]]) -> None:
    """Hand each log its next slice whenever it wants one, until all are handed over."""
    while waiting:
        engine.wanting.clear()
        for log in engine.to_fetch() & waiting.keys():
            begin = engine.logs[log].read_offset
            of = waiting[log][begin : begin + _SLICE]
            if of:
                engine.offer(Slice(log, 1, begin, begin + len(of), of))
            else:
                del waiting[log]
        await engine.wanting.wait()


def _lost(owned: OwnedLog, why: Misfit | None) -> None:
    raise TidemarkError(f"{owned.log} was lost: {why}")


async def bulk(settings: Settings, rows: Sequence[StoredRow]) -> float:
    """Insert all; returns the seconds."""
    async with inserting(settings) as insert:
        begin = time.perf_counter()
        for start in range(0, len(rows), settings.batch_size):
            await insert(rows[start : start + settings.batch_size])
        return time.perf_counter() - begin


async def alone(bed: Bed, kind: StoreKind, count: int, what: str) -> Drained:
    """`cycles` or `bulk`, in a process of its own, on a store of its own."""
    async with bed.site(kind) as site:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.alone", what, str(count), env=site.environment(), stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(_LONGEST_S):
                told, complaint = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return Drained(failure=f"not done in {_LONGEST_S:.0f} s")
        if process.returncode:
            return Drained(failure=complaint.decode()[-1_000:])
        failure = None
        if what == "cycles":
            failure = await check_store(site.settings.store, commands(count))
        return counted(Drained(float(told), count), failure)


def main() -> None:
    settings = load_settings()
    match sys.argv[1:]:
        case ["cycles", count]:
            records = commands(int(count))
            tune_interpreter()
            print(int(count) / uvloop.run(cycles(settings, records)))
        case ["bulk", count]:
            made = ready(commands(int(count)), 1, settings.store)
            rows = [row for of_partition in made.values() for row in of_partition.rows]
            tune_interpreter()
            print(int(count) / uvloop.run(bulk(settings, rows)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
