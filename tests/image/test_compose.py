"""The Compose file, brought up: broker, database and worker as containers, which take the real input together.

An image that can't be pulled is left out with what it is for, but for Kafka's and PostgreSQL's: the tests' own stand
in for them.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.chart.tools import CannotBuild, program
from tests.image.engine import KAFKA, POSTGRES, ROOT, Engine, engine
from tests.pipeline.test_history import COUNTS, INPUT
from tests.servers import CannotRun

pytestmark = [pytest.mark.image, pytest.mark.timeout(2_400)]

_FILE = ROOT / "docker" / "compose.yaml"
_OUTSIDE = "localhost:9094"
_WAIT_S = 120.0
_SEND_S = 600.0


class Compose:
    """Docker Compose with the project's own file, and what it runs."""

    def __init__(self, docker: Engine) -> None:
        self._command: list[str | Path] = [program("docker-compose"), "-f", _FILE, "-p", "tidemark-test"]
        self._environment = dict(docker.environment)
        self._asked_for = json.loads(self.run("config", "--format", "json"))["services"]
        self.services = ["worker"]
        docker.build_tidemark(self._asked_for["worker"]["image"])
        if not docker.pulls(self._asked_for["kafka"]["image"]):
            docker.build_kafka()
            self._environment["KAFKA_IMAGE"] = KAFKA
        if not docker.pulls(self._asked_for["postgres"]["image"]):
            docker.build_postgres()
            self._environment["POSTGRES_IMAGE"] = POSTGRES
        self.services += [name for name in ("prometheus", "collector", "grafana") if self._has(docker, name)]

    def _has(self, docker: Engine, service: str) -> bool:
        there = docker.pulls(self._asked_for[service]["image"])
        if not there:
            print(f"left out: {service}, whose image can't be pulled")
        return there

    def run(self, *arguments: str, timeout_s: float = _WAIT_S) -> str:
        """Run a command of Compose; returns what it printed. Raises `AssertionError` with what it said."""
        done = subprocess.run(
            [*self._command, *arguments], check=False, text=True, capture_output=True, env=self._environment,
            timeout=timeout_s,
        )  # fmt: skip
        assert not done.returncode, f"compose {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self, service: str) -> dict[str, object]:
        """What Compose says of a service's only container."""
        found: dict[str, object] = json.loads(self.run("ps", "--all", "--format", "json", service))
        return found


@pytest.fixture
def compose() -> Iterator[Compose]:
    """All that can be had of the file's services, up, and taken down again with their volumes."""
    if not INPUT.exists():
        pytest.skip(f"the real input is not there: set TIDEMARK_HISTORY to {INPUT.name}")
    with ExitStack() as ending:
        try:
            _is_free(_OUTSIDE)
            made = Compose(ending.enter_context(engine()))
        except (CannotRun, CannotBuild) as reason:
            pytest.skip(str(reason))
        ending.callback(made.run, "down", "--volumes", "--timeout", "30")
        made.run("up", "--detach", "--no-build", *made.services, timeout_s=600)
        yield made


def _is_free(address: str) -> None:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 1):
        raise CannotRun(f"another server has {address}, which the Compose file uses")


def test_from_nothing_to_the_real_input_stored_and_a_clean_end(compose: Compose) -> None:
    deadline = time.monotonic() + _WAIT_S
    while compose.state("worker")["Health"] != "healthy":
        assert time.monotonic() < deadline, compose.run("logs", "worker")
        time.sleep(0.5)
    assert [compose.state(service)["ExitCode"] for service in ("topics", "migrate")] == [0, 0]

    command = [sys.executable, "-m", "processor.cli", "send", str(INPUT)]
    subprocess.run(command, check=True, env=os.environ | {"TIDEMARK_BROKERS": _OUTSIDE}, timeout=_SEND_S)
    counts = json.loads(COUNTS.read_text())
    verified = json.loads(compose.run("exec", "-T", "worker", "tidemark", "verify", "--output", "json"))
    assert verified["ok"]
    assert verified["events"] == sum(counts["events_per_type"].values())
    assert verified["streams"] == counts["streams"]

    compose.run("stop", "worker")
    assert compose.state("worker")["ExitCode"] == 0, compose.run("logs", "worker")
