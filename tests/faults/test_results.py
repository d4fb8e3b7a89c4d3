"""The table of results: a row per fault, its stores together, and whatever was violated said so."""

from xml.etree import ElementTree as ET

from tests.faults.results import Result, table

REPORT = """
<testsuite>
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
</testsuite>
"""


def test_rows() -> None:
    results = [Result.of(case) for case in ET.fromstring(REPORT).iter("testcase")]
    rows = [line for line in table([result for result in results if result is not None]) if line.startswith("| ")]
    assert [row for row in rows if not row.startswith("| fault |")] == [
        "| full disk |  | SQLite | 0 | left out |",
        "| killed | before_feed | SQLite and PostgreSQL | 23 | held, violated |",
    ]
