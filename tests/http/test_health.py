"""The health page says what probes and people need."""

import socket
import threading
from typing import Any

import aiohttp
import pytest

from processor.http.health import Health, health_server
from processor.messages import Log

LOG = Log("default", 3)
HEALTHY = Health(True, {})


def no_metrics() -> bytes:
    return b""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def get(port: int, path: str) -> tuple[int, Any]:
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
        (Health(True, {LOG: ("running", "")}, "the server is away"), 503),
    ],
    ids=["before an assignment", "standby", "claiming", "running", "stopped", "no store"],
)
async def test_ready_is_an_assignment_that_is_claimed(health: Health, status: int) -> None:
    port = free_port()
    async with health_server("127.0.0.1", port, lambda: health, no_metrics):
        found, body = await get(port, "/ready")
    assert found == status
    assert body == {"ready": status == 200, "logs": len(health.logs), "store": health.store_fault or "ok"}


@pytest.mark.parametrize("stuck", [[], [LOG]])
async def test_live_is_that_no_log_is_stuck(stuck: list[Log]) -> None:
    port = free_port()
    health = Health(True, {LOG: ("running", "")}, "the server is away", stuck)
    async with health_server("127.0.0.1", port, lambda: health, no_metrics):
        found, body = await get(port, "/live")
    assert (found, body) == (503 if stuck else 200, {"live": not stuck, "stuck": [str(log) for log in stuck]})


async def test_metrics_are_rendered_beside_the_loop() -> None:
    port = free_port()
    threads: list[int] = []

    def metrics() -> bytes:
        threads.append(threading.get_ident())
        return b"tidemark_claims_total 4.0\n"

    async with (
        health_server("127.0.0.1", port, lambda: HEALTHY, metrics),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert text == "tidemark_claims_total 4.0\n"
    assert threads != [threading.get_ident()]


async def test_status_names_each_log_and_why_it_stands_still() -> None:
    port = free_port()
    health = Health(True, {LOG: ("stopped", "made anew")}, hot_streams=[(("default", "order-1"), 0.25)])
    async with health_server("127.0.0.1", port, lambda: health, no_metrics):
        _, body = await get(port, "/status")
        live, _ = await get(port, "/live")
    assert live == 200
    logs = [{"tenant": "default", "partition": 3, "state": "stopped", "reason": "made anew"}]
    hot = [{"tenant": "default", "stream": "order-1", "share": 0.25}]
    assert body == {"joined": True, "store": "ok", "logs": logs, "hot_streams": hot, "unwritable_reply_topics": []}


async def test_status_names_reply_topics_that_cannot_be_written() -> None:
    port = free_port()
    health = Health(True, {}, unwritable={"replies": "it does not exist"})
    async with health_server("127.0.0.1", port, lambda: health, no_metrics):
        _, body = await get(port, "/status")
    assert isinstance(body, dict)
    assert body["unwritable_reply_topics"] == [{"topic": "replies", "reason": "it does not exist"}]


async def test_an_address_that_is_taken_does_not_stop_the_worker() -> None:
    port = free_port()
    async with (
        health_server("127.0.0.1", port, lambda: HEALTHY, no_metrics),
        health_server("127.0.0.1", port, lambda: Health(False, {}), no_metrics),
    ):
        found, _ = await get(port, "/ready")
    assert found == 200
