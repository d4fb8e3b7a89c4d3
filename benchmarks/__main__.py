"""Run the benchmarks, print their table, and keep the last result of each, with every run, in `.build/bench.json`."""

import argparse
import asyncio
import signal
import sys
import time

from aiokafka.errors import KafkaError

from benchmarks.bed import Bed, bed, say
from benchmarks.experiment import EXPERIMENTS, Experiment, Options, warm_up
from benchmarks.report import Result, encoded, keep, machine, print_table
from processor.errors import TidemarkError

_FAULTS = (TidemarkError, KafkaError, TimeoutError, RuntimeError, OSError)


def main() -> None:
    given = _options()
    options = Options(given.commands, given.seconds, given.runs, given.stored)
    # So that a bench that is ended ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result = Result(machine(), options)
    try:
        with bed() as on:
            asyncio.run(_measure(on, result, given.only))
    finally:
        # What was measured before it was interrupted, too.
        keep(result)
    if given.output == "json":
        print(encoded(result).decode(), end="")
    else:
        print_table(result)
    sys.exit(1 if result.failures else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = tuple(EXPERIMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--commands", type=int, default=40_000, help="commands of a drain (40,000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a latency run (8)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median counts (5)")
    parser.add_argument("--stored", type=int, default=10_000_000, help="events in a large store (10,000,000)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser.parse_args()


async def _measure(on: Bed, result: Result, names: list[str]) -> None:
    say("warming up the broker")
    await warm_up(on, result.options)
    for name in names:
        begin = time.monotonic()
        try:
            async with EXPERIMENTS[name](on, result.options) as experiment:
                await _run(name, experiment, result)
        except _FAULTS as error:
            # The others are worth having all the same.
            result.broken[name] = str(error) or type(error).__name__
            say(f"{name}: {result.broken[name]}")
        say(f"{name}: {time.monotonic() - begin:.0f} s")


async def _run(name: str, experiment: Experiment, result: Result) -> None:
    runs = result.runs[name] = {side: [] for side in (*experiment.sides, *experiment.last)}
    turns = [experiment.sides] * result.options.runs + [experiment.last]
    for number, sides in enumerate(turns, 1):
        for side, run in sides.items():
            runs[side].append(await run())
            say(f"{name} {number} {side}: {runs[side][-1]}")
    result.rows += experiment.rows(runs)


if __name__ == "__main__":
    main()
