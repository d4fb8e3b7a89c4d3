from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.balance import (
    Advice,
    Group,
    Loads,
    LogRow,
    Look,
    Member,
    advise,
    busiest_share,
    log_rows,
    member_rows,
    spread,
)
from processor.chain import genesis
from processor.messages import Checkpoint, Log

LOGS = [Log("default", partition) for partition in range(4)]


def checkpoint(log: Log, decided: int) -> Checkpoint:
    return Checkpoint(epoch=3, next_offset=decided, next_position=decided + 1, streams=1, chain=genesis(log))


def look(at_s: float, decided: Mapping[Log, int], ends: Mapping[Log, int]) -> Look:
    return Look(at_s, {log: checkpoint(log, offset) for log, offset in decided.items()}, ends)


def group(*shares: list[Log], state: str = "stable") -> Group:
    return Group(state, [member(f"w{number}", logs) for number, logs in enumerate(shares)])


def member(name: str, logs: list[Log], *tenants: str) -> Member:
    return Member(name, None, "127.0.0.1", logs, frozenset(tenants or ["default"]))


def rows(of: Group, sent: Mapping[Log, int], decided: Mapping[Log, int] | None = None) -> list[LogRow]:
    """A second in which so many commands came, and so many (all, where left out) were decided."""
    before = look(1.0, dict.fromkeys(sent, 100), dict.fromkeys(sent, 100))
    done = sent if decided is None else decided
    after = look(
        2.0, {log: 100 + count for log, count in done.items()}, {log: 100 + count for log, count in sent.items()}
    )
    return log_rows(of, before, after)


def advice(of: Group, sent: Mapping[Log, int], decided: Mapping[Log, int] | None = None) -> list[Advice]:
    return advise(of, rows(of, sent, decided))


def texts(found: list[Advice]) -> str:
    return "\n".join(one.text for one in found)


EVEN = dict.fromkeys(LOGS, 1_000)
TWO = group(LOGS[::2], LOGS[1::2])


def test_a_log_between_two_looks() -> None:
    [log] = LOGS[:1]
    before = Look(10.0, {log: checkpoint(log, 40)}, {log: 50})
    now = replace(checkpoint(log, 70), acknowledged_offset=66, acknowledged_position=69)
    after = Look(12.0, {log: now}, {log: 90})
    [row] = log_rows(group([log]), before, after)
    assert (row.worker, row.epoch, row.next_offset, row.end_offset) == ("w0", 3, 70, 90)
    assert (row.lag, row.unanswered, row.unpublished) == (20, 4, 1)
    assert (row.sent_s, row.decided_s) == (20.0, 15.0)
    assert not row.stands


def test_a_log_that_no_one_has_touched() -> None:
    [log] = LOGS[:1]
    [row] = log_rows(group(), Look(1.0, {}, {log: 0}), Look(2.0, {}, {log: 7}))
    assert (row.worker, row.lag, row.unanswered, row.unpublished) == (None, 7, 0, 0)
    assert not row.stands, "the commands came between the looks"


def test_workers_add_up_what_they_own() -> None:
    first, second = member_rows(TWO, rows(TWO, {**EVEN, LOGS[0]: 3_000}, {**EVEN, LOGS[0]: 2_000}))
    assert (first.worker, first.partitions, first.lag, first.decided_s) == ("w0", 2, 1_000, 3_000)
    assert (first.share, second.share) == pytest.approx((66.67, 33.33), abs=0.01)


def test_nothing_to_say_of_an_even_load() -> None:
    assert advice(TWO, EVEN) == []


def test_a_trickle_says_nothing_of_balance() -> None:
    assert advice(TWO, {**dict.fromkeys(LOGS, 0), LOGS[0]: 5}) == []


def test_no_worker() -> None:
    assert [one.state for one in advice(group(), EVEN)] == ["wrong"]


def test_a_group_that_gives_out_partitions_anew() -> None:
    [found] = advice(group([], state="preparingrebalance"), EVEN)
    assert found.state == "note"


