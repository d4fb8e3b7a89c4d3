"""Who owns which log, how they get on between two looks, and how the load is spread over them. Pure.

Whenever a worker joins or leaves, the group gives out all logs anew, by the load that each has had lately (`spread`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any, Literal, TypeVar

from msgspec import Struct

from processor.messages import Checkpoint, Log

_Place = TypeVar("_Place", bound=tuple[Any, ...])

_UNEVEN = 1.25
"""From so many times the even share on, the busiest worker is worth a word."""
_BETTER = 0.9
"""To give the logs out anew is proposed where the busiest worker has at most this part of what it has now."""
_HOT = 0.25
"""A log with this part of the whole load is hot, if it has twice the even share, too."""
_FEW = 20.0
"""Below so many commands a second, shares say nothing."""
_OWN_WEIGHT = 0.1
"""What a log weighs by itself, whatever comes in, as a part of what all of them come to on the average."""
_HALF_LIFE_S = 300.0
_FORGOTTEN_S = 60.0
"""As long as a rebalance may take: what a log comes to is told after it was let go of."""


class Member(Struct, frozen=True):
    """A worker in the consumer group: what it owns, and whose logs it takes, of all tenants that are looked at.

    `instance` is the name that it has for good (static membership), if any.
    """

    id: str
    instance: str | None
    host: str
    logs: list[Log]
    tenants: frozenset[str]


class Group(Struct, frozen=True):
    """The consumer group; `state` in Kafka's word, lower case."""

    state: str
    members: list[Member]

    @property
    def is_settled(self) -> bool:
        """Whether everyone knows what they own."""
        return self.state == "stable"


class Look(Struct, frozen=True):
    """What store and broker say at one moment, `at_s` on any clock. `ends`: where the logs end."""

    at_s: float
    checkpoints: Mapping[Log, Checkpoint]
    ends: Mapping[Log, int]


class LogRow(Struct, frozen=True):
    """A log. Rates are commands a second; `sent_s` those that came into the log, `decided_s` those decided.

    lag: commands that wait to be decided. unanswered: decided, the reply not known to be out. unpublished: events whose
    place on the feed is not known to be out. stands: commands wait, and none was decided between the looks.
    """

    tenant: str
    partition: int
    worker: str | None
    epoch: int
    next_offset: int
    end_offset: int
    lag: int
    unanswered: int
    unpublished: int
    sent_s: float
    decided_s: float
    stands: bool

    @property
    def log(self) -> Log:
        """Which one."""
        return Log(self.tenant, self.partition)


class MemberRow(Struct, frozen=True):
    """A worker with what its logs come to; `share` is its part of all that was sent, in percent."""

    worker: str
    instance: str | None
    host: str
    partitions: int
    lag: int
    unanswered: int
    unpublished: int
    decided_s: float
    share: float


class Advice(Struct, frozen=True):
    """What is amiss (`wrong`), or could be better (`note`)."""

    state: Literal["note", "wrong"]
    text: str


def log_rows(group: Group, before: Look, after: Look) -> list[LogRow]:
    """All logs, in order."""
    owners = {log: member.id for member in group.members for log in member.logs}
    seconds = max(after.at_s - before.at_s, 1e-9)
    rows = []
    for log, end in sorted(after.ends.items()):
        now, then = after.checkpoints.get(log), before.checkpoints.get(log)
        decided, was = (now.next_offset if now else 0), (then.next_offset if then else 0)
        waited = max(0, before.ends[log] - was)
        rows.append(
            LogRow(
                tenant=log.tenant,
                partition=log.partition,
                worker=owners.get(log),
                epoch=now.epoch if now else 0,
                next_offset=decided,
                end_offset=end,
                lag=max(0, end - decided),
                unanswered=max(0, decided - now.acknowledged_offset) if now else 0,
                unpublished=max(0, now.next_position - 1 - now.acknowledged_position) if now else 0,
                sent_s=(end - before.ends[log]) / seconds,
                decided_s=(decided - was) / seconds,
                stands=waited > 0 and decided == was,
            )
        )
    return rows


