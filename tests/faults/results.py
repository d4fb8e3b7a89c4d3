"""What came of a run: `python -m tests.faults.results [--write] REPORT.xml …` says it in three lines.

With `--write` all of it is put into `docs/faults.md`, else it is printed: that page is of whole runs. The reports are
pytest's, in JUnit's older form, which has room for properties. A fault that was tried on several stores is one row.
"""

import argparse
import importlib
import platform
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from xml.etree import ElementTree as ET

from msgspec import Struct

from tests.servers import KAFKA

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

_STORES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
_FAULTS = "tests.faults."
_NAME = re.compile(r"test_(?P<name>\w+)(\[(?P<parameters>.*)\])?")


class Tried(Struct):
    """A trial: what was tried, on which store, how often, and how it ended."""

    module: str
    fault: str
    at: str
    store: str
    repetitions: int
    verdict: str

    @property
    def said(self) -> str:
        return f"{' '.join(filter(None, (self.fault, self.at)))} ({_STORES[self.store]})"


class Seeds(Struct):
    """Some seeds of the simulation, and those in which a promise was broken."""

    count: int
    failed: list[str]


class SwitchedOff(Struct):
    """A safeguard that was switched off, and what noticed it; empty where nothing did."""

    safeguard: str
    noticed: str


class Run(Struct):
    """All that reports say."""

    tried: list[Tried] = []
    seeds: list[Seeds] = []
    switched_off: list[SwitchedOff] = []
    failed: list[str] = []
    """Other tests that did not pass."""
    minutes: float = 0.0

    def add(self, report: ET.Element) -> None:
        """Add what a report says."""
        self.minutes += sum(float(suite.get("time", 0)) for suite in report.iter("testsuite")) / 60
        for case in report.iter("testcase"):
            given = {one.get("name", ""): one.get("value", "") for one in case.iter("property")}
            if "safeguard" in given:
                self.switched_off.append(SwitchedOff(given["safeguard"], given.get("noticed", "")))
            elif "seeds" in given:
                self.seeds.append(Seeds(int(given["seeds"]), given["failed_seeds"].split()))
            elif (tried := _tried(case, int(given.get("repetitions", 0)))) is not None:
                self.tried.append(tried)
            elif _verdict(case) == "violated":
                self.failed.append(case.get("name", ""))

    @property
    def failed_seeds(self) -> list[str]:
        return [seed for some in self.seeds for seed in some.failed]

    @property
    def not_held(self) -> list[str]:
        """What was violated, or not noticed."""
        violated = [one.said for one in self.tried if one.verdict == "violated"]
        missed = [f"{one.safeguard} switched off and not noticed" for one in self.switched_off if not one.noticed]
        return [*violated, *(f"seed {seed}" for seed in self.failed_seeds), *missed, *self.failed]


def _tried(case: ET.Element, repetitions: int) -> Tried | None:
    """None where the test tries no fault, or has failed before it could say how often."""
    where, match = case.get("classname", ""), _NAME.fullmatch(case.get("name", ""))
    if match is None or not where.startswith(_FAULTS) or not (repetitions or _verdict(case) == "left out"):
        return None
    module = where.rpartition(".")[2]
    parameters = [part for part in (match["parameters"] or "").split("-") if part]
    stores = [part for part in parameters if part in _STORES]
    return Tried(
        module=module,
        fault=match["name"].replace("_", " "),
        at=" ".join(part for part in parameters if part not in _STORES),
        store=stores[0] if stores else ("sqlite" if "sqlite" in f"{module} {match['name']}" else "postgres"),
        repetitions=repetitions,
        verdict=_verdict(case),
    )


