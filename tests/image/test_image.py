"""The image, built for real: what is in it and what is not, and that it works as it is meant to be run."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.image.engine import ROOT, Engine, engine
from tests.pipeline.test_history import COUNTS, INPUT
from tests.servers import Broker, CannotRun, Postgres, free_port

pytestmark = [pytest.mark.image, pytest.mark.timeout(1_200)]

IMAGE = "tidemark-test/worker:one"
MOST_BYTES = 250_000_000
_WAIT_S = 60.0

# As the chart runs it: root's rights, a file system that can be written to and capabilities are all gone.
_LOCKED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    """An engine that has the image."""
    with ExitStack() as ending:
        try:
            found = ending.enter_context(engine())
            found.build_tidemark(IMAGE)
        except CannotRun as reason:
            pytest.skip(str(reason))
        yield found


def run(docker: Engine, *command: str, entrypoint: str = "tidemark", **environment: str) -> str:
    """Run a command in a container of the image to its end."""
    return docker.run(
        "run", "--rm", "--network", "host", *_LOCKED, *_variables(environment), "--entrypoint", entrypoint, IMAGE,
        *command, timeout_s=600,
    )  # fmt: skip


def _variables(environment: dict[str, str]) -> list[str]:
    return [text for name, value in environment.items() for text in ("--env", f"{name}={value}")]


def test_it_is_small_and_says_what_it_is(docker: Engine) -> None:
    image = docker.inspect(IMAGE)

    assert image["Size"] < MOST_BYTES
    assert image["Config"]["User"] == "10001:10001"
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Tidemark"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert run(docker, "--version") == f"tidemark {labels['org.opencontainers.image.version']}"


def test_the_version_is_that_of_the_package_and_of_the_chart() -> None:
    found = {
        path: re.search(pattern, (ROOT / path).read_text(), re.MULTILINE)
        for path, pattern in {
            "pyproject.toml": r'^version = "(.+)"',
            "docker/Dockerfile": r"^ARG VERSION=(.+)",
            "helm/tidemark/Chart.yaml": r"^appVersion: (.+)",
        }.items()
    }
    assert len({match and match[1] for match in found.values()}) == 1, found


@pytest.mark.parametrize("tool", ["pip", "pip3", "gcc", "cc", "make", "strip", "cyclonedx-py"])
def test_nothing_that_builds_is_left_in_it(docker: Engine, tool: str) -> None:
    assert run(docker, "-c", f"command -v {tool} || echo none", entrypoint="sh") == "none"


def test_it_has_its_native_part(docker: Engine) -> None:
    look = "from processor.kafka.batches import NATIVE; print(NATIVE)"
    assert run(docker, "-c", look, entrypoint="python3") == "True"


def test_its_parts_are_listed(docker: Engine) -> None:
    bill = json.loads(run(docker, "/opt/tidemark/sbom.cdx.json", entrypoint="cat"))

    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["name"].lower().replace("_", "-"): part["version"] for part in bill["components"]}
    there = json.loads(run(docker, "-c", _INSTALLED, entrypoint="python3"))
    assert there.pop("tidemark") == bill["metadata"]["component"]["version"]
    assert {name: listed.get(name) for name in there} == there


_INSTALLED = """
import importlib.metadata as found, json
print(json.dumps({one.name.lower().replace("_", "-"): one.version for one in found.distributions()}))
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The settings of a broker and a database of the test's own, on the loopback address."""
    try:
        with Broker() as broker, Postgres(fsync=False) as postgres:
            yield {
                "TIDEMARK_BROKERS": broker.bootstrap,
                "TIDEMARK_STORE": postgres.url(),
                "TIDEMARK_HTTP": f"127.0.0.1:{free_port()}",
            }
    except CannotRun as reason:
        pytest.skip(str(reason))


def test_it_drains_the_real_input_and_ends_cleanly(docker: Engine, environment: dict[str, str]) -> None:
    if not INPUT.exists():
        pytest.skip(f"the real input is not there: set TIDEMARK_HISTORY to {INPUT.name}")
    run(docker, "topics", "create", **environment)
    run(docker, "migrate", "up", **environment)
    worker = docker.run("run", "--detach", "--network", "host", *_LOCKED, *_variables(environment), IMAGE)
    try:
        _becomes_healthy(docker, worker)
        began = time.monotonic()
        docker.run(
            "run", "--rm", "--network", "host", *_LOCKED, *_variables(environment),
            "--volume", f"{INPUT}:/input.jsonl.gz:ro", IMAGE, "send", "/input.jsonl.gz", timeout_s=600,
        )  # fmt: skip
        counts = json.loads(COUNTS.read_text())
        print(f"{counts['commands']} commands sent and answered in {time.monotonic() - began:.0f} s")
        verified = json.loads(run(docker, "verify", "--output", "json", **environment))
        assert verified["ok"]
        assert verified["events"] == sum(counts["events_per_type"].values())
        assert verified["streams"] == counts["streams"]
        docker.run("stop", "--time", "30", worker)
        assert _state(docker, worker)["ExitCode"] == 0, docker.run("logs", worker)
    finally:
        docker.run("rm", "--force", worker)


def _becomes_healthy(docker: Engine, container: str) -> None:
    """By the image's own health check."""
    deadline = time.monotonic() + _WAIT_S
    while (health := _state(docker, container)["Health"])["Status"] != "healthy":
        assert time.monotonic() < deadline, health
        time.sleep(0.5)


def _state(docker: Engine, container: str) -> Any:
    return docker.inspect(container)["State"]


def test_a_setting_that_is_wrong_is_said_in_a_line(docker: Engine) -> None:
    name = "tidemark-test-wrong"
    docker.run("run", "--name", name, *_LOCKED, "--env", "TIDEMARK_PARTITIONS=none", IMAGE, check=False)
    try:
        assert _state(docker, name)["ExitCode"] == 2
    finally:
        docker.run("rm", "--force", name)


def test_what_goes_into_the_build_is_what_it_needs() -> None:
    taken = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE))

    assert taken == {name for line in copied if "--from" not in line for name in line.split()}
    assert all(Path(ROOT / name).exists() for name in taken)