def member_rows(group: Group, logs: Iterable[LogRow]) -> list[MemberRow]:
    """All workers, in the order of their ids."""
    by_log = {row.log: row for row in logs}
    total = sum(row.sent_s for row in by_log.values())
    rows = []
    for member in sorted(group.members, key=lambda one: one.id):
        own = [by_log[log] for log in member.logs if log in by_log]
        rows.append(
            MemberRow(
                worker=member.id,
                instance=member.instance,
                host=member.host,
                partitions=len(member.logs),
                lag=sum(row.lag for row in own),
                unanswered=sum(row.unanswered for row in own),
                unpublished=sum(row.unpublished for row in own),
                decided_s=sum(row.decided_s for row in own),
                share=100 * sum(row.sent_s for row in own) / total if total else 0.0,
            )
        )
    return rows


def advise(group: Group, logs: Sequence[LogRow]) -> list[Advice]:
    """What to do, the worst first."""
    if not group.members:
        return [Advice("wrong", "No worker runs: start `tidemark worker`.")]
    if not group.is_settled:
        text = f"The group is {group.state}: the partitions are being given out anew. Look again in a moment."
        return [Advice("note", text)]
    found = [*_unowned(logs), *_standing(logs), *_falling_behind(group, logs), *_spread(group, logs)]
    return sorted(found, key=lambda advice: advice.state, reverse=True)


def spread(
    loads: Mapping[_Place, float | None],
    workers: Iterable[str],
    takes: Callable[[str, _Place], bool] = lambda _worker, _place: True,
) -> dict[str, list[_Place]]:
    """Give out logs, or what else has a load, so that the busiest worker has little more than the others.

    The largest first, each to the worker that has least (R. L. Graham, Bounds on multiprocessing timing anomalies,
    1969): where everyone takes all, the busiest one has at most 4/3 of what the best spread would give it, each log's
    own weight included. None is a load that is not known, and taken for an average one; where none is known, everyone
    has as many. What no worker `takes` is left out.
    """
    known = [load for load in loads.values() if load is not None]
    average = sum(known) / len(known) if known else 0.0
    own = _OWN_WEIGHT * average or 1.0
    weights = {place: own + (average if load is None else load) for place, load in loads.items()}
    given: dict[str, list[_Place]] = {worker: [] for worker in workers}
    line = [(0.0, 0, worker) for worker in sorted(given)]
    for place in sorted(weights, key=lambda place: (-weights[place], place)):
        passed = []
        while line and not takes(line[0][2], place):
            passed.append(heappop(line))
        if line:
            weight, count, worker = line[0]
            given[worker].append(place)
            heapreplace(line, (weight + weights[place], count + 1, worker))
        for one in passed:
            heappush(line, one)
    return given


class _Load(Struct):
    """Commands that came in, and the seconds in which they did, the older the less of either counts."""

    end: int
    at_s: float
    commands: float = 0.0
    seconds: float = 0.0


class Loads:
    """What comes in on each log, on an average of the last minutes: of what was five minutes ago, half counts."""

    def __init__(self) -> None:
        self._of: dict[Log, _Load] = {}

    def begin(self, log: Log, next_offset: int, at_s: float) -> None:
        """A log is owned from now on, at a time of any clock: from there on, what lies on it has come in."""
        self._of.setdefault(log, _Load(next_offset, at_s))

    def note(self, ends: Mapping[Log, int], at_s: float) -> None:
        """Where logs end that are owned. One that is not looked at for a minute is forgotten."""
        for log, end in ends.items():
            load = self._of.setdefault(log, _Load(end, at_s))
            fade = 0.5 ** ((at_s - load.at_s) / _HALF_LIFE_S)
            load.commands = load.commands * fade + max(0, end - load.end)
            load.seconds = load.seconds * fade + at_s - load.at_s
            load.end, load.at_s = end, at_s
        self._of = {log: load for log, load in self._of.items() if at_s - load.at_s <= _FORGOTTEN_S}

    def a_minute(self) -> dict[Log, int]:
        """Commands a minute, of the logs that were looked at since they are owned."""
        return {log: math.ceil(60 * load.commands / load.seconds) for log, load in self._of.items() if load.seconds}


