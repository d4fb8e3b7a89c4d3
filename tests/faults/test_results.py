"""The results of a run: a row per fault, its stores together, and whatever did not hold is said so."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.faults.results import Run, main, page_of, put_in, summary, table

REPORT = """
<testsuite time="90">
  <testcase classname="tests.faults.test_worker" name="test_killed[sqlite-before_feed]">
    <properties><property name="repetitions" value="20"/></properties>
  </testcase>
  <testcase classname="tests.faults.test_worker" name="test_killed[postgres-before_feed]">
    <properties><property name="repetitions" value="3"/></properties>
    <failure/>
  </testcase>
  <testcase classname="tests.faults.test_sqlite" name="test_full_disk"><skipped/></testcase>
  <testcase classname="tests.faults.test_checker" name="test_a_sound_history_passes"/>
  <testcase classname="tests.test_cycle" name="test_something"/>
  <testcase classname="tests.test_cycle" name="test_something_else"><error/></testcase>
  <testcase classname="tests.simulation.test_simulation" name="test_every_promise_is_kept[0]">
    <properties><property name="seeds" value="1500"/><property name="failed_seeds" value="7 9"/></properties>
    <failure/>
  </testcase>
  <testcase classname="tests.simulation.test_simulation" name="test_every_promise_is_kept[1]">
    <properties><property name="seeds" value="1500"/><property name="failed_seeds" value=""/></properties>
  </testcase>
  <testcase classname="tests.simulation.test_simulation" name="test_a_safeguard[fence]">
    <properties><property name="safeguard" value="fence"/><property name="noticed" value="seed 3"/></properties>
  </testcase>
  <testcase classname="tests.simulation.test_simulation" name="test_a_safeguard[order]">
    <properties><property name="safeguard" value="order"/></properties>
    <failure/>
  </testcase>
</testsuite>
"""
HELD = """
<testsuite time="60">
  <testcase classname="tests.faults.test_worker" name="test_killed[sqlite-before_feed]">
    <properties><property name="repetitions" value="20"/></properties>
  </testcase>
</testsuite>
"""


@pytest.fixture
def run() -> Run:
    run = Run()
    run.add(ET.fromstring(REPORT))
    return run


def test_rows(run: Run) -> None:
    rows = [line for line in table(run.tried) if line.startswith("| ")]
    assert [row for row in rows if not row.startswith("| fault |")] == [
        "| full disk |  | SQLite | 0 | left out |",
        "| killed | before_feed | SQLite and PostgreSQL | 23 | held, violated |",
    ]


def test_seeds_and_safeguards_have_a_part_of_their_own(run: Run) -> None:
    lines = list(page_of(run))
    assert "3,000 seeds, 2 in which a promise was broken." in lines
    assert lines[-2:] == ["| fence | seed 3 |", "| order | **nothing** |"]


def test_three_lines_at_the_end(run: Run) -> None:
    begun, held, left_out = summary(run)
    assert begun == "run: 23 tries in 2 trials, 3,000 seeds, 2 safeguards switched off, in 2 minutes"
    kept, _, not_held = held.partition("; not held: ")
    assert kept == "held: 1 trials, 2,998 seeds, 1 safeguards noticed"
    assert not_held.split(", ") == [
        "killed before_feed (PostgreSQL)",
        "seed 7",
        "seed 9",
        "order switched off and not noticed",
        "test_something_else",
    ]
    assert left_out == "left out: full disk (SQLite)"


def test_the_rest_of_the_page_stays() -> None:
    page = "before\n<!-- results: … -->\nold\n<!-- end of results -->\nbehind\n"
    assert put_in(page, "new") == "before\n<!-- results: … -->\n\nnew\n\n<!-- end of results -->\nbehind\n"


@pytest.mark.parametrize(("report", "code"), [(HELD, 0), (REPORT, 1), ("<testsuite/>", 1)])
def test_exit_code(tmp_path: Path, report: str, code: int) -> None:
    file = tmp_path / "report.xml"
    file.write_text(report)
    said: list[str] = []
    assert main([str(file)], said.append) == code
    assert [line.partition(":")[0] for line in said[-3:]] == ["run", "held", "left out"]
