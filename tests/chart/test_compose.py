"""The Compose files say what Compose understands, and the files that they mount are there."""

import json
from pathlib import Path

import pytest

from tests.chart.tools import run

DOCKER = Path(__file__).parents[2] / "docker"

pytestmark = [pytest.mark.chart, pytest.mark.usefixtures("built"), pytest.mark.timeout(1_800)]


@pytest.mark.parametrize(
    ("file", "services"),
    [
        ("compose.yaml", {"kafka", "postgres", "topics", "migrate", "worker", "prometheus", "grafana", "collector"}),
        ("compose.dev.yaml", {"kafka", "postgres"}),
    ],
)
def test_is_taken(file: str, services: set[str]) -> None:
    done = run("docker-compose", "--file", file, "config", "--format", "json", cwd=DOCKER)

    assert not done.returncode, done.stderr
    project = json.loads(done.stdout)
    assert project["services"].keys() == services
    mounted = [
        Path(volume["source"])
        for service in project["services"].values()
        for volume in service.get("volumes") or []
        if volume["type"] == "bind"
    ]
    assert [path for path in mounted if not path.exists()] == []