def busiest_share(rates: Mapping[Log, float], workers: int) -> float:
    """What part of the load the busiest one of so many workers has, where the logs are given out by these rates."""
    given = spread(rates, map(str, range(workers))).values()
    return max(sum(rates[log] for log in logs) for logs in given) / (sum(rates.values()) or 1.0)


def _unowned(logs: Sequence[LogRow]) -> Iterator[Advice]:
    unowned = [row.log for row in logs if row.worker is None]
    if unowned:
        text = f"Nobody owns {_named(unowned)}: do all workers have the same tenants and topic prefix as here?"
        yield Advice("wrong", text)


def _standing(logs: Sequence[LogRow]) -> Iterator[Advice]:
    standing = [row.log for row in logs if row.stands and row.worker is not None]
    if standing:
        text = f"Commands wait, and none was decided, in {_named(standing)}: `tidemark doctor`, and `/status` of"
        owners = sorted({row.worker for row in logs if row.stands and row.worker is not None})
        yield Advice("wrong", f"{text} {', '.join(owners)}, say why.")


def _falling_behind(group: Group, logs: Sequence[LogRow]) -> Iterator[Advice]:
    sent, decided = sum(row.sent_s for row in logs), sum(row.decided_s for row in logs)
    workers, most = len(group.members), len(logs)
    if sent < _FEW or decided <= 0 or sent <= decided * 1.1 or not any(row.lag for row in logs):
        return
    text = f"{sent:,.0f} commands a second come in, {decided:,.0f} are decided"
    wanted = min(most, max(workers + 1, -(-int(workers * sent) // int(decided))))
    if workers < most:
        yield Advice("note", f"{text}: if it stays so, {wanted} workers in place of {workers}.")
    else:
        yield Advice("note", f"{text}, and every log has a worker of its own: is it the store, or the broker?")


def _spread(group: Group, logs: Sequence[LogRow]) -> Iterator[Advice]:
    workers, most = len(group.members), len(logs)
    if workers > most:
        text = f"{workers} workers share {most} logs: {workers - most} of them stand by and take over when one is gone."
        yield Advice("note", text)
        return
    tenants = {row.log.tenant for row in logs}
    for member in group.members:
        if missing := sorted(tenants - member.tenants):
            text = f"{member.id} does not take the logs of {', '.join(missing)}: give all workers the same tenants."
            yield Advice("note", text)
    yield from _weighed(group, {row.log: row.sent_s for row in logs})


def _weighed(group: Group, rates: Mapping[Log, float]) -> Iterator[Advice]:
    total, workers = sum(rates.values()), len(group.members)
    if total < _FEW:
        return
    hottest = max(rates, key=rates.__getitem__)
    share = rates[hottest] / total
    if share >= max(_HOT, 2 / len(rates)):
        text = f"{hottest} has {share:.0%} of the load: more than {max(1, int(1 / share))} workers do not help it."
        yield Advice("note", f"{text} Which streams are hot there is for their writers to change.")
    now = max(sum(rates.get(log, 0.0) for log in member.logs) for member in group.members) / total
    anew = busiest_share(rates, workers)
    if now >= _UNEVEN / workers and anew <= now * _BETTER:
        text = f"The busiest of {workers} workers has {now:.0%} of the load. Given out anew it would have {anew:.0%}:"
        yield Advice("note", f"{text} that is done when a worker joins or leaves.")


def _named(logs: Sequence[Log]) -> str:
    shown = ", ".join(map(str, logs[:5]))
    return shown if len(logs) <= 5 else f"{shown} and {len(logs) - 5} more"
