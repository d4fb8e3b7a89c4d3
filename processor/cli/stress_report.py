"""The report of `tidemark stress`: one line of progress, JSON, text, a page with plots, and Markdown with its plots."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from processor.cli.plots import Bar, Line, Ticks, column_plot, line_plot, short
from processor.cli.stress_checks import Tally

_Point = TypeVar("_Point")

_MOST_POINTS = 400
_UNITS = ((7_200, 3_600, "hours"), (600, 60, "minutes"), (0, 1, "seconds"))


class Sample(Struct):
    """What happened up to a second of the run; p50_ms and p99_ms of the commands answered since the sample before.

    fed, stored: events read from the feed, and from the store.
    """

    at_s: float
    sent: int
    answered: int
    waiting: int
    p50_ms: float
    p99_ms: float
    fed: int = 0
    stored: int = 0


class Report(Struct):
    """All of a run. Latencies in ms, from when a command was due to its reply, at percentiles by their name.

    queried: events read from the store, and from the feed. checks: by what they are about. corruptions: violations that
    are wrong for good, in store, streams or feed. imbalance: events of the fullest partition against the mean.
    latency_curve, read_curve: percentiles, with their ms. memory_mb, processors: samples by process, with their second;
    of a processor, percent of one since the sample before.
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
    corruptions: int
    checks: dict[str, Tally]
    first_violations: list[str]
    errors: dict[str, int]
    imbalance: float
    events_by_partition: list[int]
    latency_ms: dict[str, float]
    latency_curve: list[tuple[float, float]]
    read_ms: dict[str, float]
    read_curve: list[tuple[float, float]]
    memory_mb: dict[str, list[tuple[float, float]]]
    processors: dict[str, list[tuple[float, float]]]
    samples: list[Sample]

    @property
    def rate(self) -> float:
        """Events taken in, a second."""
        return self.ingested / self.seconds if self.seconds else 0.0

    @property
    def verdict(self) -> str:
        """In two words."""
        return f"{self.violations:,} violations" if self.violations else "no violation"


class _Plot(NamedTuple):
    """`name` as a file's."""

    name: str
    about: str
    svg: str


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


def as_markdown(report: Report, title: str, about: str, folder: str) -> tuple[str, dict[str, str]]:
    """A page for a repository, and its plots by the names of their files in `folder`, which lies beside the page."""
    plots = {f"{plot.name}.svg": plot for plot in _plots(report)}
    rows = "".join(f"| {name} | {value} |\n" for name, value in _figures(report))
    wrong = "".join(f"- {text}\n" for text in report.first_violations)
    images = "".join(f"\n![{plot.about}]({folder}/{name})\n" for name, plot in plots.items())
    page = f"# {title}: {report.verdict}\n\n{about}\n\n| | |\n|---|---|\n{rows}{wrong and chr(10)}{wrong}{images}"
    return page, {name: plot.svg for name, plot in plots.items()}


# --- the page


_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d9dfe5; --back: #f6f8fa; --bad: #b42318;
  --good: #1a7f37 }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 48px }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; margin-bottom: 24px }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em }
