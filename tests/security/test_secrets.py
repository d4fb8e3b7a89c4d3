"""No secret is said: not in logs, errors, pages, the settings that are printed, nor in the list of processes."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from processor.stores.migrate import upgrade
from tests.security.accounts import PARTITIONS, PASSWORD, Accounts
from tests.security.roles import PASSWORD as ROLE_PASSWORD
from tests.security.roles import Roles
from tests.servers import free_port

COMMANDS = (["config"], ["config", "--output", "json"], ["doctor"], ["verify"], ["send", "-"])


@pytest.fixture(params=["environment", "files"])
def environment(
    request: pytest.FixtureRequest, accounts: Accounts, postgres_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """A worker's settings with secrets in each of their places: variables, or files in a directory."""
    upgrade(postgres_url, partitions=PARTITIONS)
    roles = Roles(postgres_url)
    asyncio.run(roles.make("worker", "BYPASSRLS"))
    asyncio.run(roles.grant("--worker", roles.name("worker")))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    given = inherited | accounts.environment("worker")
    given["TIDEMARK_LOG_LEVEL"] = "debug"
    secrets = {
        "TIDEMARK_STORE": roles.url_of("worker") + "?application_name=some",
        "TIDEMARK_KAFKA_SASL_PASSWORD": given.pop("TIDEMARK_KAFKA_SASL_PASSWORD"),
    }
    del given["TIDEMARK_STORE"]
    if request.param == "environment":
        yield given | secrets
    else:
        folder = tmp_path / "secrets"
        folder.mkdir()
        for name, value in secrets.items():
            (folder / name).write_text(value)
        yield given | {"TIDEMARK_SECRETS_DIR": str(folder)}
    asyncio.run(roles.drop())


def leaked(said: str) -> list[str]:
    return [secret for secret in (PASSWORD, ROLE_PASSWORD) if secret in said]


def started(
    environment: dict[str, str], *arguments: str, stderr: int | IO[str] = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "processor.cli", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def test_a_worker_says_no_secret(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "worker.log"
    with log.open("w") as written:
        worker = started(environment | {"TIDEMARK_HTTP": f"127.0.0.1:{port}"}, "worker", stderr=written)
    try:
        while "owning logs" not in log.read_text():
            assert worker.poll() is None, log.read_text()
            time.sleep(0.05)
        pages = "".join(page(port, path) for path in ("live", "ready", "status", "metrics"))
        assert "default" in pages
        listed = Path(f"/proc/{worker.pid}/cmdline").read_text()
        assert "worker" in listed
        said = pages + listed
        for command in COMMANDS:
            client = started(environment, *command)
            said += Path(f"/proc/{client.pid}/cmdline").read_text() + "".join(client.communicate("nonsense", 60))
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    said += log.read_text()
    assert "***" in said
    assert "Traceback" not in said
    assert leaked(said) == []


def page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            return str(answer.read(), "utf-8")
    except urllib.error.HTTPError as error:
        return str(error.read(), "utf-8")


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://u:{}@127.0.0.1:1/d",
        "postgresql://u:{}@127.0.0.1:1/d?sslmode=nonsense",
        "postgresql://u:{}@127.0.0.1:port/d",
        "postgresql://u:a@{}@h:1/d",
        "postgresql://127.0.0.1:1/d?user=u&password={}",
        "postgres://u:{}@127.0.0.1:1/d",
        "mysql://u:{}@127.0.0.1:1/d",
        "sqlite://u:{}@h/path",
    ],
)
def test_a_password_in_a_url_is_masked(accounts: Accounts, store: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    environment = inherited | accounts.environment("worker") | {"TIDEMARK_STORE": store.format("hunter2")}

    for arguments in (["config"], ["worker"], ["doctor"], ["migrate", "up"]):
        said = "".join(started(environment, *arguments).communicate(timeout=60))
        assert "hunter2" not in said
        assert leaked(said) == []
        assert "Traceback" not in said
