"""What must hold at each step, and in the end. Looks at each write to the store and to a topic as it happens."""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from processor.chain import event_hash, genesis, payload_digest
from processor.codec import decode, decode_outcome
from processor.decide import decide
from processor.kafka.outgoing import event_record
from processor.messages import (
    Accepted,
    Checkpoint,
    Command,
    Duplicate,
    Limits,
    Log,
    Outcome,
    Plan,
    RecordedEvent,
    Rejected,
    Rules,
    View,
)
from tests.records import SomeRecord
from tests.simulation.model import Model, Verdict


class Violation(Exception):
    """A promise that was not kept."""


class LogHistory:
    """What has happened to a log so far.

    `events` and `decided` are of all that was ever committed; after a restored backup, the store holds only the first
    `_stored` of them, until the rest is decided again.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.commands: dict[int, SomeRecord] = {}
        self.events: list[RecordedEvent] = []
        self.versions: dict[str, int] = {}
        self.replies: dict[int, bytes] = {}
        self.malformed: set[int] = set()
        self.letters: set[int] = set()
        self.checkpoint = Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(log))
        self.feed_position = 0
        self.decided = 0
        self._stored = 0
        self._won: dict[tuple[str, int], int] = {}

    def demand(self, holds: object, what: str) -> None:
        """Raise a `Violation` where something does not hold."""
        if not holds:
            raise Violation(f"{self.log}: {what}")

    @property
    def answered(self) -> int:
        """The first offset that has no reply."""
        return next((offset for offset in self.commands if offset not in self.replies), self.decided)

    @property
    def is_settled(self) -> bool:
        """Whether every command has a reply, every event is on the feed, and what is no command a dead letter."""
        answered = len(self.replies) == len(self.commands) and self.letters == self.malformed
        is_whole = self.feed_position == self._stored == len(self.events)
        return answered and is_whole and self.checkpoint.next_offset == self.decided

    def on_commit(self, plan: Plan, stored: Checkpoint) -> None:
        before = self.checkpoint
        self.demand(plan.before.epoch == before.epoch, "an owner that is not the last one has written")
        self.demand(
            plan.before.next_offset == before.next_offset < plan.after.next_offset,
            f"offsets {plan.before.next_offset} to {plan.after.next_offset} were decided, {before.next_offset} is next",
        )
        due = [offset for offset in self.commands if before.next_offset <= offset < plan.after.next_offset]
        self.demand([record.offset for record, _ in plan.answers] == due, "not each command has one decision, in order")
        for event in plan.events:
            self._on_event(event)
        for record, outcome in plan.answers:
            self._on_outcome(record.offset, outcome)
        self.checkpoint = replace(
            before,
            next_offset=plan.after.next_offset,
            next_position=self._stored + 1,
            streams=len({event.stream for event in self.events[: self._stored]}),
            chain=self.events[self._stored - 1].hash if self._stored else before.chain,
        )
        self.decided = max(self.decided, plan.after.next_offset)
        self.demand(
            _place(stored) == _place(self.checkpoint), f"the checkpoint is {stored}, should be {self.checkpoint}"
        )

    def on_restore(self, restored: Checkpoint) -> None:
        """The store is an older copy of itself from now on."""
        self.checkpoint = restored
        self._stored = restored.next_position - 1

    def _on_event(self, event: RecordedEvent) -> None:
        self._stored += 1
        if event.position == self._stored <= len(self.events):
            self.demand(
                event == self.events[event.position - 1], f"decided again, position {event.position} is {event}"
            )
            return
        previous = self.events[-1].hash if self.events else genesis(self.log)
        self.demand(event.position == len(self.events) + 1, f"position {event.position} after {len(self.events)}")
        version = self.versions.get(event.stream, 0)
        self.demand(
            event.version == version + 1, f"{event.stream}: version {event.version} after {version}, {event.offset}"
        )
        digest = payload_digest(event.data, event.metadata)
        self.demand(event_hash(previous, digest, event) == event.hash, f"the hash at position {event.position}")
        self.events.append(event)
        self.versions[event.stream] = event.version

    def _on_outcome(self, offset: int, outcome: Outcome) -> None:
        if isinstance(outcome, Rejected) and outcome.reason == "malformed":
            self.malformed.add(offset)
        if not isinstance(outcome, Accepted):
            return
        of_outcome = self.events[outcome.first_position - 1 : outcome.last_position]
        self.demand(
            [event.offset for event in of_outcome] == [offset] * len(outcome.event_ids),
            f"offset {offset} was accepted, its events are {of_outcome}",
        )
        record = self.commands[offset]
        command = decode(record.key, record.value, Limits())
        assert isinstance(command, Command)
        if isinstance(command.expected_version, int):
            place = command.stream, command.expected_version
            self.demand(self._won.setdefault(place, offset) == offset, f"two commands won {place}")
            self.demand(outcome.first_version == command.expected_version + 1, f"{outcome} against {place}")

    def on_feed(self, record: SomeRecord) -> None:
        headers = dict(record.headers)
        position = int(headers["ce_position"])
        self.demand(position <= self.feed_position + 1, f"position {position} on the feed after {self.feed_position}")
        self.demand(position <= len(self.events), f"position {position} is on the feed, and not in the store")
        key, value, expected, timestamp = event_record(self.log, self.events[position - 1])
        self.demand(
            (record.key, record.value, record.headers, record.timestamp) == (key, value, expected, timestamp),
            f"position {position} on the feed is {record}, not what is in the store",
        )
        self.feed_position = max(self.feed_position, position)

    def on_reply(self, record: SomeRecord, *, standing: bool) -> None:
        outcome = decode_outcome(record.value or b"")
        offset, value = outcome.offset, record.value or b""
        self.demand(offset < self.decided, f"offset {offset} was answered and is not decided: {outcome}")
        self.demand(record.key == self.commands[offset].key, f"the reply to {offset} has the key {record.key!r}")
        if isinstance(outcome, Accepted | Duplicate):
            there = self.events[outcome.first_position - 1 : outcome.last_position]
            ids = [event.event_id for event in there if event.stream == outcome.stream]
            self.demand(ids == outcome.event_ids, f"offset {offset} was answered with what is not in the store")
        before = self.replies.get(offset, value)
        self.demand(before == value, f"offset {offset} was answered {before!r}, and then {value!r}")
        if standing:
            self.replies[offset] = value

    def on_letter(self, letter: SomeRecord) -> None:
        offset = int(dict(letter.headers)["tidemark_offset"])
        record = self.commands[offset]
        self.demand(offset in self.malformed, f"offset {offset} has a dead letter and was not decided to be malformed")
        self.demand((letter.key, letter.value) == (record.key, record.value), f"the dead letter of offset {offset}")
        self.letters.add(offset)

    def on_acknowledge(self, offset: int, position: int, where: str) -> None:
        self.demand(
            offset <= self.answered, f"offset {offset} is acknowledged {where}, {self.answered} is not answered"
        )
        self.demand(position <= self.feed_position, f"position {position} is acknowledged {where}, and not on the feed")

    def check_end(self, rules: Rules, limits: Limits, stored: Sequence[RecordedEvent], found: Checkpoint) -> None:
        """That the store is what the log leads to: decided anew from its beginning, and by the model."""
        self.demand(list(stored) == self.events, "the store does not hold what was committed")
        entries = [(record, decode(record.key, record.value, limits)) for record in self.commands.values()]
        start = Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(self.log))
        afresh = decide(rules, self.log, start, View.empty(), entries, found.next_offset)
        self.demand(afresh.events == self.events, "the events are not those that the log leads to")
        kept = replace(found, epoch=0, acknowledged_offset=0, acknowledged_position=0)
        self.demand(kept == afresh.after, f"the checkpoint {kept} is not what the log leads to, {afresh.after}")
        model = Model(self.log, rules.partitions, limits.events, rules.retention_ms)
        for record, (_, outcome) in zip(self.commands.values(), afresh.answers, strict=True):
            answer = decode_outcome(self.replies[record.offset])
            plain = replace(answer, reply_refused=False)
            self.demand(plain == outcome, f"offset {record.offset} was answered {plain}, the log leads to {outcome}")
            verdict, expected = _verdict(outcome), model.decide(record)
            self.demand(verdict == expected, f"offset {record.offset}: {verdict}, {expected} by the model")
        there = {
            stream: [(entry.event_id, entry.position) for entry in entries] for stream, entries in model.streams.items()
        }
        for event in self.events:
            expected_event = there[event.stream][event.version - 1]
            self.demand((event.event_id, event.position) == expected_event, f"{event}, {expected_event} by the model")
        self.demand(len(self.events) == sum(map(len, there.values())), "the model has other events")


class Checker:
    """The histories of all logs; what is written anywhere is told to it."""

    def __init__(self, logs: Sequence[Log], note: Callable[..., None]) -> None:
        self._note = note
        self.histories = {log: LogHistory(log) for log in logs}
        self._by_partition = {log.partition: history for log, history in self.histories.items()}

    def on_claim(self, claimed: Mapping[Log, Checkpoint]) -> None:
        for log, checkpoint in claimed.items():
            self._note(log, "claimed, epoch", checkpoint.epoch)
            history = self.histories[log]
            history.demand(checkpoint.epoch == history.checkpoint.epoch + 1, "a claim does not raise the epoch")
            history.checkpoint = replace(history.checkpoint, epoch=checkpoint.epoch)

    def on_restore(self, restored: Mapping[Log, Checkpoint]) -> None:
        for log, history in self.histories.items():
            history.on_restore(restored.get(log, LogHistory(log).checkpoint))
            self._note(log, "restored:", history.checkpoint.next_offset, "of", history.decided)

    def on_commit(self, plan: Plan, stored: Checkpoint) -> None:
        self._note(
            plan.log, "committed up to offset", plan.after.next_offset, "position", plan.after.next_position - 1, *(
                (record.offset, _verdict(outcome)) for record, outcome in plan.answers
            ),
        )  # fmt: skip
        self.histories[plan.log].on_commit(plan, stored)

    def on_acknowledge(self, log: Log, stored: Checkpoint) -> None:
        self._note(log, "acknowledged:", stored.acknowledged_offset, stored.acknowledged_position)
        self.histories[log].on_acknowledge(stored.acknowledged_offset, stored.acknowledged_position, "in the store")

    def on_group_commit(self, offsets: Mapping[Log, int]) -> None:
        for log, offset in offsets.items():
            self._note(log, "committed to the group:", offset)
            self.histories[log].on_acknowledge(offset, 0, "in the group")

    def on_append(self, topic: str, partition: int, records: Sequence[SomeRecord]) -> None:
        history = self._by_partition[partition]
        kind = topic.rpartition(".")[2]
        for record in records:
            self._note(f"{topic}/{partition}@{record.offset}", record.key, _shown(kind, record))
            match kind:
                case "commands":
                    history.commands[record.offset] = record
                case "events":
                    history.on_feed(record)
                case "results" | "conflicts":
                    history.on_reply(record, standing=True)
                case "dead-letters":
                    history.on_letter(record)
                case _:
                    of_log = self._by_partition[decode_outcome(record.value or b"").partition]
                    of_log.on_reply(record, standing=False)

    def on_crash(self, error: BaseException) -> None:
        """A pipeline that gives up has not kept its promises either."""
        raise Violation(f"the pipeline crashed: {error!r}") from error


def _shown(kind: str, record: SomeRecord) -> object:
    return dict(record.headers).get("ce_position") if kind == "events" else record.value


def _place(checkpoint: Checkpoint) -> tuple[int, int, int, int, bytes]:
    return (
        checkpoint.epoch,
        checkpoint.next_offset,
        checkpoint.next_position,
        checkpoint.streams,
        checkpoint.chain,
    )


def _verdict(outcome: Outcome) -> Verdict:
    if isinstance(outcome, Accepted | Duplicate):
        versions = outcome.first_version, outcome.last_version
        positions = outcome.first_position, outcome.last_position
        return Verdict("accepted" if isinstance(outcome, Accepted) else "duplicate", "", versions, positions)
    kind = "conflict" if outcome.reason == "wrong_expected_version" else "rejected"
    return Verdict(kind, outcome.reason, replayed=outcome.replayed)