h2 { font-size: 16px; margin: 32px 0 12px }
.verdict { padding: 2px 12px; border-radius: 99px; color: #fff; background: var(--good); font-weight: 600 }
.verdict.bad { background: var(--bad) }
.load { flex-basis: 100%; color: var(--soft) }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px }
@media (max-width: 720px) { .tiles { grid-template-columns: repeat(2, 1fr) } }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; overflow-x: auto }
.tile b { display: block; font-size: 24px; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 13px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 12px }
.plots svg { display: block; width: 100%; height: auto }
.plots .card { padding: 4px }
.tables { columns: 3 300px; column-gap: 12px }
.tables .card { break-inside: avoid; margin-bottom: 12px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: 4px }
th { font-weight: 400; text-align: left; color: var(--soft) }
td { text-align: right; padding-left: 16px }
th, td { padding-block: 3px; border-top: 1px solid var(--line) }
.bad { color: var(--bad); font-weight: 600 }
li { overflow-wrap: anywhere }
"""


def as_html(report: Report) -> str:
    """A page that needs nothing else."""
    bad = " bad" if report.violations else ""
    ended = ", interrupted" if report.interrupted else ""
    plots = "".join(f'<div class="card">{plot.svg}</div>' for plot in _plots(report))
    wrong = "".join(f"<li>{escape(text)}</li>" for text in report.first_violations)
    shown = f'<h2>The first violations</h2><ol class="card">{wrong}</ol>' if wrong else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>tidemark stress</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>"
        f'<header><h1>tidemark stress</h1><span class="verdict{bad}">{report.verdict}</span>'
        f'<span class="load">{escape(_load(report))}{ended}</span></header>'
        f'<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(report))}</div>{shown}'
        f'<h2>Over the time</h2><div class="plots">{plots}</div>'
        f'<h2>In figures</h2><div class="tables">{"".join(_tables(report))}</div>'
        "</main></body></html>\n"
    )


def _tile(name: str, value: str) -> str:
    return f'<div class="card tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'


def _tiles(report: Report) -> list[tuple[str, str]]:
    waits = [(f"ms send to reply, {name}", f"{value:,.1f}") for name, value in report.latency_ms.items()]
    return [
        ("events a second", f"{report.rate:,.0f}"),
        ("events ingested", f"{report.ingested:,}"),
        ("checks passed", f"{report.checks_passed:,}"),
        ("corruptions", f"{report.corruptions:,}"),
        *(wait for wait in waits if wait[0].endswith(("p50", "p99", "p99.9"))),
        ("x the mean: the fullest partition", f"{report.imbalance:.2f}"),
    ]


def _tables(report: Report) -> list[str]:
    checks = [
        (name, f"{tally.passed:,}" + (f" <span class=bad>{tally.failed:,} failed</span>" if tally.failed else ""))
        for name, tally in report.checks.items()
    ]
    events = [("ingested", report.ingested), *((f"read {name}", count) for name, count in report.queried.items())]
    return [
        _table("Outcomes", _counted(report.outcomes)),
        _table("Checks passed", checks),
        _table("Send to reply, ms", _measured(report.latency_ms)),
        _table("Read a stream, ms", _measured(report.read_ms)),
        _table("Events", _counted(dict(events))),
        _table("Errors", _counted(report.errors) or [("none", "")]),
        _table("Memory, MB", [(name, _most_and_last(points)) for name, points in report.memory_mb.items()]),
        _table("Processors, % of one", [(name, _mean(points)) for name, points in report.processors.items()]),
        _table("Load", [(name, short(value)) for name, value in report.settings.items()]),
    ]


def _table(caption: str, rows: Sequence[tuple[str, str]]) -> str:
    """`rows`: names as text, values as HTML."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
    return f'<div class="card"><table><caption>{caption}</caption>{lines}</table></div>'


def _counted(values: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{value:,}") for name, value in values.items()]


def _measured(values: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, f"{value:,.1f}") for name, value in values.items()]


def _most_and_last(points: Sequence[tuple[float, float]]) -> str:
    return f"{max(value for _, value in points):,.0f} at most, {points[-1][1]:,.0f} last"


def _mean(points: Sequence[tuple[float, float]]) -> str:
    return f"{sum(value for _, value in points) / len(points):,.0f} on average"


# --- text


def _load(report: Report) -> str:
    load = report.settings
    return (
        f"{load['rate']:,.7g} commands a second by {load['producers']:.0f} producers for {_time(report.seconds)}, "
        f"{load['streams']:,.0f} streams with skew {load['skew']:g}, {load['duplicates']:.0%} duplicates, "
        f"{load['conflicts']:.0%} conflicts, {load['readers']:.0f} readers"
    )


def _time(seconds: float) -> str:
    _, size, unit = next(found for found in _UNITS if seconds >= found[0])
    return f"{seconds / size:,.3g} {unit}"