def test_a_log_that_nobody_owns() -> None:
    [found] = advice(group(LOGS[:2], LOGS[2:3]), EVEN)
    assert found.state == "wrong"
    assert "Nobody owns default/3:" in found.text


def test_a_log_that_stands_still() -> None:
    before = look(1.0, dict.fromkeys(LOGS, 100), {**dict.fromkeys(LOGS, 100), LOGS[1]: 101})
    after = look(2.0, dict.fromkeys(LOGS, 100), {**dict.fromkeys(LOGS, 100), LOGS[1]: 101})
    [found] = advise(TWO, log_rows(TWO, before, after))
    assert found.state == "wrong"
    assert "default/1: " in found.text
    assert "w1" in found.text


def test_more_comes_in_than_is_decided() -> None:
    [found] = advice(TWO, EVEN, dict.fromkeys(LOGS, 600))
    assert "4 workers in place of 2" in found.text


def test_more_comes_in_than_is_decided_and_more_workers_do_not_help() -> None:
    each = group(*([log] for log in LOGS))
    assert "worker of its own" in texts(advice(each, EVEN, dict.fromkeys(LOGS, 600)))


def test_more_workers_than_logs() -> None:
    each = group(*([log] for log in LOGS), [])
    assert "1 of them stand by" in texts(advice(each, EVEN))


def test_who_has_one_log_has_enough_where_that_is_half_of_the_load() -> None:
    [found] = advice(group(LOGS[:1], LOGS[1:]), {**EVEN, LOGS[0]: 3_000})
    assert found.text.startswith("default/0 has 50% of the load:")


def test_workers_with_different_tenants() -> None:
    other = Log("other", 0)
    of = Group("stable", [member("w0", [*LOGS[:2], other], "default", "other"), member("w1", LOGS[2:])])
    [found] = advice(of, {**EVEN, other: 10})
    assert found == Advice("note", "w1 does not take the logs of other: give all workers the same tenants.")


def test_one_hot_log_bounds_the_workers() -> None:
    found = texts(advice(TWO, {**EVEN, LOGS[0]: 3_000}))
    assert "default/0 has 50% of the load: more than 2 workers" in found


def test_hot_logs_that_meet_on_one_worker_part_when_logs_are_given_out_anew() -> None:
    logs = [Log("default", partition) for partition in range(12)]
    heat = {log: 1_000 if log.partition in {0, 4, 8} else 100 for log in logs}
    found = texts(advice(group(*(logs[first::4] for first in range(4))), heat))
    assert "The busiest of 4 workers has 77% of the load. Given out anew it would have 28%" in found


# --- giving out


def test_without_a_word_on_loads_everyone_has_as_many() -> None:
    assert spread(dict.fromkeys(LOGS), ["b", "a"]) == {"a": LOGS[::2], "b": LOGS[1::2]}
    assert spread(dict.fromkeys(LOGS, 0), ["b", "a"]) == {"a": LOGS[::2], "b": LOGS[1::2]}


def test_a_hot_log_has_a_worker_to_itself() -> None:
    given_out = spread({**dict.fromkeys(LOGS, 10), LOGS[2]: 1_000}, ["a", "b"])
    assert given_out == {"a": [LOGS[2]], "b": [LOGS[0], LOGS[1], LOGS[3]]}


def test_a_log_that_nobody_tells_of_counts_as_an_average_one() -> None:
    given_out = spread({LOGS[0]: 100, LOGS[1]: 20, LOGS[2]: 0, LOGS[3]: None}, ["a", "b"])
    assert given_out == {"a": [LOGS[0]], "b": [LOGS[3], LOGS[1], LOGS[2]]}


def test_idle_logs_are_shared_too() -> None:
    given_out = spread({**dict.fromkeys(LOGS, 0), LOGS[0]: 7, Log("other", 0): 7}, ["a", "b"])
    assert sorted(map(len, given_out.values())) == [2, 3]


