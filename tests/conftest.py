"""Servers for the tests that ask for them, each started once a run, and a last word on what was left out."""

import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import CannotRun, Kafka, fresh_database, kafka_libs, some_kafka, some_postgres

_PRODUCT = Path(__file__).parents[1] / "processor"
_LEFT_OUT = pytest.StashKey[list[str]]()

# How long an example takes says how busy the machine is.
settings.register_profile("tidemark", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidemark")


def pytest_configure(config: pytest.Config) -> None:
    compiled = _PRODUCT.rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}")
    if stale := [path.name for path in compiled if path.stat().st_mtime < _source_time(path)]:
        pytest.exit(f"older than what they were compiled of: {', '.join(stale)}; `make install` compiles them", 2)
    config.stash[_LEFT_OUT] = []
    if config.pluginmanager.hasplugin("dsession"):
        config.pluginmanager.register(_FromOthers(config.stash[_LEFT_OUT]))


def _source_time(compiled: Path) -> float:
    name = compiled.name.partition(".")[0]
    sources = (compiled.with_name(name + suffix) for suffix in (".pyx", ".pxd", ".py"))
    return max(path.stat().st_mtime for path in (*sources, _PRODUCT / "messages.pxd") if path.exists())


class _FromOthers:
    """What was left out in the processes of a run that has several."""

    def __init__(self, left_out: list[str]) -> None:
        self._left_out = left_out

    @pytest.hookimpl
    def pytest_testnodedown(self, node: Any) -> None:
        found: list[str] = getattr(node, "workeroutput", {}).get("left_out", [])
        self._left_out += [line for line in found if line not in self._left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = session.config.stash[_LEFT_OUT]


def pytest_collection_finish(session: pytest.Session) -> None:
    # The first time, Kafka's jars may take longer to come than a test may last.
    if not session.config.option.collectonly and any(map(_wants_kafka, session.items)):
        with suppress(CannotRun):
            kafka_libs()


def _wants_kafka(item: pytest.Item) -> bool:
    return "kafka" in getattr(item, "fixturenames", ()) or item.get_closest_marker("faults") is not None


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[Kafka]:
    """A broker; see `Kafka.real`."""
    with some_kafka(pytestconfig.stash[_LEFT_OUT]) as kafka:
        yield kafka


@pytest.fixture
def real_kafka(kafka: Kafka) -> Kafka:
    """A broker that is Apache Kafka; the test is left out where there is none."""
    if not kafka.real:
        pytest.skip("needs a real Kafka broker")
    return kafka


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics (and groups) that no other test has."""
    return f"t{uuid4().hex[:12]}."


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server, with a user who may create databases."""
    with some_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a database that is new, empty and this test's own."""
    with fresh_database(postgres_server, f"t{uuid4().hex[:12]}") as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/tidemark.db"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    skips = [f"{count} x {reason.removeprefix('Skipped: ')}" for reason, count in sorted(reasons.items())]
    terminalreporter.section("left out")
    for line in config.stash[_LEFT_OUT] + skips or ["nothing"]:
        terminalreporter.write_line(line)
