"""The checker: a sound history passes, and for each rule one that breaks it is found out.

The sound one is what the decision table makes of a few commands, kept in memory; each test spoils one thing in it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from processor.decide import event_ids
from processor.messages import Accepted, Command, Conflict, NewEvent, Outcome, RecordedEvent
from tests.faults.checker import RULES, Asked, Evidence, Fed, check
from tests.faults.history import Operation, Recorder, read_history
from tests.records import LOG, STREAM, Past, SomeRecord, event_id

PARTITION = LOG.partition
SECOND_NS = 1_000_000_000


def a_command(number: int, expected_version: Any = "any", events: int = 1) -> Command:
    """Its events are numbered from ten times its own number."""
    new = [
        NewEvent(type="Counted", event_id=event_id(10 * number + index), data=msgspec.Raw(b"%d" % index))
        for index in range(events)
    ]
    return Command(stream=STREAM, events=new, expected_version=expected_version, command_id=f"c-{number}")


def the_log() -> list[Command]:
    """A race that is won and lost, one of several events, and the winner once more."""
    return [a_command(0, 0), a_command(1, 0), a_command(2, 1, events=2), a_command(0, 0), a_command(3), a_command(1, 0)]


def sound() -> Evidence:
    """All evidence of that log: each command sent when the one before it was answered."""
    commands, past = the_log(), Past()
    records = [
        SomeRecord(offset, msgspec.json.encode(command), STREAM.encode(), 1_000, ())
        for offset, command in enumerate(commands)
    ]
    replies = past.decide(*records)
    checkpoint = replace(past.checkpoint, acknowledged_offset=len(commands), acknowledged_position=len(past.events))
    return Evidence(
        operations=operations(commands, replies),
        commands={(PARTITION, offset): asked(command, records[offset]) for offset, command in enumerate(commands)},
        events={PARTITION: past.events},
        checkpoints={PARTITION: checkpoint},
        replies=replies,
        feed={PARTITION: [fed(event) for event in (*past.events, *past.events[-2:])]},
        group={PARTITION: len(commands)},
        ends={PARTITION: len(commands)},
        damage=[],
        rebuilt={PARTITION: checkpoint.chain},
    )


def operations(commands: list[Command], replies: list[Outcome]) -> list[Operation]:
    done: dict[object, Operation] = {}
    for second, (command, reply) in enumerate(zip(commands, replies, strict=True)):
        began_ns = second * SECOND_NS
        operation = done.setdefault(command.command_id, Operation(command, began_ns, began_ns + 1, []))
        operation.outcomes.append(reply)
    return list(done.values())


def asked(command: Command, record: SomeRecord) -> Asked:
    ids = tuple(event_ids(LOG, 0, record, command))
    return Asked(command.stream, str(command.command_id), command.expected_version, ids)


def fed(event: RecordedEvent) -> Fed:
    return Fed(event.position, event.stream, event.version, event.event_id, event.data)


def broken(evidence: Evidence) -> set[str]:
    """The names of the rules that find something."""
    return {breach.partition(":")[0] for breach in check(evidence)}


def test_a_sound_history_passes() -> None:
    evidence = sound()
    assert [type(reply).__name__ for reply in evidence.replies] == [
        "Accepted", "Conflict", "Accepted", "Duplicate", "Accepted", "Conflict"
    ]  # fmt: skip
    assert check(evidence) == []


def test_every_rule_is_broken_by_some_case() -> None:
    assert {rule for rule, _ in CASES} == set(RULES)


# --- one thing spoiled at a time

Spoil = Callable[[Evidence], object]
CASES: list[tuple[str, Spoil]] = []


def breaks(rule: str) -> Callable[[Spoil], Spoil]:
    def register(spoil: Spoil) -> Spoil:
        CASES.append((rule, spoil))
        return spoil

    return register


@pytest.fixture
def evidence() -> Evidence:
    return sound()


def change_event(evidence: Evidence, index: int, **fields: Any) -> None:
    events = evidence.events[PARTITION]
    events[index] = replace(events[index], **fields)


def change_reply(evidence: Evidence, index: int, **fields: Any) -> None:
    evidence.replies[index] = replace(evidence.replies[index], **fields)


def change_checkpoint(evidence: Evidence, **fields: Any) -> None:
    evidence.checkpoints[PARTITION] = replace(evidence.checkpoints[PARTITION], **fields)


@breaks("gapless")
def a_position_is_missing(evidence: Evidence) -> None:
    del evidence.events[PARTITION][1]


@breaks("gapless")
def a_position_is_there_twice(evidence: Evidence) -> None:
    change_event(evidence, 2, position=2)


@breaks("gapless")
def a_version_is_skipped(evidence: Evidence) -> None:
    change_event(evidence, 3, version=6)


@breaks("gapless")
def the_watermark_is_ahead(evidence: Evidence) -> None:
    change_checkpoint(evidence, next_position=6)


@breaks("one_winner")
def the_loser_was_told_that_it_had_won(evidence: Evidence) -> None:
    winner = evidence.replies[0]
    evidence.replies[1] = replace(winner, offset=1, command_id="c-1")


@breaks("one_winner")
def a_command_won_at_another_version_than_it_expected(evidence: Evidence) -> None:
    place = PARTITION, 2
    evidence.commands[place] = evidence.commands[place]._replace(expected_version=0)


@breaks("one_effect")
def a_command_that_was_sent_again_was_appended_again(evidence: Evidence) -> None:
    first = evidence.events[PARTITION][0]
    evidence.events[PARTITION].append(replace(first, position=5, version=5, offset=3))


@breaks("one_effect")
def half_a_command_was_appended(evidence: Evidence) -> None:
    del evidence.events[PARTITION][2]


@breaks("one_effect")
def the_events_of_a_command_are_in_another_order(evidence: Evidence) -> None:
    second, third = evidence.events[PARTITION][1:3]
    change_event(evidence, 1, event_id=third.event_id)
    change_event(evidence, 2, event_id=second.event_id)


@breaks("one_verdict")
def two_replies_to_one_offset_differ(evidence: Evidence) -> None:
    evidence.replies.append(replace(evidence.replies[1], offset=0))


@breaks("one_verdict")
def a_command_has_no_reply(evidence: Evidence) -> None:
    del evidence.replies[3]


@breaks("one_verdict")
def a_command_that_was_sent_again_was_judged_anew(evidence: Evidence) -> None:
    change_reply(evidence, 5, actual_version=4)


@breaks("one_verdict")
def a_client_was_told_what_no_reply_says(evidence: Evidence) -> None:
    told = evidence.operations[0].outcomes
    told[0] = replace(told[0], first_version=2, last_version=2)


@breaks("accepted_is_stored")
def an_event_of_a_refused_command_is_in_the_store(evidence: Evidence) -> None:
    change_event(evidence, 3, offset=1)


@breaks("accepted_is_stored")
def an_accepted_command_left_nothing(evidence: Evidence) -> None:
    evidence.replies.append(accepted_elsewhere(evidence))


def accepted_elsewhere(evidence: Evidence) -> Accepted:
    reply = evidence.replies[4]
    assert isinstance(reply, Accepted)
    return replace(reply, offset=6, first_version=5, last_version=5, first_position=5, last_position=5)


@breaks("accepted_is_stored")
def a_reply_says_another_version_than_the_store(evidence: Evidence) -> None:
    change_reply(evidence, 4, first_version=3, last_version=3)


@breaks("accepted_is_stored")
def an_event_is_there_that_the_log_never_asked_for(evidence: Evidence) -> None:
    place = PARTITION, 4
    evidence.commands[place] = evidence.commands[place]._replace(event_ids=(event_id(99),))


@breaks("nothing_made_up")
def the_feed_has_an_event_that_the_store_has_not(evidence: Evidence) -> None:
    evidence.feed[PARTITION].append(evidence.feed[PARTITION][-1]._replace(position=5, version=5))


@breaks("nothing_made_up")
def the_feed_has_another_event_at_a_position(evidence: Evidence) -> None:
    evidence.feed[PARTITION][1] = evidence.feed[PARTITION][1]._replace(event_id=event_id(99))


@breaks("nothing_made_up")
def the_feed_has_other_data(evidence: Evidence) -> None:
    evidence.feed[PARTITION][1] = evidence.feed[PARTITION][1]._replace(data=b"null")


@breaks("nothing_made_up")
def a_duplicate_of_something_that_is_not_there(evidence: Evidence) -> None:
    change_reply(evidence, 3, event_ids=[event_id(99)])


@breaks("contents_are_kept")
def an_acknowledged_event_has_other_data_now(evidence: Evidence) -> None:
    change_event(evidence, 0, data=b"null")


@breaks("contents_are_kept")
def an_acknowledged_event_is_gone(evidence: Evidence) -> None:
    del evidence.events[PARTITION][3]


@breaks("feed_in_order")
def the_feed_leaves_one_out(evidence: Evidence) -> None:
    del evidence.feed[PARTITION][1]


@breaks("feed_in_order")
def the_feed_is_behind(evidence: Evidence) -> None:
    evidence.feed[PARTITION] = evidence.feed[PARTITION][:3]


@breaks("feed_in_order")
def the_feed_is_in_another_order(evidence: Evidence) -> None:
    records = evidence.feed[PARTITION]
    records[1], records[2] = records[2], records[1]


@breaks("offsets_within")
def kafka_says_more_was_done_than_the_store(evidence: Evidence) -> None:
    evidence.group[PARTITION] = 7


@breaks("offsets_within")
def more_was_acknowledged_than_is_decided(evidence: Evidence) -> None:
    change_checkpoint(evidence, acknowledged_offset=7)


@breaks("offsets_within")
def more_was_acknowledged_than_is_written(evidence: Evidence) -> None:
    change_checkpoint(evidence, acknowledged_position=5)


@breaks("chains_hold")
def verify_finds_something(evidence: Evidence) -> None:
    evidence.damage.append("position 3: the hash is not that of the event and the one before it")


@breaks("chains_hold")
def the_log_leads_to_something_else(evidence: Evidence) -> None:
    evidence.rebuilt[PARTITION] = bytes(32)


@breaks("no_lag")
def a_command_is_not_decided(evidence: Evidence) -> None:
    evidence.ends[PARTITION] = 7


@breaks("no_lag")
def a_command_is_not_acknowledged(evidence: Evidence) -> None:
    evidence.group[PARTITION] = 5


@breaks("linearisable")
def an_append_went_before_one_that_was_acknowledged_earlier(evidence: Evidence) -> None:
    later = evidence.operations[2]
    evidence.operations[2] = replace(later, invoked_ns=0, ended_ns=1)
    evidence.operations[0] = replace(evidence.operations[0], invoked_ns=10, ended_ns=11)


@breaks("linearisable")
def a_conflict_did_not_see_what_was_acknowledged(evidence: Evidence) -> None:
    loser = evidence.operations[1]
    evidence.operations[1] = replace(loser, invoked_ns=9 * SECOND_NS, ended_ns=10 * SECOND_NS)


@breaks("linearisable")
def a_conflict_saw_what_was_only_asked_for_later(evidence: Evidence) -> None:
    loser = evidence.operations[1].outcomes[0]
    assert isinstance(loser, Conflict)
    evidence.operations[1].outcomes[0] = replace(loser, actual_version=4)


@breaks("linearisable")
def an_acknowledged_append_can_not_be_read(evidence: Evidence) -> None:
    del evidence.events[PARTITION][3]


@pytest.mark.parametrize(("rule", "spoil"), CASES, ids=[spoil.__name__ for _, spoil in CASES])
def test_what_breaks_a_rule_is_found_out(evidence: Evidence, rule: str, spoil: Spoil) -> None:
    spoil(evidence)
    assert rule in broken(evidence)


def test_a_rule_can_be_set_aside(evidence: Evidence) -> None:
    evidence.rebuilt[PARTITION] = bytes(32)
    assert check(evidence, without=["chains_hold"]) == []


# --- the history


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path)
    answered, open_ended = a_command(0), a_command(1)
    [reply] = Past().decide(SomeRecord(0, msgspec.json.encode(answered), STREAM.encode(), 1_000, ()))
    for command in (answered, open_ended, answered):
        recorder.invoke(command)
    recorder.not_told(open_ended)
    recorder.told(answered, reply)
    recorder.told(answered, reply)
    recorder.close()

    assert all(json.loads(line) for line in path.read_text().splitlines())
    first, second = read_history(path)
    assert (first.answer, second.answer) == ("ok", "unknown")
    assert (first.outcomes, second.outcomes) == ([reply, reply], [])
    assert first.ended_ns is not None and first.invoked_ns < first.ended_ns
    assert second.ended_ns is None
    assert msgspec.json.encode(first.command) == msgspec.json.encode(answered)
