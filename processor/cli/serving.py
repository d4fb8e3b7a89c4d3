"""A worker as a process: its event loop, its log and its signals."""

import asyncio
import os
import signal
import sys

import structlog

from processor.cli.logs import configure_logs
from processor.cli.tuning import new_event_loop, tune_interpreter
from processor.kafka.batches import NATIVE
from processor.settings import Settings
from processor.watchdog import watching
from processor.worker import Worker

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
    logger.info("the worker starts", native=NATIVE)
    with watching(loop, stall_timeout_s):
        await worker.run()
    logger.info("the worker has ended")


def _stop(worker: Worker, number: signal.Signals) -> None:
    logger.info("ending", signal=signal.Signals(number).name)
    worker.stop()
    asyncio.get_running_loop().call_later(_END_WITHIN_S, _end)


def _end() -> None:
    """While the broker is away, the clients wait for it: to be joined, to be left, to acknowledge."""
    logger.warning("not everything could be let go of in time, ending: the next owner publishes what is left")
    sys.stderr.flush()
    os._exit(0)
