import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Kafka
from tests.world import World, served

SHORT = ("stress", "--rate", "40", "--streams", "20", "--readers", "1")


@pytest.fixture(scope="module")
def busy(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A worker that nobody else counts on."""
    with served(kafka, tmp_path_factory.mktemp("busy")) as world:
        yield world


def test_a_load_is_counted_and_checked(busy: World, tmp_path: Path) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    mix = ("--duplicates", "0.2", "--conflicts", "0.2", "--watch", str(os.getpid()), "--memory-limit", "100000")
    told = busy.json(*SHORT, "--duration", "3s", *mix, "--html", page, "--json", document)
    assert told["violations"] == 0, told["first_violations"]
    assert told["sent"] == 120 == sum(told["outcomes"].values())
    assert told["outcomes"].keys() == {"accepted", "conflict", "duplicate"}
    assert told["outcomes"]["accepted"] == told["ingested"] == told["queried"]["from the feed"]
    assert told["checks_passed"] >= 2 * told["sent"]
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["max"]
    assert told["corruptions"] == 0
    assert told["checks"]["feed"] == {"passed": told["ingested"], "failed": 0}
    assert told["checks"]["store"]["passed"] == told["ingested"] == sum(told["events_by_partition"])
    assert set(told["memory_mb"]) == {"worker", "tidemark stress"}
    assert json.loads(document.read_bytes()) == told
    assert page.read_text().count("<svg") == 8
    assert not re.search(r"(src|href)=|url\(|@import", page.read_text()), "it is read without a network"


def test_commands_of_several_events(busy: World) -> None:
    told = busy.json(*SHORT, "--duration", "1s", "--events", "3", "--duplicates", "0.3")
    assert told["violations"] == 0, told["first_violations"]
    assert told["ingested"] == 3 * told["outcomes"]["accepted"] == told["queried"]["from the feed"] > 0


def test_no_such_process_to_watch(busy: World) -> None:
    ended = busy.run(*SHORT, "--duration", "1s", "--watch", str(2**31 - 1))
    assert ended.exit_code == 2
    assert "no process" in ended.stderr


def test_a_violation_is_told_and_ends_with_1(busy: World) -> None:
    ended = busy.run(*SHORT, "--duration", "1s", "--watch", str(os.getpid()), "--memory-limit", "1", "--output", "json")
    assert ended.exit_code == 1
    told = json.loads(ended.stdout)
    assert told["violations"] == 1
    assert "above the limit of 1 MB" in told["first_violations"][0]


def test_an_interrupted_run_has_its_full_report(busy: World) -> None:
    stress = busy.start(*SHORT, "--duration", "1h", "--output", "json")
    assert stress.stderr is not None
    assert "violations 0" in stress.stderr.readline(), "the first line of progress, after ten seconds"
    stress.send_signal(signal.SIGINT)
    told = json.loads(stress.communicate(timeout=60)[0])
    assert stress.returncode == 0
    assert told["interrupted"]
    assert told["sent"] == sum(told["outcomes"].values()) > 0
    assert told["violations"] == 0


def test_options_that_make_no_load(busy: World) -> None:
    assert busy.run("stress", "--duration", "soon").exit_code == 2
    assert busy.run("stress", "--duplicates", "0.6", "--conflicts", "0.6").exit_code == 2
