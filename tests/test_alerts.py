"""The alert rules and the dashboard ask for what a worker exports, and every alert says what to do."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from processor.messages import Log
from processor.names import TopicNames
from processor.settings import Settings
from processor.store import Committed, Usage
from processor.telemetry.export import Telemetry
from processor.telemetry.reading import LogReading, Reading
from tests.records import Past, command, record

ROOT = Path(__file__).parents[1]
RULES = ROOT / "helm" / "tidemark" / "rules" / "tidemark.yaml"
DASHBOARD = ROOT / "helm" / "tidemark" / "dashboards" / "tidemark.json"
COURSES = ROOT / "tests" / "alerts" / "tidemark.yaml"
QUESTIONS = [
    "Is it healthy?",
    "How fast?",
    "How far behind?",
    "What is refused, and why?",
    "Which stream is hot?",
    "What does it take?",
]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


@cache
def exported() -> dict[str, set[str]]:
    """What a worker exports that has seen everything: sample names, and the labels of each."""
    reading = Reading({"running": 1}, [LogReading(Log("default", 0), 1, 2, 3, 4.0, 5, 6)], Usage(1, 2, 3))
    telemetry = Telemetry(Settings(), {"default": TopicNames.of("t.", "default")}, lambda: reading)
    meter = telemetry.meter
    meter.decided([Past().plan(record(0, command()), record(1, b"{"))])
    meter.commits[Committed.YES] += 1
    meter.heads["hit"] += 1
    meter.retries["store"] += 1
    meter.published["event"] += 1
    return {
        sample.name: set(sample.labels) | {"job", "instance"}
        for family in text_string_to_metric_families(telemetry.prometheus_text().decode())
        for sample in family.samples
    }


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


@pytest.mark.parametrize("expression", [*queries(), *(rule["expr"] for rule in alerts())])
def test_what_is_asked_for_is_exported_with_these_labels(expression: str) -> None:
    known = exported()
    asked = re.findall(r"((?:tidemark|process)_\w+)(?:\{(.*?)\})?", expression)
    assert asked
    for name, matchers in asked:
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers)) <= known[name]
    grouped = {label for by in re.findall(r"\bby \((.*?)\)", expression) for label in re.findall(r"\w+", by)}
    assert grouped <= set().union(*(known[name] for name, _ in asked))


def test_every_exported_metric_of_ours_is_on_the_dashboard_or_alerted_of() -> None:
    text = " ".join([*queries(), *(rule["expr"] for rule in alerts())])
    families = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in exported() if name.startswith("tidemark_")}
    assert {family for family in families if family not in text} == {"tidemark_epoch", "tidemark_events"}


def test_the_dashboard_answers_the_questions_and_its_panels_do_not_overlap() -> None:
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == QUESTIONS
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = [
        (x, y)
        for panel in panels()
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_section_in_the_runbooks_and_a_course_that_fires_it(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    courses = [course["name"] for course in yaml.safe_load(COURSES.read_text())["tests"]]
    assert {f"{rule['alert']} fires", f"{rule['alert']} is quiet"} <= set(courses)
