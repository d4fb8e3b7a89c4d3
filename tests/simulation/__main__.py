"""`python -m tests.simulation --seeds 20000` runs seeds, `--seed N --trace` shows what happens in one."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Result, run_seed, run_seeds

_AT_ONCE = 100
_SHOW_EVERY_S = 5.0


def main() -> int:
    """0 where every promise was kept, 1 where one was not."""
    asked = _asked()
    if asked.seed is not None:
        return _run_one(asked.seed, trace=asked.trace)
    return _run_many(range(asked.first, asked.first + asked.seeds), asked.jobs)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run (default: %(default)s)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run them in (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="run only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: show what happened, step by step")
    return parser.parse_args()


def _run_one(seed: int, *, trace: bool) -> int:
    result = run_seed(seed, trace=trace)
    for note in result.notes:
        _say(note)
    _say(result.violation or "every promise was kept")
    return 1 if result.violation else 0


def _run_many(seeds: range, jobs: int) -> int:
    begun = shown = time.monotonic()
    done = failed = 0
    for results in _results(seeds, jobs):
        done += len(results)
        for result in results:
            if result.violation:
                failed += 1
                _say(f"seed {result.seed}: {result.violation}")
        now = time.monotonic()
        if now - shown > _SHOW_EVERY_S or done == len(seeds):
            shown = now
            _say(f"{done:,} of {len(seeds):,} seeds, {failed} failed, {done / (now - begun):.0f} per second")
    return 1 if failed else 0


def _results(seeds: range, jobs: int) -> Iterator[list[Result]]:
    pieces: Iterable[range] = (seeds[start : start + _AT_ONCE] for start in range(0, len(seeds), _AT_ONCE))
    if jobs == 1:
        yield from map(run_seeds, pieces)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run_seeds, pieces)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
