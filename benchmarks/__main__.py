"""Run the benchmarks and print their table; the whole result goes to `.build/bench.json`."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.bed import Bed, StoreKind, bed, say
from benchmarks.drain import Drained, drain
from benchmarks.latency import RATE, WARM_UP_S, Latency, latency
from benchmarks.load import commands
from benchmarks.report import Result, drain_rows, latency_rows, machine, print_table

NAMES = ("drain-sqlite", "drain-postgres", "latency-sqlite", "latency-postgres")
RESULT = Path(".build/bench.json")

_Run = TypeVar("_Run", Drained, Latency)


def main() -> None:
    options = _options()
    # So that a bench that is ended ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with bed(with_postgres=any(name.endswith("postgres") for name in options.only)) as on:
        result = asyncio.run(_measure(on, options))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if options.output == "json":
        print(RESULT.read_text(), end="")
    else:
        print_table(result)
    sys.exit(1 if result.failures else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--commands", type=int, default=40_000, help="commands of a drain (40,000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a latency run (10)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, of which the median counts (3)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser.parse_args()


async def _measure(on: Bed, options: argparse.Namespace) -> Result:
    result = Result(machine(), options.commands, options.seconds, options.runs)
    for name in options.only:
        what, _, store = name.partition("-")
        kind: StoreKind = "postgres" if store == "postgres" else "sqlite"
        if what == "drain":
            records = list(commands(options.commands))
            drained = await _alternate(name, options.runs, partial(drain, on, kind, records))
            result.add(name, drain_rows(store, *drained), *drained)
        else:
            records = list(commands(int((WARM_UP_S + options.seconds) * RATE)))
            waited = await _alternate(name, options.runs, partial(latency, on, kind, records))
            result.add(name, latency_rows(store, *waited), *waited)
    return result


async def _alternate(name: str, runs: int, run: Callable[..., Awaitable[_Run]]) -> tuple[list[_Run], list[_Run]]:
    """The worker's runs and the yardstick's, in turns, so that what else the machine does meets both."""
    ours: list[_Run] = []
    yardstick: list[_Run] = []
    for number in range(1, runs + 1):
        for bare, done in ((True, yardstick), (False, ours)):
            done.append(await run(bare=bare))
            say(f"{name} {number}/{runs} {'yardstick' if bare else 'worker'}: {done[-1]}")
    return ours, yardstick


if __name__ == "__main__":
    main()
