import re
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from processor.cli.stress_checks import Tally
from processor.cli.stress_report import Report, Sample, as_html, as_markdown, as_text


def _report(seconds: float = 3_600.0, step_s: int = 10) -> Report:
    samples = [
        Sample(at_s, 100 * at_s, 100 * at_s - 5, 5, 4.0, 20.0 + at_s % 7)
        for at_s in range(step_s, int(seconds) + 1, step_s)
    ]
    points = [(sample.at_s, 160.0) for sample in samples]
    load = {"rate": 100.0, "producers": 2.0, "duration_s": seconds, "streams": 2_000.0, "skew": 1.0}
    return Report(
        settings={**load, "duplicates": 0.05, "conflicts": 0.05, "events": 1.0, "readers": 2.0}, seconds=seconds,
        interrupted=False, sent=360_000, ingested=324_000, queried={"from the feed": 324_000},
        outcomes={"accepted": 324_000, "conflict": 18_000, "duplicate": 18_000}, checks_passed=1_000_000,
        violations=0, corruptions=0, checks={"replies": Tally(360_000, 0)}, first_violations=[], errors={},
        imbalance=1.5, events_by_partition=[10_000] * 32, latency_ms={"p50": 5.0, "p99": 30.0, "p99.9": 50.0},
        latency_curve=[(0.0, 1.0), (90.0, 8.0), (99.0, 30.0)], read_ms={}, read_curve=[], memory_mb={"worker": points},
        processors={"worker": points}, samples=samples,
    )  # fmt: skip


def test_a_page_for_a_repository_is_small_and_has_its_plots_beside_it() -> None:
    page, plots = as_markdown(_report(), "One hour", "About it.", "one-hour")
    assert page.startswith("# One hour: no violation\n\nAbout it.\n")
    assert set(re.findall(r"\(one-hour/(.+?)\)", page)) == set(plots)
    assert sum(map(len, plots.values())) + len(page) < 300_000
    for svg in plots.values():
        ET.fromstring(svg)


def test_a_run_of_days_has_no_more_points_than_a_plot_can_show() -> None:
    _, plots = as_markdown(_report(7 * 86_400, 60), "Seven days", "", "seven-days")
    assert sum(map(len, plots.values())) < 300_000


def test_a_violation_is_shown_as_text() -> None:
    text = "order-<1>: after version 3 comes version 5"
    wrong = replace(_report(), violations=1, corruptions=1, first_violations=[text], checks={"feed": Tally(3, 1)})
    assert "order-&lt;1&gt;: after version 3" in as_html(wrong)
    assert "1 failed" in as_html(wrong)
    assert f"- {text}\n" in as_markdown(wrong, "One hour", "", "one-hour")[0]


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_run_without_an_answer_has_a_report(seconds: float) -> None:
    nothing = replace(
        _report(), seconds=seconds, ingested=0, outcomes={}, latency_ms={}, latency_curve=[], samples=[], memory_mb={},
        processors={}, events_by_partition=[0] * 32,
    )  # fmt: skip
    assert as_html(nothing).count("<svg") == 8
    assert "none" in as_text(nothing)
