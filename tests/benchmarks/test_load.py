from collections import Counter

from benchmarks.fill import _names, hot_streams, starts
from benchmarks.load import HOT_PARTITION, PARTITIONS, Commands, Mix, commands, following
from benchmarks.ready import plan_of, plans
from processor.chain import genesis
from processor.messages import Accepted, Checkpoint, Conflict, Duplicate, Log
from processor.names import DEFAULT_TENANT
from processor.partition import partition_of


def test_the_load_is_the_same_each_time_and_goes_on_from_itself() -> None:
    load = Commands()
    assert [*load.take(300), *load.take(200)] != commands(499)
    again = Commands()
    assert [*again.take(300), *again.take(200)] == [*(other := Commands()).take(300), *other.take(200)]


def test_plain_commands_are_all_accepted_and_their_size_is_about_250_bytes() -> None:
    records = commands(2_000)
    decided = plans(records)
    assert all(isinstance(outcome, Accepted) for plan in decided.values() for _, outcome in plan.answers)
    assert sum(len(plan.events) for plan in decided.values()) == 2_000
    assert 230 < sum(len(record.value) for record in records) / 2_000 < 300


def test_one_in_twenty_is_a_conflict_and_the_others_are_not() -> None:
    records = Commands().take(2_000, Mix(stale_every=20))
    outcomes = Counter(type(outcome) for plan in plans(records).values() for _, outcome in plan.answers)
    assert outcomes == {Accepted: 1_900, Conflict: 100}


def test_commands_sent_once_more_are_duplicates() -> None:
    records = commands(500)
    decided = plans([*records, *following(records, records)])
    outcomes = Counter(type(outcome) for plan in decided.values() for _, outcome in plan.answers)
    assert outcomes == {Accepted: 500, Duplicate: 500}


def test_the_hot_partition_gets_its_share() -> None:
    records = Commands().take(4_000, Mix(hot_share=0.9))
    hot = sum(record.partition == HOT_PARTITION for record in records)
    assert 0.87 < hot / 4_000 < 0.93


def test_a_filled_store_has_as_many_streams_as_asked_for_and_the_hot_ones_where_they_belong() -> None:
    count = 70_000
    by_partition = [list(_names(count, partition)) for partition in range(PARTITIONS)]
    assert sum(map(len, by_partition)) == count
    hot = set(hot_streams(count))
    for partition, names in enumerate(by_partition):
        assert {name for name in names if name in hot} == {
            name for name in hot if partition_of(name.encode(), PARTITIONS) == partition
        }


def test_commands_on_a_filled_store_go_on_from_its_heads() -> None:
    count = 70_000
    logs = [Log(DEFAULT_TENANT, partition) for partition in range(PARTITIONS)]
    filled = starts(count, {log: Checkpoint(1, 0, 5_000, 4_999, genesis(log), incarnation=1) for log in logs})
    records = Commands(version=1).take(300)
    for log in logs:
        of_log = [record for record in records if record.partition == log.partition]
        plan = plan_of(log, of_log, filled[log.partition])
        assert all(isinstance(outcome, Accepted) for _, outcome in plan.answers)
        assert plan.after.streams == 4_999
