"""Whether the worker is alive and ready, for probes and for people: `/live`, `/ready` and `/status`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web
from msgspec import Struct

from processor.messages import Log

logger = structlog.get_logger(__name__)


class Health(Struct, frozen=True):
    """`joined`: the group has given the worker an assignment, be it an empty one (a standby).

    `logs`: by assigned log its state (`claiming`, `running`, `stopped`) and, where there is one, the reason.
    """

    joined: bool
    logs: Mapping[Log, tuple[str, str]]


@asynccontextmanager
async def health_server(host: str, port: int, health: Callable[[], Health]) -> AsyncIterator[None]:
    """Serve while the block runs. An address that is taken is said, and the worker goes on without."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/live", _live),
            web.get("/ready", partial(_ready, health)),
            web.get("/status", partial(_status, health)),
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


async def _live(_: web.Request) -> web.Response:
    """Answered by the loop that does the work: an answer means that it turns."""
    await asyncio.sleep(0)
    return web.json_response({"live": True})


async def _ready(health: Callable[[], Health], _: web.Request) -> web.Response:
    """Ready with an assignment whose logs are all claimed, or stand still for a reason that an operator has to mend."""
    found = health()
    ready = found.joined and all(state != "claiming" for state, _ in found.logs.values())
    return web.json_response({"ready": ready, "logs": len(found.logs)}, status=200 if ready else 503)


async def _status(health: Callable[[], Health], _: web.Request) -> web.Response:
    found = health()
    logs = [
        {"tenant": log.tenant, "partition": log.partition, "state": state, "reason": reason}
        for log, (state, reason) in sorted(found.logs.items())
    ]
    return web.json_response({"joined": found.joined, "logs": logs})
