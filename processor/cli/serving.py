"""A worker as a process: its event loop, its log and its signals."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

import structlog

from processor.cli.logs import configure_logs
from processor.settings import Settings
from processor.watchdog import watching
from processor.worker import Worker

try:
    import uvloop
except ImportError:  # there is no wheel for this platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

# For how long a thread that computes keeps another waiting that has only to take up an answer: the fetching, SQLite's.
_SWITCH_INTERVAL_S = 0.0005
# Below what supervisors usually wait before they kill: 30 s in Kubernetes.
_END_WITHIN_S = 20.0

logger = structlog.get_logger(__name__)


def serve(settings: Settings, *, rebuild: bool) -> None:
    """Run a worker until a signal ends it. Raises what `Worker.run` raises."""
    configure_logs(settings)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(Worker(settings, rebuild=rebuild), settings.stall_timeout_s))


async def _serve(worker: Worker, stall_timeout_s: float) -> None:
    tune_interpreter()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, worker, number)
    logger.info("the worker starts")
    with watching(loop, stall_timeout_s):
        await worker.run()
    logger.info("the worker has ended")


def tune_interpreter() -> None:
    """Look for cyclic garbage rarely, and let threads change more often.

    Records, events and outcomes are many and alive at once, and form no cycles: with Python's defaults the collector
    takes a third of a busy worker's time to find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def _stop(worker: Worker, number: signal.Signals) -> None:
    logger.info("ending", signal=signal.Signals(number).name)
    worker.stop()
    asyncio.get_running_loop().call_later(_END_WITHIN_S, _end)


def _end() -> None:
    """While the broker is away, the clients wait for it: to be joined, to be left, to acknowledge."""
    logger.warning("not everything could be let go of in time, ending: the next owner publishes what is left")
    sys.stderr.flush()
    os._exit(0)
