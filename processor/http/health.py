"""What probes, people and Prometheus ask a worker: `/live`, `/ready`, `/status` and `/metrics`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST

from processor.messages import Log

logger = structlog.get_logger(__name__)


class Health(Struct, frozen=True):
    """`joined`: the group has given the worker an assignment, be it an empty one (a standby).

    `logs`: by assigned log its state (`claiming`, `running`, `stopped`) and, where there is one, the reason.
    `store_fault`: why the store can't be used, empty where it can. `stuck`: logs that do not move though nothing is in
    their way. `hot_streams`: tenant, name and share of the commands. `unwritable`: the clients' reply topics that can't
    be written at the moment, and why.
    """

    joined: bool
    logs: Mapping[Log, tuple[str, str]]
    store_fault: str = ""
    stuck: Sequence[Log] = ()
    hot_streams: Sequence[tuple[tuple[str, str], float]] = ()
    unwritable: Mapping[str, str] = {}

    @property
    def ready(self) -> bool:
        """With an assignment whose logs are all claimed, or stand still for a reason that an operator has to mend."""
        claimed = all(state != "claiming" for state, _ in self.logs.values())
        return self.joined and claimed and not self.store_fault


@asynccontextmanager
async def health_server(
    host: str, port: int, health: Callable[[], Health], metrics: Callable[[], bytes]
) -> AsyncIterator[None]:
    """Serve while the block runs. An address that is taken is said, and the worker goes on without.

    `metrics` gives Prometheus' text; it is called on a thread, so that many logs hold nothing up.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/live", partial(_live, health)),
            web.get("/ready", partial(_ready, health)),
            web.get("/status", partial(_status, health)),
            web.get("/metrics", partial(_metrics, metrics)),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            logger.warning(
                "no health page: the address can't be used, set TIDEMARK_HTTP to another", host=host, port=port,
                error=error.strerror,
            )  # fmt: skip
        yield
    finally:
        await runner.cleanup()


async def _live(health: Callable[[], Health], _: web.Request) -> web.Response:
    """Answered by the loop that does the work: an answer means that it turns; whether its logs move, it says."""
    stuck = [str(log) for log in health().stuck]
    return web.json_response({"live": not stuck, "stuck": stuck}, status=503 if stuck else 200)


async def _ready(health: Callable[[], Health], _: web.Request) -> web.Response:
    found = health()
    answer = {"ready": found.ready, "logs": len(found.logs), "store": found.store_fault or "ok"}
    return web.json_response(answer, status=200 if found.ready else 503)


async def _status(health: Callable[[], Health], _: web.Request) -> web.Response:
    found = health()
    logs = [
        {"tenant": log.tenant, "partition": log.partition, "state": state, "reason": reason}
        for log, (state, reason) in sorted(found.logs.items())
    ]
    hot = [
        {"tenant": tenant, "stream": stream, "share": round(share, 3)} for (tenant, stream), share in found.hot_streams
    ]
    return web.json_response(
        {
            "joined": found.joined,
            "store": found.store_fault or "ok",
            "logs": logs,
            "hot_streams": hot,
            "unwritable_reply_topics": [
                {"topic": topic, "reason": reason} for topic, reason in sorted(found.unwritable.items())
            ],
        }
    )


async def _metrics(metrics: Callable[[], bytes], _: web.Request) -> web.Response:
    text = await asyncio.to_thread(metrics)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
