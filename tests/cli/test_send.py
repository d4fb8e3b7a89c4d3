import json
from pathlib import Path

from tests.servers import Kafka
from tests.world import SAMPLE, World, event_line


def test_the_outcomes_are_counted_and_refusals_told_by_line(world: World) -> None:
    result = world.run("send", SAMPLE, "--output", "json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    # All of it was decided before: what was accepted then is a duplicate now, what was refused is refused again.
    assert {name: told[name] for name in ("commands", "accepted", "duplicate", "conflict", "rejected", "not_sent")} == {
        "commands": 8, "accepted": 0, "duplicate": 6, "conflict": 1, "rejected": 1, "not_sent": 0,
    }  # fmt: skip
    refusals = [(refusal["line"], refusal["outcome"], refusal["reason"]) for refusal in told["refused"]]
    assert refusals == [(4, "conflict", "wrong_expected_version"), (7, "rejected", "event_id_reused")]


def test_the_summary_for_a_person(world: World) -> None:
    result = world.run("send", SAMPLE)
    assert result.exit_code == 1
    assert "8 commands decided" in result.stdout
    assert "line 4: conflict: order-42 wrong_expected_version" in result.stdout


def test_each_outcome_on_a_line(world: World) -> None:
    result = world.run("send", SAMPLE, "--no-summary", "--output", "json")
    outcomes = sorted((json.loads(line) for line in result.stdout.splitlines()), key=lambda outcome: outcome["line"])
    assert [outcome["line"] for outcome in outcomes] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [outcome["outcome"] for outcome in outcomes][3:7] == ["conflict", "duplicate", "duplicate", "rejected"]
    assert outcomes[4]["stream"] == "order-43"
    assert len(world.run("send", SAMPLE, "--no-summary").stdout.splitlines()) == 8


def test_commands_of_a_stream_keep_their_order(world: World, tmp_path: Path, topic_prefix: str) -> None:
    path = tmp_path / "commands.jsonl"
    streams = [f"{topic_prefix}{number}" for number in range(20)]
    path.write_text("\n".join(event_line(stream, version) for version in range(100) for stream in streams))
    assert world.json("send", path)["accepted"] == 2_000


def test_timestamp_and_headers_are_those_of_the_record(world: World, topic_prefix: str) -> None:
    line = event_line(topic_prefix, timestamp=1_312_242_084_000, headers={"traceparent": f"00-{1:032x}-{1:016x}-01"})
    assert world.run("send", "-", stdin=line).exit_code == 0
    [event] = world.lines("read", topic_prefix)
    assert event["time"] == "2011-08-01T23:41:24.000Z"
    assert event["traceparent"] == f"00-{1:032x}-{1:016x}-01"


def test_standard_input_is_sent_up_to_a_bad_line(world: World, topic_prefix: str) -> None:
    lines = [event_line(topic_prefix), event_line(topic_prefix), "rubbish", event_line(topic_prefix)]
    result = world.run("send", "-", stdin="\n".join(lines))
    assert result.exit_code == 2
    assert "line 3: not JSON" in result.stderr
    assert "2 commands sent" in result.stderr
    assert [event["version"] for event in world.lines("read", topic_prefix)] == [1, 2]


def test_of_a_file_with_a_bad_line_nothing_is_sent(world: World, tmp_path: Path, topic_prefix: str) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_text(f"{event_line(topic_prefix)}\n{{}}\n")
    result = world.run("send", path)
    assert result.exit_code == 2
    assert "line 2: stream is missing" in result.stderr
    assert world.run("read", topic_prefix).exit_code == 1


def test_a_line_that_no_broker_takes_is_told_and_the_others_go(world: World, tmp_path: Path, topic_prefix: str) -> None:
    path = tmp_path / "commands.jsonl"
    large = event_line(topic_prefix, correlation_id="x" * 3_000_000)
    path.write_text("\n".join([event_line(topic_prefix), large, event_line(topic_prefix)]))
    result = world.run("send", path, "--output", "json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["accepted"], told["not_sent"], told["refused"][0]["line"]) == (2, 1, 2)


def test_without_waiting_it_ends_when_the_broker_has_the_commands(world: World, topic_prefix: str) -> None:
    result = world.run("send", "-", "--no-wait", "--output", "json", stdin=event_line(topic_prefix))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["commands"] == 1
    # The next command on the stream is decided behind it.
    assert world.run("send", "-", stdin=event_line(topic_prefix, 1)).exit_code == 0


def test_nothing_to_send_is_done_at_once(world: World) -> None:
    result = world.run("send", "-", stdin="\n")
    assert result.exit_code == 0
    assert "0 commands" in result.stdout


def test_without_a_worker_it_gives_up_and_says_so(kafka: Kafka, apart: World) -> None:
    apart.create_topics(kafka)
    result = apart.run("send", "-", "--timeout", "0.5", stdin=event_line("order-1"))
    assert result.exit_code == 3
    assert "0 of 1 commands that were sent have one" in result.stderr
    assert "tidemark doctor" in result.stderr
    assert "Traceback" not in result.output


def test_without_a_broker_it_gives_up_and_says_so(apart: World) -> None:
    result = apart.run("send", "-", "--brokers", "127.0.0.1:1", stdin="{}", TIDEMARK_STARTUP_TIMEOUT_S="1")
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr


def test_without_topics_it_says_what_to_do(real_kafka: Kafka, apart: World) -> None:
    result = apart.run("send", "-", stdin=event_line("order-1"))
    assert result.exit_code == 2
    assert "tidemark topics create" in result.stderr