def _figures(report: Report) -> list[tuple[str, str]]:
    def listed(values: Sequence[tuple[str, str]]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values) or "none"

    ended = " (interrupted)" if report.interrupted else ""
    memory = ", ".join(f"{name}: {_most_and_last(points)}" for name, points in report.memory_mb.items())
    processors = ", ".join(f"{name}: {_mean(points)}" for name, points in report.processors.items())
    checks = ", ".join(f"{name} {tally.passed:,}" for name, tally in report.checks.items())
    return [
        ("load", listed([(name, short(value)) for name, value in report.settings.items()])),
        ("duration", f"{report.seconds:,.1f} s{ended}"),
        ("commands sent", f"{report.sent:,}"),
        ("events ingested", f"{report.ingested:,} ({report.rate:,.0f} a second)"),
        ("events queried", listed(_counted(report.queried))),
        ("outcomes", listed(_counted(report.outcomes))),
        ("checks passed", f"{report.checks_passed:,} ({checks})"),
        ("violations", f"{report.violations:,}"),
        ("corruptions", f"{report.corruptions:,}"),
        ("errors", listed(_counted(report.errors))),
        ("partition imbalance", f"{report.imbalance:.2f} x the mean"),
        ("send to reply, ms", listed(_measured(report.latency_ms))),
        ("read a stream, ms", listed(_measured(report.read_ms))),
        ("memory, MB", memory or "not watched"),
        ("processors, %", processors or "not watched"),
    ]


# --- plots


def _plots(report: Report) -> list[_Plot]:
    samples = _thinned(report.samples)
    size, unit = next((size, unit) for least_s, size, unit in _UNITS if report.seconds >= least_s)
    steps = list(pairwise([Sample(0.0, 0, 0, 0, 0.0, 0.0), *samples]))

    def over_time(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(at_s / size, value) for at_s, value in points]

    def lines(found: Mapping[str, Sequence[tuple[float, float]]]) -> list[Line]:
        return [Line(name, over_time(_thinned(points))) for name, points in found.items()]

    def rate(count: Callable[[Sample], int]) -> list[tuple[float, float]]:
        return [(now.at_s, (count(now) - count(then)) / (now.at_s - then.at_s)) for then, now in steps]

    rates = {"sent": rate(lambda one: one.sent), "answered": rate(lambda one: one.answered)}
    reads = {"from the store": rate(lambda one: one.stored), "from the feed": rate(lambda one: one.fed)}
    waits = {
        "p99": [(sample.at_s, sample.p99_ms) for sample in samples],
        "p50": [(sample.at_s, sample.p50_ms) for sample in samples],
    }
    waiting = [(sample.at_s, float(sample.waiting)) for sample in samples]
    partitions = [Bar(str(number), count, "") for number, count in enumerate(report.events_by_partition)]
    return [
        _Plot(
            "rate",
            "commands a second",
            line_plot("Commands sent and answered", unit, "a second", lines(rates)),
        ),
        _Plot(
            "latency",
            "send to reply over the time",
            line_plot("Send to reply, by ten seconds", unit, "ms", lines(waits), log=True),
        ),
        _Plot("percentiles", "times by percentile", _curve_plot(report)),
        _Plot(
            "waiting",
            "commands that wait for their reply",
            line_plot("Commands that wait for their reply", unit, "commands", lines({"waiting": waiting})),
        ),
        _Plot("reads", "events read a second", line_plot("Events read", unit, "a second", lines(reads))),
        _Plot("memory", "memory", line_plot("Memory", unit, "MB", lines(report.memory_mb))),
        _Plot(
            "processors",
            "processor time",
            line_plot("Processor time", unit, "% of one processor", lines(report.processors)),
        ),
        _Plot("partitions", "events by partition", column_plot("Events by partition", "partition", partitions)),
    ]


def _curve_plot(report: Report) -> str:
    """Each step to the right is ten times as rare."""

    def rarity(share: float) -> float:
        return -math.log10(1 - share / 100)

    curves = {"send to reply": report.latency_curve, "read a stream": report.read_curve}
    lines = [Line(name, [(rarity(share), ms) for share, ms in curve]) for name, curve in curves.items() if curve]
    most = max((line.points[-1][0] for line in lines), default=0.0)
    nines: Ticks = [(rarity(share), f"{share:g}%") for share in (0, 90, 99, 99.9, 99.99, 99.999)]
    shown = [tick for tick in nines if tick[0] <= most + 1e-9]
    return line_plot("Times of the whole run", "percentile", "ms", lines, log=True, ticks=shown)


def _thinned(points: Sequence[_Point]) -> Sequence[_Point]:
    return points[:: max(1, len(points) // _MOST_POINTS)]
