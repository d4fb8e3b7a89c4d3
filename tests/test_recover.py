"""The choices of an operator: where a log goes on, and nothing of what is stored."""

from processor.chain import genesis
from processor.fit import Found, check_fit
from processor.messages import Checkpoint
from processor.recover import Choice, skip_deleted, start_anew
from tests.records import LOG

STORE = Checkpoint(
    epoch=3,
    next_offset=10,
    next_position=8,
    streams=2,
    chain=genesis(LOG),
    log_time_ms=5,
    last_offset=9,
    last_digest=b"x" * 16,
    acknowledged_offset=10,
    acknowledged_position=7,
)


def after(choice: Choice) -> Checkpoint:
    """Where the log goes on; what is stored must be as it was."""
    assert choice.plan is not None
    plan = choice.plan
    assert plan.before == STORE
    assert (plan.heads, plan.events, plan.refused, plan.answers) == ({}, [], [], [])
    kept = ("epoch", "next_position", "streams", "chain", "log_time_ms", "acknowledged_position")
    assert [getattr(plan.after, name) for name in kept] == [getattr(STORE, name) for name in kept]
    return plan.after


def test_a_log_that_was_made_anew_is_decided_from_its_beginning_under_a_new_incarnation() -> None:
    found = Found(begin=0, end=4, acknowledged=0, feed_position=7)
    moved = after(start_anew(LOG, STORE, found))
    assert (moved.next_offset, moved.acknowledged_offset, moved.incarnation) == (0, 0, 1)
    assert (moved.last_offset, moved.last_digest) == (-1, b"")
    check_fit(LOG, moved, found, rebuilding=False)


def test_commands_that_were_deleted_undecided_are_given_up() -> None:
    found = Found(begin=14, end=20, acknowledged=10, feed_position=7)
    choice = skip_deleted(LOG, STORE, found)
    moved = after(choice)
    assert (moved.next_offset, moved.incarnation) == (14, 0)
    assert "4 undecided commands from offset 10" in choice.text
    check_fit(LOG, moved, found, rebuilding=False)


def test_where_none_was_deleted_there_is_nothing_to_give_up() -> None:
    assert skip_deleted(LOG, STORE, Found(begin=10, end=20, acknowledged=10, feed_position=7)).plan is None
