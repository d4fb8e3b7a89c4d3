"""The results of a run as the table in `docs/faults.md`: `python -m tests.faults.results REPORT.xml …`.

The reports are pytest's, in JUnit's older form, which has room for properties. A fault
that was tried on several stores is one row.
"""

import importlib
import platform
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self
from xml.etree import ElementTree as ET

from msgspec import Struct

from tests.servers import KAFKA

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

_STORES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
_HEAD = ("| fault | at | stores | tries | |", "|---|---|---|---|---|")
_NAME = re.compile(r"test_(?P<name>\w+)(\[(?P<parameters>.*)\])?")


class Result(Struct):
    """One test: what was tried, on which store, how often, and how it ended."""

    module: str
    fault: str
    at: str
    store: str
    repetitions: int
    verdict: str

    @classmethod
    def of(cls, case: ET.Element) -> Self | None:
        """Of a test case of the report; None where it tries no fault."""
        module = case.get("classname", "").rpartition(".")[2]
        match = _NAME.fullmatch(case.get("name", ""))
        if match is None or not (case.get("classname") or "").startswith("tests.faults."):
            return None
        given = {one.get("name"): one.get("value") for one in case.iter("property")}
        if "repetitions" not in given and case.find("skipped") is None:
            return None
        parameters = [part for part in (match["parameters"] or "").split("-") if part]
        stores = [part for part in parameters if part in _STORES]
        return cls(
            module=module,
            fault=match["name"].replace("_", " "),
            at=" ".join(part for part in parameters if part not in _STORES),
            store=stores[0] if stores else ("sqlite" if "sqlite" in f"{module} {match['name']}" else "postgres"),
            repetitions=int(given.get("repetitions") or 0),
            verdict=_verdict(case),
        )


def _verdict(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "violated"
    return "held" if case.find("skipped") is None else "left out"


def table(results: Iterable[Result]) -> Iterator[str]:
    """The rows, in sections by what was struck."""
    rows: dict[tuple[str, str, str], list[Result]] = {}
    for result in sorted(results, key=lambda one: one.module):
        rows.setdefault((result.module, result.fault, result.at), []).append(result)
    section = ""
    for (module, fault, at), found in rows.items():
        if module != section:
            section = module
            about = (importlib.import_module(f"tests.faults.{module}").__doc__ or "").partition("\n")[0]
            yield from (
                "",
                f"### {about.rstrip('.')}",
                "",
                "| fault | at | stores | tries | |",
                "|---|---|---|---|---|",
            )
        stores = " and ".join(_STORES[store] for store in sorted({one.store for one in found}, reverse=True))
        verdicts = sorted({one.verdict for one in found})
        tries = sum(one.repetitions for one in found)
        yield f"| {fault} | {at} | {stores} | {tries} | {', '.join(verdicts)} |"


def main(reports: Sequence[str]) -> None:
    """Rewrite the page's table."""
    roots = [ET.parse(report).getroot() for report in reports]
    cases = [case for root in roots for case in root.iter("testcase")]
    results = [result for case in cases if (result := Result.of(case)) is not None]
    minutes = sum(float(suite.get("time", 0)) for root in roots for suite in root.iter("testsuite")) / 60
    tries = sum(result.repetitions for result in results)
    kept = sum(result.verdict == "held" for result in results)
    summary = (
        f"The last run: {tries} tries in {len(results)} trials, of which {kept} held, in {minutes:.0f} minutes; "
        f"Kafka {KAFKA}, SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}."
    )
    text = "\n".join([summary, *table(results)])
    page = PAGE.read_text()
    start, end = page.index("<!-- results"), page.index("<!-- end of results -->")
    start = page.index("\n", start) + 1
    PAGE.write_text(f"{page[:start]}\n{text}\n\n{page[end:]}")


if __name__ == "__main__":
    main(sys.argv[1:])
