"""A steady load on every partition, and in the end the verdict: runs in a pod beside the workers.

`python -m tests.chart.load run` appends until it gets SIGINT, then checks the history, and prints one JSON document
with the breaches and, for each phase, the longest pause of any partition. `… mark NAME` begins a phase, as soon as all
partitions answer again.
"""

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path

import msgspec

from processor.client import Client
from processor.messages import Command
from processor.partition import partition_of
from processor.settings import Settings, load_settings
from tests.faults.checker import check
from tests.faults.evidence import collect, lag_is_zero
from tests.faults.history import Entry, Load, Recorder

FOLDER = Path("/tmp")
HISTORY = FOLDER / "history.jsonl"
MARKS = FOLDER / "marks.jsonl"

_EVERY_S = 0.1
_CLIENTS = 2
_SETTLE_S = 60.0
_decode = msgspec.json.Decoder(Entry).decode


class Steady(Load):
    """Clients of one partition, which append again and again after a while, not as soon as they can."""

    async def _append(self, client: Client, command: Command) -> None:
        await asyncio.sleep(_EVERY_S)
        await super()._append(client, command)


def stream_of(partition: int, partitions: int) -> str:
    """The name of a stream that is in a partition."""
    names = (f"load-{number}" for number in count())
    return next(name for name in names if partition_of(name.encode(), partitions) == partition)


async def run(settings: Settings) -> dict[str, object]:
    """Append until SIGINT; returns the verdict."""
    recorder = Recorder(HISTORY)
    loads = [
        Steady(
            settings, recorder, clients=_CLIENTS, streams=[stream_of(partition, settings.partitions)], seed=partition
        )
        for partition in range(settings.partitions)
    ]
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, told.set)
    running = [asyncio.create_task(load.run()) for load in loads]
    await told.wait()
    mark("end")
    for load in loads:
        load.end()
    await asyncio.gather(*running)
    for load in loads:
        await load.settle(_SETTLE_S)
    recorder.close()
    await lag_is_zero(settings, _SETTLE_S)
    breaches = check(await collect(settings, HISTORY))
    return {"breaches": breaches, "answers": recorder.answers, "pauses": pauses(settings.partitions)}


def mark(name: str) -> None:
    """Write down that a phase begins now."""
    with MARKS.open("a") as marks:
        marks.write(json.dumps([name, time.monotonic_ns()]) + "\n")


def await_answers(partitions: int) -> None:
    """Wait until every partition has given an answer from now on. Raises `TimeoutError`."""
    seen, deadline = HISTORY.stat().st_size, time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        with HISTORY.open("rb") as history:
            history.seek(seen)
            # The last line may still be being written.
            entries = [_decode(line) for line in history.read().split(b"\n")[:-1]]
        if len(_answered(entries)) == partitions:
            return
        time.sleep(_EVERY_S)
    raise TimeoutError


def pauses(partitions: int) -> dict[str, float]:
    """For each phase the longest time, in seconds, in which some partition gave no answer, and began or ended in it."""
    marks = [json.loads(line) for line in MARKS.read_text().splitlines()]
    gaps = _gaps(partitions)
    longest: dict[str, float] = {}
    for (name, begin), (_, end) in pairwise(marks):
        within = [after - before for before, after in gaps if after >= begin and before < end]
        longest[name] = round(max(within) / 1e9, 2)
    return longest


def _gaps(partitions: int) -> Sequence[tuple[int, int]]:
    """From each answer of a partition to its next one, by the clock of the history."""
    answered = _answered([_decode(line) for line in HISTORY.read_bytes().splitlines()])
    assert len(answered) == partitions, "some partition never gave an answer"
    return [gap for times in answered.values() for gap in pairwise(times)]


def _answered(entries: Sequence[Entry]) -> dict[int, list[int]]:
    """By partition, when it gave answers."""
    answered: dict[int, list[int]] = defaultdict(list)
    for entry in entries:
        if not isinstance(entry.outcome, msgspec.UnsetType):
            answered[entry.outcome.partition].append(entry.at_ns)
    return answered


def main() -> None:
    if sys.argv[1] == "mark":
        if MARKS.exists():
            await_answers(load_settings().partitions)
        mark(sys.argv[2])
    else:
        print(json.dumps(asyncio.run(run(load_settings()))), flush=True)


if __name__ == "__main__":
    main()
