"""`tidemark stress` on parts made for it, SQLite and then PostgreSQL: `python -m benchmarks.stress`.

Arguments are handed on, `--rate 500 --duration 1m` for one. Reports go to `.build/stress-….html` and `.json`.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.bed import Bed, StoreKind, bed, say
from benchmarks.process import WORKER, running
from benchmarks.report import RESULT

_KINDS: tuple[StoreKind, ...] = ("sqlite", "postgres")


async def _stress(on: Bed, kind: StoreKind, arguments: Sequence[str]) -> int:
    report = RESULT.parent / f"stress-{kind}"
    async with on.site(kind) as site, running(WORKER, site.environment()) as worker:
        await worker.ready()
        command = [sys.executable, "-m", "processor.cli", "stress", "--watch", str(worker.pid)]
        command += ["--html", f"{report}.html", "--json", f"{report}.json", *arguments]
        stress = await asyncio.create_subprocess_exec(*command, env=site.environment())
        for number in (signal.SIGINT, signal.SIGTERM):
            # Ctrl-C in a terminal reaches it by itself, and a second one does no harm.
            asyncio.get_running_loop().add_signal_handler(number, _hand_on, stress)
        ended = await stress.wait()
        worker.check()
    return ended


def _hand_on(stress: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        stress.send_signal(signal.SIGINT)


def main() -> None:
    RESULT.parent.mkdir(exist_ok=True)
    worst = 0
    with bed() as on:
        for kind in _KINDS:
            say(f"--- {kind}")
            worst = max(worst, asyncio.run(_stress(on, kind, sys.argv[1:])))
    sys.exit(worst)


if __name__ == "__main__":
    main()
