"""The report of `tidemark stress`: one line of progress, JSON, and a page with plots."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TypeVar

import msgspec
from msgspec import Struct

from processor.cli.plots import Line, line_plot, short

_Point = TypeVar("_Point")

_MOST_POINTS = 500


class Sample(Struct):
    """What happened up to a second of the run; p99_ms of the commands answered since the sample before."""

    at_s: float
    sent: int
    answered: int
    waiting: int
    p99_ms: float


class Report(Struct):
    """All of a run. Latencies in ms, from when a command was due to its reply, at percentiles by their name.

    queried: events read from the store, and from the feed. imbalance: events of the fullest partition against the mean.
    memory_mb: samples by process, each with its second.
    """

    settings: dict[str, float]
    seconds: float
    interrupted: bool
    sent: int
    ingested: int
    queried: dict[str, int]
    outcomes: dict[str, int]
    checks_passed: int
    violations: int
    first_violations: list[str]
    errors: dict[str, int]
    imbalance: float
    latency_ms: dict[str, float]
    read_ms: dict[str, float]
    memory_mb: dict[str, list[tuple[float, float]]]
    samples: list[Sample]

    @property
    def rate(self) -> float:
        """Events taken in, a second."""
        return self.ingested / self.seconds if self.seconds else 0.0


def progress_line(sample: Sample, violations: int, memory_mb: float) -> str:
    """For people who watch."""
    return (
        f"{sample.at_s:7,.0f} s  sent {sample.sent:,}  answered {sample.answered:,}  waiting {sample.waiting:,}  "
        f"p99 {sample.p99_ms:,.1f} ms  memory {memory_mb:,.0f} MB  violations {violations}"
    )


def as_json(report: Report) -> bytes:
    """The whole of it."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def as_text(report: Report) -> str:
    """What it comes to, in some lines."""
    return "\n".join(f"{name:<22} {value}" for name, value in _figures(report))


def as_html(report: Report) -> str:
    """A page that needs nothing else."""
    verdict = "no violation" if not report.violations else f"{report.violations} violations"
    figures = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _figures(report))
    wrong = "".join(f"<li>{escape(text)}</li>" for text in report.first_violations)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>tidemark stress</title>'
        "<style>body{font-family:sans-serif;max-width:800px;margin:2em auto}th{text-align:left;font-weight:normal;"
        "padding-right:2em}svg{width:100%}</style>"
        f"<h1>tidemark stress: {verdict}</h1><table>{figures}</table>{f'<ol>{wrong}</ol>' if wrong else ''}"
        + "".join(_plots(report))
        + "</html>\n"
    )


def _figures(report: Report) -> list[tuple[str, str]]:
    def listed(values: dict[str, int]) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in values.items()) or "none"

    def percentiles(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:,.1f}" for name, value in values.items()) or "none"

    ended = " (interrupted)" if report.interrupted else ""
    memory = ", ".join(
        f"process {name}: {max(used for _, used in samples):,.0f} at most, {samples[-1][1]:,.0f} at the end"
        for name, samples in report.memory_mb.items()
    )
    return [
        ("load", ", ".join(f"{name} {short(value)}" for name, value in report.settings.items())),
        ("duration", f"{report.seconds:,.1f} s{ended}"),
        ("commands sent", f"{report.sent:,}"),
        ("events ingested", f"{report.ingested:,} ({report.rate:,.0f} a second)"),
        ("events queried", listed(report.queried)),
        ("outcomes", listed(report.outcomes)),
        ("checks passed", f"{report.checks_passed:,}"),
        ("violations", f"{report.violations:,}"),
        ("errors", listed(report.errors)),
        ("partition imbalance", f"{report.imbalance:.2f} x the mean"),
        ("send to reply, ms", percentiles(report.latency_ms)),
        ("read a stream, ms", percentiles(report.read_ms)),
        ("memory, MB", memory or "not watched"),
    ]


def _plots(report: Report) -> list[str]:
    samples = _thinned(report.samples)
    steps = pairwise(samples)
    rates = [(now.at_s, (now.answered - before.answered) / (now.at_s - before.at_s)) for before, now in steps]
    waits = [(sample.at_s, sample.p99_ms) for sample in samples]
    memory = [Line(f"process {name}", _thinned(points)) for name, points in report.memory_mb.items()]
    tail = [(float(name.strip("p")), value) for name, value in report.latency_ms.items() if name.startswith("p")]
    return [
        line_plot("commands answered", "seconds", "a second", [Line("rate", rates)]),
        line_plot("send to reply, p99 of ten seconds", "seconds", "ms", [Line("p99", waits)]),
        line_plot("send to reply", "percentile", "ms", [Line("all", tail)], log=True),
        line_plot("memory", "seconds", "MB", memory),
    ]


def _thinned(points: Sequence[_Point]) -> Sequence[_Point]:
    return points[:: max(1, len(points) // _MOST_POINTS)]