def _verdict(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "violated"
    return "held" if case.find("skipped") is None else "left out"


# --- the page


def page_of(run: Run) -> Iterator[str]:
    """The lines between the page's marks."""
    kept = sum(one.verdict == "held" for one in run.tried)
    tries = sum(one.repetitions for one in run.tried)
    yield (
        f"The last whole run: {tries:,} tries in {len(run.tried)} trials, of which {kept} held, and {_seeds(run)}, of "
        f"which {len(run.failed_seeds)} failed; in {run.minutes:.0f} minutes. Tidemark {version('tidemark')}, "
        f"Kafka {KAFKA}, SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}."
    )
    yield from table(run.tried)
    yield from ("", "### The simulation", "", f"{_seeds(run)}, {len(run.failed_seeds)} in which a promise was broken.")
    yield from ("", "### Safeguards that were switched off", "", "| safeguard | noticed by |", "|---|---|")
    for one in sorted(run.switched_off, key=lambda one: (one.safeguard, one.noticed)):
        yield f"| {one.safeguard} | {shorten(one.noticed, 110, placeholder=' …').replace('|', '/') or '**nothing**'} |"


def table(tried: Iterable[Tried]) -> Iterator[str]:
    """The rows, in sections by what was struck."""
    rows: dict[tuple[str, str, str], list[Tried]] = {}
    for result in sorted(tried, key=lambda one: (one.module, one.fault, one.at)):
        rows.setdefault((result.module, result.fault, result.at), []).append(result)
    section = ""
    for (module, fault, at), found in rows.items():
        if module != section:
            section = module
            about = (importlib.import_module(f"{_FAULTS}{module}").__doc__ or "").partition("\n")[0]
            yield from ("", f"### {about.rstrip('.')}", "")
            yield from ("| fault | at | stores | tries | |", "|---|---|---|---|---|")
        stores = " and ".join(_STORES[store] for store in sorted({one.store for one in found}, reverse=True))
        verdicts = sorted({one.verdict for one in found})
        tries = sum(one.repetitions for one in found)
        yield f"| {fault} | {at} | {stores} | {tries} | {', '.join(verdicts)} |"


def summary(run: Run) -> Iterator[str]:
    """What was run, what held, what was left out: a line each."""
    by_verdict: dict[str, list[Tried]] = {"held": [], "violated": [], "left out": []}
    for one in run.tried:
        by_verdict[one.verdict].append(one)
    tries, noticed = sum(one.repetitions for one in run.tried), sum(bool(one.noticed) for one in run.switched_off)
    begun = len(by_verdict["held"]) + len(by_verdict["violated"])
    yield (
        f"run: {tries:,} tries in {begun} trials, {_seeds(run)}, {len(run.switched_off)} safeguards switched off, "
        f"in {run.minutes:.0f} minutes"
    )
    yield (
        f"held: {len(by_verdict['held'])} trials, {_count(run) - len(run.failed_seeds):,} seeds, "
        f"{noticed} safeguards noticed; not held: {', '.join(run.not_held) or 'nothing'}"
    )
    yield f"left out: {', '.join(one.said for one in by_verdict['left out']) or 'nothing'}"


def _count(run: Run) -> int:
    return sum(some.count for some in run.seeds)


def _seeds(run: Run) -> str:
    return f"{_count(run):,} seeds"


def put_in(page: str, text: str) -> str:
    """The page with the text between its marks."""
    start, end = page.index("<!-- results"), page.index("<!-- end of results -->")
    start = page.index("\n", start) + 1
    return f"{page[:start]}\n{text}\n\n{page[end:]}"


def main(arguments: Sequence[str], say: Callable[[str], object]) -> int:
    """0 where all held, and 1 where something did not or nothing was tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.results", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the results into the page")
    parser.add_argument("reports", nargs="+", type=Path)
    asked = parser.parse_args(arguments)
    run = Run()
    for report in asked.reports:
        run.add(ET.parse(report).getroot())
    text = "\n".join(page_of(run))
    if asked.write:
        PAGE.write_text(put_in(PAGE.read_text(), text))
    else:
        say(f"{text}\n\n")
    for line in summary(run):
        say(f"{line}\n")
    something = run.tried or run.seeds or run.switched_off
    return 0 if something and not run.not_held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout.write))
