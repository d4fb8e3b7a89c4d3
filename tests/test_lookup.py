"""What is looked up, and what is presumed: the outcome is the same as if everything were known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.codec import decode
from processor.decide import Unread, decide
from processor.lookup import doubtful, presumed_new, streams_of, wanted
from processor.messages import Head, Limits, Plan, View, Wanted
from tests.records import LOG, RULES, STREAM, Past, SomeRecord, command, event, event_id, record

OTHER = "order-8"  # of the same partition


def entries_of(*commands: dict[str, Any]) -> list[Any]:
    records = [record(offset, value) for offset, value in enumerate(commands)]
    return [(it, decode(it.key, it.value, Limits())) for it in records]


def presumed(version: int, *expected: int | str, events: int = 1) -> list[int]:
    """Which of some commands with these expectations are presumed to be new, on a stream at a version."""
    heads = {STREAM: Head(1, version)} if version else {}
    commands = [command(*[event()] * events, expected_version=it) for it in expected]
    return sorted(presumed_new(heads, entries_of(*commands)))


def test_commands_that_go_on_from_the_head_and_from_each_other_are_presumed_to_be_new() -> None:
    assert presumed(3, 3, 4, 5) == [0, 1, 2]
    assert presumed(3, 3, 5, 7, events=2) == [0, 1, 2]
    assert presumed(0, 0, 1, 2) == [0, 1, 2]


def test_a_command_to_a_stream_that_is_not_there_is_new() -> None:
    assert presumed(0, "any", 1) == [0, 1]
    assert presumed(0, "no_stream", "no_stream") == [0]
    assert presumed(0, "stream_exists") == []


def test_a_command_that_expects_another_version_is_not_presumed_to_be_new_and_leaves_the_stream_as_it_is() -> None:
    assert presumed(3, 2, 3, 9, 4) == [1, 3]


def test_behind_a_command_that_may_or_may_not_be_accepted_nothing_is_presumed() -> None:
    assert presumed(3, 3, "any", 5, 4) == [0]
    assert presumed(3, "stream_exists", 3) == []


def test_streams_are_told_apart() -> None:
    entries = entries_of(
        command(expected_version="any"), command(stream=OTHER, expected_version=7), command(expected_version=2)
    )
    assert presumed_new({STREAM: Head(1, 2), OTHER: Head(2, 7)}, entries) == {1}
    assert streams_of(entries) == [STREAM, OTHER]


def test_what_is_presumed_is_not_looked_up_nor_are_command_ids_that_nothing_was_refused_by() -> None:
    entries = entries_of(
        command(event(1), command_id="a"), command(event(2), command_id="b"), command(event(3)), {"stream": STREAM}
    )
    everything = wanted(LOG, 0, entries, [7])
    assert everything == Wanted({STREAM: [event_id(1), event_id(2), event_id(3)]}, [(STREAM, "a"), (STREAM, "b")], [7])
    assert doubtful(LOG, 0, entries, {0, 2}, {"a"}) == Wanted({STREAM: [event_id(2)]}, [(STREAM, "a")], [])
    assert doubtful(LOG, 0, entries, set(), None) == wanted(LOG, 0, entries, [])


# --- the same outcome, or a reason to look again

_expected = st.sampled_from([None, None, 0, 1, 1, 2, 2, 3, 4, "any", "no_stream", "stream_exists"])


@st.composite
def _command(draw: st.DrawFn) -> dict[str, Any]:
    # Few ids and streams, so that commands meet: sent again as they were, with another expectation, another command id.
    numbers = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
    fields: dict[str, Any] = {"stream": draw(st.sampled_from([STREAM, STREAM, OTHER]))}
    if (expected := draw(_expected)) is not None:
        fields["expected_version"] = expected
    if draw(st.booleans()):
        fields["command_id"] = f"c-{draw(st.integers(0, 4))}"
    return command(*(event(number) for number in numbers), **fields)


def restricted(past: Past, asked: Wanted, presumptions: set[int]) -> View:
    """A view as a store would load it for what is asked."""
    everything = past.view()
    keys = {(name, event_id) for name, event_ids in asked.event_ids.items() for event_id in event_ids}
    return View(
        heads=dict(past.heads),
        known={key: known for key, known in everything.known.items() if key in keys},
        refused={key: refused for key, refused in everything.refused.items() if key in asked.commands},
        refused_at={},
        presumed_new=presumptions,
        asked={event_id for _, event_id in keys},
    )


def by_presumption(past: Past, records: list[SomeRecord]) -> Plan | None:
    """The plan, or None where the decision or the index on event ids finds a presumption wrong."""
    entries = [(it, decode(it.key, it.value, past.limits)) for it in records]
    presumptions = presumed_new(past.heads, entries)
    remembered = {it.command_id for it in past.refused if it.command_id}
    view = restricted(past, doubtful(LOG, 0, entries, presumptions, remembered), presumptions)
    known = past.view().known.keys()
    try:
        plan = decide(RULES, LOG, past.checkpoint, view, entries, records[-1].offset + 1)
    except Unread:
        return None
    written = {(it.stream, it.event_id) for it in plan.events}
    return plan if len(written) == len(plan.events) and written.isdisjoint(known) else None


@given(st.lists(_command(), max_size=12), st.lists(_command(), min_size=1, max_size=8))
def test_a_plan_by_presumption_is_the_plan_by_knowledge(
    before: list[dict[str, Any]], then: list[dict[str, Any]]
) -> None:
    past = Past()
    for offset, value in enumerate(before):
        past.decide(record(offset, value))
    records = [record(len(before) + offset, value) for offset, value in enumerate(then)]
    presumed_plan = by_presumption(past, records)
    if presumed_plan is not None:
        assert presumed_plan == past.plan(*records)


@pytest.mark.parametrize("count", [1, 5])
def test_in_the_common_case_nothing_but_heads_is_looked_up(count: int) -> None:
    past = Past()
    past.decide(record(0, command(event(0), command_id="c-0")))
    commands = [command(event(n), expected_version=n, command_id=f"c-{n}") for n in range(1, count + 1)]
    entries = entries_of(*commands)
    assert doubtful(LOG, 0, entries, presumed_new(past.heads, entries), set()) == Wanted({}, [], [])
    plan = by_presumption(past, [record(n, value) for n, value in enumerate(commands, 1)])
    assert plan is not None
    assert len(plan.events) == count
