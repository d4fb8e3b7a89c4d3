"""Counts and durations of a worker. Told of a cycle or a log's share of it at once, never of each command."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from processor.cycle import CycleMeter, Meter, OwnedLog
from processor.messages import Accepted, Conflict, Duplicate, Log, Outcome, Plan, Publication, Rejected, Slice
from processor.store import Committed
from processor.telemetry.histogram import COMMANDS, SECONDS, Histogram
from processor.telemetry.hot import Hot
from processor.telemetry.tracing import CommandTraces, CycleTrace

Stage = Literal["load", "decide", "commit", "publish"]

_HOT_EVERY, _FEW = 16, 32
_LEAST_SHARE = 0.01
_OF_STREAMS = (Accepted, Duplicate, Conflict)


class WorkerMeter(Meter):
    """What a worker has done since it began.

    commands: decided and committed, by tenant, outcome and reason. commits: logs' shares, by how they ended.
    heads: that a cycle needed, by whether they were known. retries: by what was tried again.
    """

    def __init__(self, traces: CommandTraces | None = None) -> None:
        self.commands: Counter[tuple[str, str, str]] = Counter()
        self.events: Counter[str] = Counter()
        self.commits: Counter[Committed] = Counter()
        self.heads: Counter[Literal["hit", "miss"]] = Counter()
        self.retries: Counter[Literal["store", "publish"]] = Counter()
        self.published: Counter[Literal["event", "reply"]] = Counter()
        self.dead_letters = 0
        self.undeliverable = 0
        self.claims = 0
        self.stages: dict[Stage, Histogram] = {
            stage: Histogram(SECONDS) for stage in ("load", "decide", "commit", "publish")
        }
        self.end_to_end = Histogram(SECONDS)
        self.cycle_sizes = Histogram(COMMANDS)
        self._hot: Hot[tuple[str, str]] = Hot()
        self._hot_skipped = 0
        self._traces = traces

    @property
    def faults(self) -> int:
        """Grows with everything that excuses a log for standing still."""
        return self.retries.total() + self.commits[Committed.BUSY]

    def hot_streams(self, most: int) -> list[tuple[tuple[str, str], float]]:
        """Tenant and name of the streams with the largest shares of the commands lately, one in a hundred at least."""
        return self._hot.top(most, _LEAST_SHARE)

    # --- from the cycles

    def owning(self, owned: OwnedLog) -> None:
        """Count the claim."""
        self.claims += 1
        if self._traces is not None:
            self._traces.forget(owned.log)

    def received(self, piece: Slice) -> None:
        """Look for traced commands."""
        if self._traces is not None:
            self._traces.received(piece)

    def cycle(self, slices: Sequence[Slice]) -> CycleMeter:
        """Begin a cycle."""
        self.cycle_sizes.add(sum(len(piece.records) for piece in slices))
        trace = self._traces.cycle(slices) if self._traces is not None else None
        return CycleTimes(self, trace)

    def store_failed(self) -> None:
        """Count it."""
        self.retries["store"] += 1

    def decided(self, plans: Sequence[Plan]) -> None:
        """Count what a cycle has committed."""
        for plan in plans:
            tenant = plan.log.tenant
            others = [outcome for _, outcome in plan.answers if type(outcome) is not Accepted]
            self.commands[tenant, "accepted", ""] += len(plan.answers) - len(others)
            for outcome in others:
                self.commands[tenant, *_named(outcome)] += 1
            self.events[tenant] += len(plan.events)
        self._count_streams(plans)

    def _count_streams(self, plans: Sequence[Plan]) -> None:
        """Of many commands, one in so many is enough to find out who has a notable share, and stands for the others."""
        step = 1 if sum(len(plan.answers) for plan in plans) <= _FEW else _HOT_EVERY
        keys: list[tuple[str, str]] = []
        for plan in plans:
            sample = plan.answers[self._hot_skipped % step :: step]
            keys += [
                (plan.log.tenant, str(outcome.stream)) for _, outcome in sample if isinstance(outcome, _OF_STREAMS)
            ]
            self._hot_skipped = (self._hot_skipped - len(plan.answers)) % _HOT_EVERY
        # Or else, where streams take turns, it would be the same one each time.
        self._hot_skipped += 1
        self._hot.turn()
        self._hot.count(keys, step)

    # --- from the publishers

    @contextmanager
    def publishing(self, log: Log, publication: Publication) -> Iterator[None]:
        """Time a publication; what is logged meanwhile carries the trace of a command of it that is traced."""
        began_s = time.perf_counter()
        # Now, as each record is about to be looked at for its reply: once that is out, it is cold memory.
        sent_s = sorted([sent_ms / 1000 for record, _ in publication.answers if (sent_ms := record.timestamp or 0) > 0])
        if self._traces is None:
            yield
        else:
            with self._traces.publishing(log, publication):
                yield
        self.stages["publish"].add(time.perf_counter() - began_s)
        self.published["event"] += len(publication.events)
        self.published["reply"] += len(publication.answers)
        self.end_to_end.add_ages(time.time(), sent_s)


class CycleTimes(CycleMeter):
    """Times the stations of one cycle."""

    def __init__(self, meter: WorkerMeter, trace: CycleTrace | None) -> None:
        self._meter = meter
        self._trace = trace
        self._since_s = time.perf_counter()
        self._deciding_s = self._loading_s = 0.0

    def _lap_s(self) -> float:
        now_s = time.perf_counter()
        lap_s = now_s - self._since_s
        self._since_s = now_s
        return lap_s

    def read(self, *, known: int, unknown: int) -> None:
        """Count the heads."""
        self._meter.heads["hit"] += known
        self._meter.heads["miss"] += unknown

    def loading(self) -> None:
        """What can be decided without the store's answer is decided."""
        self._deciding_s += self._lap_s()

    def loaded(self) -> None:
        """The answer is there."""
        self._loading_s += self._lap_s()

    def decided(self) -> None:
        """The plans are made."""
        self._meter.stages["load"].add(self._loading_s)
        self._meter.stages["decide"].add(self._deciding_s + self._lap_s())
        if self._trace is not None:
            self._trace.decided()

    def committing(self) -> None:
        """The store's turn."""
        self._since_s = time.perf_counter()
        if self._trace is not None:
            self._trace.committing()

    def committed(self, plans: Mapping[Log, Plan], results: Mapping[Log, Committed]) -> None:
        """Count what is in the store now."""
        if plans:
            self._meter.stages["commit"].add(self._lap_s())
        self._meter.commits.update(results.values())
        self._meter.decided([plans[log] for log, how in results.items() if how is Committed.YES])
        if self._trace is not None:
            self._trace.committed()


def _named(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Accepted():
            return "accepted", ""
        case Duplicate():
            return "duplicate", ""
        case Conflict(reason=reason):
            return "conflict", reason
        case Rejected(reason=reason):
            return "rejected", reason
