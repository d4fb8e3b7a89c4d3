"""The health page says what probes and people need."""

import socket

import aiohttp
import pytest

from processor.http.health import Health, health_server
from processor.messages import Log

LOG = Log("default", 3)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def get(port: int, path: str) -> tuple[int, object]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("health", "status"),
    [
        (Health(False, {}), 503),
        (Health(True, {}), 200),
        (Health(True, {LOG: ("claiming", "")}), 503),
        (Health(True, {LOG: ("running", "")}), 200),
        (Health(True, {LOG: ("stopped", "made anew")}), 200),
    ],
    ids=["before an assignment", "standby", "claiming", "running", "stopped"],
)
async def test_ready_is_an_assignment_that_is_claimed(health: Health, status: int) -> None:
    port = free_port()
    async with health_server("127.0.0.1", port, lambda: health):
        found, body = await get(port, "/ready")
    assert found == status
    assert body == {"ready": status == 200, "logs": len(health.logs)}


async def test_status_names_each_log_and_why_it_stands_still() -> None:
    port = free_port()
    async with health_server("127.0.0.1", port, lambda: Health(True, {LOG: ("stopped", "made anew")})):
        _, body = await get(port, "/status")
        live, _ = await get(port, "/live")
    assert live == 200
    logs = [{"tenant": "default", "partition": 3, "state": "stopped", "reason": "made anew"}]
    assert body == {"joined": True, "logs": logs}


async def test_an_address_that_is_taken_does_not_stop_the_worker() -> None:
    port = free_port()
    async with (
        health_server("127.0.0.1", port, lambda: Health(True, {})),
        health_server("127.0.0.1", port, lambda: Health(False, {})),
    ):
        found, _ = await get(port, "/ready")
    assert found == 200
