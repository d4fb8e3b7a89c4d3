import json
from collections.abc import Iterator
from itertools import count

import pytest
from msgspec.structs import replace

from processor.chain import event_hash, genesis, payload_digest
from processor.cli.stress_checks import Chain, Check, Checks, Replies, Tally, Usage, Versions, hole_in
from processor.cli.stress_load import Asked, Intent, Mix, Writer, seconds_of
from processor.messages import Accepted, Conflict, Duplicate, Log, RecordedEvent

LOG = Log("default", 3)


def _accepted(kind: type[Accepted | Duplicate] = Accepted, position: int = 7) -> Accepted | Duplicate:
    return kind(
        tenant="default", partition=3, offset=1, command_id="c", stream="s", first_version=1, last_version=1,
        first_position=position, last_position=position, event_ids=["e"],
    )  # fmt: skip


def _conflict() -> Conflict:
    return Conflict(
        tenant="default", partition=3, offset=1, command_id="c", stream="s", reason="wrong_expected_version",
        detail="", expected_version=9, actual_version=1,
    )  # fmt: skip


def _asked(intent: Intent) -> Asked:
    return Asked("s", "c", b"{}", intent)


class TestReplies:
    def test_what_was_meant_is_right_and_is_counted(self) -> None:
        replies = Replies()
        given = {Intent.ACCEPTED: _accepted(), Intent.DUPLICATE: _accepted(Duplicate), Intent.CONFLICT: _conflict()}
        for number, (intent, outcome) in enumerate(given.items()):
            replies.sent(number, _asked(intent), 1.5)
            assert replies.answered(number, outcome) == (1.5, None)
        assert replies.outcomes == {"accepted": 1, "duplicate": 1, "conflict": 1}
        assert replies.waiting == 0

    @pytest.mark.parametrize("intent", [Intent.DUPLICATE, Intent.CONFLICT])
    def test_taken_where_it_must_not_be(self, intent: Intent) -> None:
        replies = Replies()
        replies.sent(1, _asked(intent), 0.0)
        assert "was to be" in str(replies.answered(1, _accepted())[1])

    def test_a_second_reply_has_to_agree(self) -> None:
        replies = Replies()
        replies.sent(1, _asked(Intent.ACCEPTED), 0.0)
        replies.answered(1, _accepted())
        assert replies.answered(1, _accepted()) == (None, None)
        assert "differ" in str(replies.answered(1, _accepted(position=8))[1])

    def test_a_duplicate_is_told_the_places_of_the_original(self) -> None:
        replies = Replies()
        replies.sent(1, _asked(Intent.ACCEPTED), 0.0)
        replies.sent(2, _asked(Intent.DUPLICATE), 0.0)
        replies.answered(1, _accepted())
        assert "other places" in str(replies.answered(2, _accepted(Duplicate, position=8))[1])

    def test_what_was_not_sent_is_not_waited_for(self) -> None:
        replies = Replies()
        replies.sent(1, _asked(Intent.ACCEPTED), 0.0)
        replies.given_up(1)
        assert replies.waiting == 0


def _events() -> Iterator[RecordedEvent]:
    chain = genesis(LOG)
    for n in count(1):
        event = RecordedEvent("s", n, n, f"id-{n}", "T", 1, b"{}", b"", 0, n, None, None, None, None, b"")
        chain = event_hash(chain, payload_digest(b"{}", b""), event)
        yield replace(event, hash=chain)


class TestChain:
    def test_a_sound_log(self) -> None:
        events = _events()
        chain = Chain(LOG, 0, genesis(LOG))
        assert not list(chain.seen([next(events), next(events)]))
        assert not list(chain.seen([next(events)]))
        assert chain.position == 3

    def test_a_missing_event(self) -> None:
        events = _events()
        first, _, third = next(events), next(events), next(events)
        assert len(list(Chain(LOG, 0, genesis(LOG)).seen([first, third]))) == 2

    def test_a_changed_event(self) -> None:
        changed = replace(next(_events()), data=b"[]")
        (wrong,) = Chain(LOG, 0, genesis(LOG)).seen([changed])
        assert "hash" in wrong


def test_streams_are_read_without_a_hole() -> None:
    versions = Versions()
    assert versions.seen("a", 1) is None
    assert versions.seen("b", 1) is None
    assert versions.seen("a", 2) is None
    assert "after version 2" in str(versions.seen("a", 4))


def test_a_page_of_a_stream() -> None:
    events = _events()
    page = [next(events), next(events)]
    assert hole_in("s", 0, page) is None
    assert hole_in("s", 0, []) is None
    assert hole_in("s", 1, page) is not None


def test_memory_above_its_limit_is_told_once_each_time() -> None:
    usage = Usage(100)
    told = [usage.seen(at, used) for at, used in enumerate((90, 110, 120, 90, 101))]
    assert [text is not None for text in told] == [False, True, False, False, True]
    assert len(usage.memory_mb) == 5


def test_processor_time_is_a_share_of_the_time_between_two_samples() -> None:
    usage = Usage(100)
    for at_s, cpu_s in ((0, 7.0), (10, 9.0), (10, 9.0), (14, 11.0)):
        usage.seen(at_s, 1, cpu_s)
    assert usage.processors == [(10, 20.0), (14, 50.0)]


def test_violations_are_all_counted_and_some_shown() -> None:
    checks = Checks(shown=2)
    for text in "abc":
        checks.failed(Check.FEED, text)
    checks.passed(Check.STORE, 5)
    checks.judge(Check.STORE, None)
    checks.judge(Check.STORE, "d")
    assert (checks.violations, checks.first) == (4, ["a", "b"])
    assert checks.tallies[Check.FEED] == Tally(0, 3)
    assert checks.tallies[Check.STORE] == Tally(6, 1)


class TestWriter:
    def test_versions_go_on_whatever_else_is_sent(self) -> None:
        writer = Writer("w", Mix(streams=3, skew=1.0, duplicates=0.2, conflicts=0.2), 1)
        versions: dict[str, int] = {}
        seen: set[bytes] = set()
        intents = set()
        for _ in range(500):
            asked = writer.next()
            intents.add(asked.intent)
            if asked.intent is Intent.ACCEPTED:
                version = versions.get(asked.stream, 0)
                assert f'"expected_version":{version},'.encode() in asked.value
                versions[asked.stream] = version + 1
                seen.add(asked.value)
            elif asked.intent is Intent.DUPLICATE:
                assert asked.value in seen
        assert intents == set(Intent)

    def test_a_command_of_several_events_takes_as_many_versions(self) -> None:
        writer = Writer("w", Mix(streams=1, skew=0.0, duplicates=0.0, conflicts=0.0, events=3), 1)
        first, second = (json.loads(writer.next().value) for _ in range(2))
        assert len({event["event_id"] for event in first["events"] + second["events"]}) == 6
        assert (first["expected_version"], second["expected_version"]) == (0, 3)

    def test_it_goes_on_from_what_it_is_told(self) -> None:
        writer = Writer("w", Mix(streams=1, skew=0.0, duplicates=0.0, conflicts=0.0), 1)
        writer.next()
        writer.set_version("w-000000", 5)
        assert b'"expected_version":5,' in writer.next().value


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3_600), ("7d", 604_800)])
def test_a_length_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "5w", "-1s", "0", "nan", "infd"])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="no length of time"):
        seconds_of(text)
