import gzip
from pathlib import Path

import pytest

from processor.cli.lines import BadLine, Line, check_file, parse, read_file
from processor.errors import SettingsError


def test_a_command_goes_out_as_the_bytes_that_came() -> None:
    text = b'{"stream": "a\\u00fc",  "events":[{"type":"T","data":{"b":1.50, "a":2}}]}'
    assert parse(3, text) == Line(3, "aü".encode(), text, None, ())


def test_what_is_for_the_record_is_taken_out_and_the_rest_kept() -> None:
    text = b'{"timestamp":17, "stream":"a", "headers":{"h":"\xc3\xbc"}, "events": [{"data":{"b":1.50, "a":2}}]}'
    line = parse(1, text)
    assert line.command == b'{"stream":"a","events":[{"data":{"b":1.50, "a":2}}]}'
    assert (line.timestamp_ms, line.headers) == (17, (("h", "ü".encode()),))


def test_what_only_a_worker_can_judge_is_no_bad_line() -> None:
    text = b'{"stream":"a","evnets":[]}'
    assert parse(1, text).command == text


@pytest.mark.parametrize(
    "text",
    [
        b"rubbish",
        b"[1]",
        b"{}",
        b'{"stream":17}',
        b'{"stream":null}',
        b'{"stream":"a","timestamp":"17"}',
        b'{"stream":"a","timestamp":-1}',
        b'{"stream":"a","headers":["h"]}',
        b'{"stream":"a","headers":{"h":1}}',
        b'{"stream":"\xff"}',
        b'{"stream":"a"',
    ],
)
def test_a_line_that_no_record_can_be_made_of_is_told_with_its_number(text: bytes) -> None:
    with pytest.raises(BadLine, match=r"^line 17: "):
        parse(17, text)


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return b'\xef\xbb\xbf{"stream":"a"}\r\n\n  \n{"stream":"b"}\n{"stream":"c"}'


@pytest.mark.parametrize("name", ["commands.jsonl", "commands.jsonl.gz"])
def test_a_file_is_read_plain_or_compressed(tmp_path: Path, good: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(good) if name.endswith(".gz") else good)
    assert check_file(path) == 3
    assert [(line.number, line.stream) for line in read_file(path)] == [(1, b"a"), (4, b"b"), (5, b"c")]


def test_all_bad_lines_of_a_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_bytes(b'{"stream":"a"}\nrubbish\n{"stream":"b"}\n{}\n')
    with pytest.raises(SettingsError) as told:
        check_file(path)
    assert "nothing was sent" in str(told.value)
    assert "line 2: not JSON" in str(told.value)
    assert "line 4: stream is missing" in str(told.value)


def test_of_many_bad_lines_some_are_named(tmp_path: Path) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_bytes(b"rubbish\n" * 1_000)
    with pytest.raises(SettingsError) as told:
        check_file(path)
    assert str(told.value).count("\n") < 30
    assert str(told.value).endswith("… and more")


@pytest.mark.parametrize("name", ["missing.jsonl", "cut.jsonl.gz", "plain.jsonl.gz"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"stream":"a"}\n' * 100)[:-10])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"stream":"a"}\n')
    with pytest.raises(SettingsError, match=f"can't read .*{name}: "):
        check_file(tmp_path / name)
