"""Send to reply: an open loop at a steady rate, each command's time counted from when it was due to be sent.

The client is the same for the worker and for the echo.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import quantiles

from confluent_kafka import KafkaException
from msgspec import Struct

from benchmarks.bed import Bed, Site, StoreKind
from benchmarks.client import Client, Waits
from benchmarks.invariants import check_run
from benchmarks.load import CommandRecord
from benchmarks.process import BARE_ECHO, WORKER, running

RATE = 200
WARM_UP_S = 2.0


class Latency(Struct):
    """One run, in milliseconds. `failure` says what went wrong; such a run counts as endless (None)."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    failure: str | None = None


async def latency(bed: Bed, kind: StoreKind, records: Sequence[CommandRecord], *, bare: bool) -> Latency:
    """Send the records at `RATE` to a worker or to the echo; those of the first `WARM_UP_S` are not counted."""
    async with bed.site(kind) as site:
        try:
            waits = await _measured(site, records, bare=bare)
        except (TimeoutError, RuntimeError, KafkaException) as error:
            return Latency(failure=str(error) or "not every command was answered in time")
        failure = None if bare else await check_run(site, records)
    if failure is not None:
        return Latency(failure=failure)
    counted = [waited_ms for _, waited_ms in waits[int(WARM_UP_S * RATE) :]]
    cuts = quantiles(counted, n=100, method="inclusive")
    return Latency(cuts[49], cuts[98])


async def _measured(site: Site, records: Sequence[CommandRecord], *, bare: bool) -> Waits:
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(running(BARE_ECHO if bare else WORKER, site.environment()))
        await process.ready()
        client = Client(site, linger_ms=0, at_once=1)
        stack.callback(client.close)
        return await asyncio.to_thread(client.measure, records, RATE)
