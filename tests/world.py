"""A worker process on SQLite that all tests of a module's kind share, and the command line beside it."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import structlog
from typer.testing import CliRunner, Result

from processor.cli import app
from processor.names import DEFAULT_TENANT, TopicNames
from processor.settings import Settings
from tests.servers import Kafka

PARTITIONS = 4
SAMPLE = Path(__file__).parents[1] / "processor" / "cli" / "sample.jsonl"


class World:
    """The settings of one store and its topics, and the commands run with them."""

    def __init__(self, brokers: str, prefix: str, store: str) -> None:
        self.environment = {
            "TIDEMARK_BROKERS": brokers,
            "TIDEMARK_TOPIC_PREFIX": prefix,
            "TIDEMARK_GROUP": f"{prefix}group",
            "TIDEMARK_STORE": store,
            "TIDEMARK_PARTITIONS": str(PARTITIONS),
            "TIDEMARK_SESSION_TIMEOUT_MS": "6000",
            "TIDEMARK_STARTUP_TIMEOUT_S": "10",
            "TIDEMARK_HTTP": "127.0.0.1:0",
        }

    @property
    def settings(self) -> Settings:
        """The same as a value."""
        values: dict[str, Any] = {
            name.removeprefix("TIDEMARK_").lower(): value for name, value in self.environment.items()
        }
        return Settings(**values)

    def create_topics(self, kafka: Kafka) -> None:
        """The topics, as they must be where the broker can make them so."""
        if kafka.real:
            assert self.run("topics", "create").exit_code == 0
        else:
            kafka.create_topics(TopicNames.of(self.settings.topic_prefix, DEFAULT_TENANT).all(), PARTITIONS)

    def run(self, *arguments: str | Path, stdin: str | bytes | None = None, **environment: str) -> Result:
        """A command in this process."""
        levels = {name: logging.getLogger(name).level for name in ("aiokafka", "asyncio", "faust", "mode")}
        try:
            return CliRunner().invoke(
                app, [str(argument) for argument in arguments], input=stdin, env=self.environment | environment
            )
        finally:
            structlog.reset_defaults()
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)

    def json(self, *arguments: str | Path, **environment: str) -> Any:
        """The one JSON document that a command prints; it has to end well."""
        result = self.run(*arguments, "--output", "json", **environment)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def lines(self, *arguments: str | Path, **environment: str) -> list[Any]:
        """The JSON lines that a command prints; it has to end well."""
        result = self.run(*arguments, "--output", "json", **environment)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def start(
        self, *arguments: str, stderr: int | IO[str] = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[str]:
        """A command as a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        return subprocess.Popen(
            [sys.executable, "-m", "processor.cli", *arguments],
            env=inherited | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


@contextmanager
def served(kafka: Kafka, folder: Path) -> Iterator[World]:
    """A world of its own with a worker."""
    prefix = f"t{uuid4().hex[:12]}."
    world = World(kafka.bootstrap, prefix, f"sqlite:///{folder}/tidemark.db")
    world.create_topics(kafka)
    log = folder / "worker.log"
    with log.open("w") as written:
        worker = world.start("worker", stderr=written)
    try:
        while "owning logs" not in log.read_text():
            assert worker.poll() is None, log.read_text()
            time.sleep(0.05)
        yield world
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert worker.returncode == 0, log.read_text()


def event_line(stream: str, expected: int | str = "any", **more: Any) -> str:
    """A line of `send`'s input with one event."""
    return json.dumps({"stream": stream, "expected_version": expected, "events": [{"type": "Tested"}], **more})
