"""What telemetry costs: the same drain by a worker that is scraped and traced, and by one that keeps nothing.

Each command carries a `traceparent`, as those of clients that trace do; one in a hundred is sampled. A scraper asks for
the metrics every second, and a collector takes what the worker sends; both are in this process. Afterwards the metrics
have to have counted every command, and the collector to have the trace of each that was sampled.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.bed import Bed, Site
from benchmarks.drain import Amount, Drained, Ends, counted, drained_from_start
from benchmarks.invariants import check_run
from benchmarks.load import CommandRecord, preload
from benchmarks.process import UNMETERED, WORKER, running
from tests.servers import free_port

_SAMPLED_ONE_IN = 100
_SCRAPE_S = 1.0
_TRACES = {"OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_SCHEDULE_DELAY": "1000"}
"""Metrics are scraped; traces are sent so often that most of it falls into the time that is measured."""
_POLL_S = 0.1
_LONGEST_S = 120.0


def traced(records: Sequence[CommandRecord]) -> list[CommandRecord]:
    """The same commands, each with the trace context of its client."""
    return [
        record._replace(headers=(("traceparent", _traceparent(number)),)) for number, record in enumerate(records, 1)
    ]


def _traceparent(number: int) -> bytes:
    sampled = number % _SAMPLED_ONE_IN == 0
    return f"00-{number:032x}-{number:016x}-{sampled:02x}".encode()


async def metered_drain(bed: Bed, records: Sequence[CommandRecord], *, metered: bool) -> Drained:
    """Preload, drain on PostgreSQL and check; `records` as `traced` makes them."""
    async with bed.site("postgres") as site:
        await preload(bed.bootstrap, site.names.commands, records)
        try:
            if metered:
                drained = await _observed(site, len(records))
            else:
                drained = await drained_from_start(site, len(records), UNMETERED)
        except (TimeoutError, RuntimeError) as error:
            return Drained(failure=str(error) or f"not drained in {_LONGEST_S:.0f} s")
        return counted(drained, await check_run(site, records))


async def _observed(site: Site, count: int) -> Drained:
    address = f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(_collector())
        environment = site.environment(http=address) | _TRACES | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
        ends = await stack.enter_async_context(Ends(site))
        scraper = await stack.enter_async_context(_scraping(f"http://{address}/metrics"))
        async with running(WORKER, environment) as worker:
            begin = await worker.ready()
            cpu_s = worker.cpu_s()
            await ends.reach(Amount(count, count), [worker], _LONGEST_S)
            seconds = time.perf_counter() - begin
            cpu_s = worker.cpu_s() - cpu_s
            failure = await scraper.counts(count)
    # The worker has ended, and so has sent what was left.
    missing = count // _SAMPLED_ONE_IN - collector.commands()
    if failure is None and missing:
        failure = f"{missing} commands that were sampled have no trace"
    return Drained(count / seconds, count, cpu_s / count * 1e6, worker.peak_mib, failure=failure)


class _Collector:
    """Takes OTLP, and looks into it only when it is asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._traces: list[bytes] = []

    async def take_traces(self, request: web.Request) -> web.Response:
        self._traces.append(await request.read())
        return web.Response()

    def commands(self) -> int:
        """How many commands have a trace."""
        requests = map(ExportTraceServiceRequest.FromString, self._traces)
        return sum(
            span.name.startswith("process ")
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )


@asynccontextmanager
async def _collector() -> AsyncIterator[_Collector]:
    port = free_port()
    collector = _Collector(f"http://127.0.0.1:{port}")
    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/v1/traces", collector.take_traces)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield collector
    finally:
        await runner.cleanup()


class _Scraper:
    """Asks for the metrics again and again, as Prometheus does."""

    def __init__(self, session: aiohttp.ClientSession, page: str) -> None:
        self._session = session
        self._page = page

    async def run(self) -> None:
        while True:
            with suppress(aiohttp.ClientError):
                await self.text()
            await asyncio.sleep(_SCRAPE_S)

    async def text(self) -> str:
        async with self._session.get(self._page) as response:
            return await response.text()

    async def counts(self, commands: int) -> str | None:
        """Wait for the metrics to have counted so many; says what they have where it is another number."""
        found = 0.0
        for _ in range(int(5 / _POLL_S)):
            found = sum(
                sample.value
                for family in text_string_to_metric_families(await self.text())
                for sample in family.samples
                if sample.name == "tidemark_commands_total"
            )
            if found >= commands:
                break
            await asyncio.sleep(_POLL_S)
        return None if found == commands else f"the metrics have {found:,.0f} of {commands:,} commands"


@asynccontextmanager
async def _scraping(page: str) -> AsyncIterator[_Scraper]:
    async with aiohttp.ClientSession() as session:
        scraper = _Scraper(session, page)
        running = asyncio.create_task(scraper.run())
        try:
            yield scraper
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
