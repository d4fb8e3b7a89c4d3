"""What `tidemark stress` holds replies, feed and store against while they run. Pure; each check says what is wrong."""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeVar

from msgspec import Struct

from processor.chain import event_hash, payload_digest
from processor.cli.stress_load import Asked, Intent
from processor.messages import Accepted, Conflict, Duplicate, Log, Outcome, RecordedEvent, Rejected

_Key = TypeVar("_Key")

_REMEMBERED = 50_000


class Check(StrEnum):
    """What a check is about."""

    REPLIES = "replies"
    FEED = "feed"
    STORE = "store"
    STREAMS = "streams"
    MEMORY = "memory"
    END = "end"


CORRUPTIONS = (Check.FEED, Check.STORE, Check.STREAMS)
"""Where what is wrong is wrong for good."""


class Tally(Struct):
    """How often it was right, and how often not."""

    passed: int = 0
    failed: int = 0


class _Waiting(NamedTuple):
    asked: Asked
    due_s: float


class Replies:
    """Every command gets a reply, of the kind that was meant; all its replies agree.

    `waiting` are without one, in the order in which they were sent. Answers are remembered for a while, to be held
    against later ones.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._answered: OrderedDict[int, Outcome] = OrderedDict()
        self._accepted: OrderedDict[str, Outcome] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many commands have no reply yet."""
        return len(self._waiting)

    def sent(self, number: int, asked: Asked, due_s: float) -> None:
        """A command goes out."""
        self._waiting[number] = _Waiting(asked, due_s)

    def given_up(self, number: int) -> None:
        """It did not get to the broker."""
        self._waiting.pop(number, None)

    def answered(self, number: int, outcome: Outcome) -> tuple[float | None, str | None]:
        """A reply: when its command was due, None for a repeated one; and what is wrong with it."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            before = self._answered.get(number)
            wrong = before is not None and before != outcome
            return None, f"two replies to one command differ: {before}, {outcome}" if wrong else None
        _remember(self._answered, number, outcome)
        self.outcomes[kind_of(outcome)] += 1
        return waiting.due_s, self._judged(waiting.asked, outcome)

    def _judged(self, asked: Asked, outcome: Outcome) -> str | None:
        match asked.intent, outcome:
            case Intent.ACCEPTED, Accepted():
                _remember(self._accepted, asked.command_id, outcome)
                return None
            case Intent.DUPLICATE, Duplicate():
                original = self._accepted.get(asked.command_id)
                if isinstance(original, Accepted) and _places(original) != _places(outcome):
                    return f"a duplicate was told other places than the original: {original}, {outcome}"
                return None
            case Intent.CONFLICT, Conflict():
                return None
            case _:
                return f"a command that was to be {asked.intent} came to {outcome}"


def kind_of(outcome: Outcome) -> str:
    """The outcome's word."""
    match outcome:
        case Accepted():
            return "accepted"
        case Duplicate():
            return "duplicate"
        case Conflict():
            return "conflict"
        case Rejected():
            return "rejected"


def _places(outcome: Accepted | Duplicate) -> tuple[int, int, int, int]:
    return outcome.first_version, outcome.last_version, outcome.first_position, outcome.last_position


def _remember(kept: OrderedDict[_Key, Outcome], key: _Key, outcome: Outcome) -> None:
    kept[key] = outcome
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)


class Versions:
    """Streams whose events come in order, without a hole."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def seen(self, stream: str, version: int) -> str | None:
        """The next event of a stream that is read from its beginning."""
        before = self._versions.get(stream, 0)
        self._versions[stream] = version
        if version != before + 1:
            return f"{stream}: after version {before} comes version {version}"
        return None


class Chain:
    """A log as the store has it, read on and on: positions without a hole, hashes that follow from each other."""

    def __init__(self, log: Log, position: int, chain: bytes) -> None:
        self.log = log
        self.position = position
        self._chain = chain

    def seen(self, events: Sequence[RecordedEvent]) -> Iterator[str]:
        """The next events; yields what is wrong."""
        for event in events:
            if event.position != self.position + 1:
                yield f"{self.log}: after position {self.position} comes position {event.position}"
            if event.hash != event_hash(self._chain, payload_digest(event.data, event.metadata), event):
                yield f"{self.log}: the hash at position {event.position} does not follow from the one before"
            self.position, self._chain = event.position, event.hash


def hole_in(stream: str, after: int, events: Sequence[RecordedEvent]) -> str | None:
    """What is wrong with a page of a stream that was read after a version."""
    versions = [event.version for event in events]
    if versions != list(range(after + 1, after + 1 + len(events))):
        return f"{stream}: read after version {after}, it has versions {versions}"
    return None


class Usage:
    """Samples of what a process takes, by the second: memory in MB, which may not go above `limit_mb`, and processors.

    `processors`: in percent of one, since the sample before.
    """

    def __init__(self, limit_mb: float) -> None:
        self.memory_mb: list[tuple[float, float]] = []
        self.processors: list[tuple[float, float]] = []
        self._used_s: tuple[float, float] | None = None
        self._limit_mb = limit_mb
        self._is_above = False

    def seen(self, at_s: float, used_mb: float, cpu_s: float = 0.0) -> str | None:
        """A sample, with the processor time used so far; the first of each time above the limit is a violation."""
        self.memory_mb.append((at_s, used_mb))
        if self._used_s is not None and at_s > self._used_s[0]:
            self.processors.append((at_s, 100 * (cpu_s - self._used_s[1]) / (at_s - self._used_s[0])))
        self._used_s = at_s, cpu_s
        was_above, self._is_above = self._is_above, used_mb > self._limit_mb
        if self._is_above and not was_above:
            return f"memory is at {used_mb:,.0f} MB, above the limit of {self._limit_mb:,.0f} MB"
        return None


class Checks:
    """What was checked, by what it is about: how often it was right, how often not, and the first that were not."""

    def __init__(self, shown: int = 50) -> None:
        self.tallies: dict[Check, Tally] = {check: Tally() for check in Check}
        self.first: list[str] = []
        self._shown = shown

    @property
    def violations(self) -> int:
        """Of all kinds."""
        return sum(tally.failed for tally in self.tallies.values())

    def passed(self, check: Check, times: int = 1) -> None:
        """So many were right."""
        self.tallies[check].passed += times

    def failed(self, check: Check, text: str) -> None:
        """One was not."""
        self.tallies[check].failed += 1
        if len(self.first) < self._shown:
            self.first.append(text)

    def judge(self, check: Check, wrong: str | None) -> None:
        """One, with what is wrong about it, if anything."""
        if wrong is None:
            self.passed(check)
        else:
            self.failed(check, wrong)