def test_a_worker_gets_only_what_it_takes() -> None:
    loads = {**dict.fromkeys(LOGS, 10), Log("other", 0): 10, Log("third", 0): 10}
    given_out = spread(
        loads, ["a", "b"], lambda worker, log: log.tenant == "default" or (log.tenant == "other" and worker == "b")
    )
    assert {worker: len(logs) for worker, logs in given_out.items()} == {"a": 2, "b": 3}
    assert Log("other", 0) in given_out["b"]
    assert Log("third", 0) not in [*given_out["a"], *given_out["b"]]


def test_without_workers_nothing_is_given_out() -> None:
    assert spread(dict.fromkeys(LOGS), []) == {}


@given(st.lists(st.integers(0, 1_000), max_size=40), st.integers(1, 9))
def test_no_worker_has_more_than_the_even_share_and_one_log(loads: list[int], workers: int) -> None:
    places = {("topic", number): load for number, load in enumerate(loads)}
    given_out = spread(places, map(str, range(workers)))
    assert sorted(place for own in given_out.values() for place in own) == sorted(places)
    each = 0.1 * sum(loads) / len(loads) if loads else 0.0
    weights = [sum(places[place] + each for place in own) for own in given_out.values()]
    assert max(weights) <= sum(weights) / workers + max(loads, default=0) + each + 1e-6


def test_the_busiest_share_is_that_of_logs_given_out_by_these_rates() -> None:
    assert busiest_share({**EVEN, LOGS[0]: 3_000}, 2) == pytest.approx(0.5)
    assert busiest_share(dict.fromkeys(LOGS, 0.0), 2) == 0.0


# --- loads


def test_a_load_is_what_came_in_a_minute_between_looks() -> None:
    loads = Loads()
    loads.note({LOGS[0]: 1_000, LOGS[1]: 5}, 10.0)
    assert loads.a_minute() == {}, "one look says nothing yet"
    loads.note({LOGS[0]: 1_100, LOGS[1]: 5}, 12.0)
    assert loads.a_minute() == {LOGS[0]: 3_000, LOGS[1]: 0}


def test_what_waits_when_a_log_is_owned_has_come_in() -> None:
    loads = Loads()
    loads.begin(LOGS[0], 50, 10.0)
    assert loads.a_minute() == {}
    loads.note({LOGS[0]: 80}, 11.0)
    assert loads.a_minute() == {LOGS[0]: 1_800}
    loads.begin(LOGS[0], 70, 12.0)
    loads.note({LOGS[0]: 80}, 13.0)
    assert loads.a_minute()[LOGS[0]] == pytest.approx(600, abs=3), "who owns it again has seen those already"


def test_of_a_load_five_minutes_ago_half_counts() -> None:
    loads = Loads()
    loads.note({LOGS[0]: 0}, 0.0)
    for second in range(1, 301):
        loads.note({LOGS[0]: 10 * second}, float(second))
    for second in range(301, 601):
        loads.note({LOGS[0]: 3_000}, float(second))
    assert loads.a_minute()[LOGS[0]] == pytest.approx(200, abs=1)


def test_a_load_is_told_of_for_a_minute_after_the_log_was_let_go_of() -> None:
    loads = Loads()
    for second in range(3):
        loads.note({LOGS[0]: 10 * second, LOGS[1]: second}, float(second))
    loads.note({LOGS[1]: 3}, 60.0)
    assert loads.a_minute()[LOGS[0]] == 600
    loads.note({LOGS[1]: 3}, 63.0)
    assert LOGS[0] not in loads.a_minute()


def test_a_log_that_was_made_anew_has_no_load_below_nothing() -> None:
    loads = Loads()
    loads.note({LOGS[0]: 1_000}, 0.0)
    loads.note({LOGS[0]: 10}, 1.0)
    assert loads.a_minute() == {LOGS[0]: 0}
