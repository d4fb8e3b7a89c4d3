"""Prometheus's own tool reads the alert rules, and plays a course of series for each alert."""

from pathlib import Path

import pytest

from tests.chart.tools import run
from tests.test_alerts import COURSES, RULES

pytestmark = [pytest.mark.chart, pytest.mark.usefixtures("built"), pytest.mark.timeout(1_800)]


@pytest.mark.parametrize("arguments", [("check", "rules", RULES), ("test", "rules", COURSES)], ids=["form", "courses"])
def test_promtool_agrees(arguments: tuple[str, str, Path]) -> None:
    done = run("promtool", *arguments)
    assert not done.returncode, done.stdout + done.stderr
