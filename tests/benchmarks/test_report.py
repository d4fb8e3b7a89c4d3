from pathlib import Path

import msgspec
import pytest

from benchmarks.experiment import Options
from benchmarks.report import Result, keep
from benchmarks.targets import Row

OPTIONS = Options(commands=10, seconds=1.0, runs=1, stored=10)
ON = {"processors": 2}


def result(key: str, experiment: str, measured: float, options: Options = OPTIONS) -> Result:
    return Result(ON, options, [Row(key, measured, "")], {experiment: {"worker": [{"rate": measured}]}})


def kept(path: Path) -> Result:
    return msgspec.json.decode(path.read_bytes(), type=Result)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "there" / "bench.json"


def test_what_is_not_measured_again_stays(path: Path) -> None:
    keep(result("drain-sqlite", "drain-sqlite", 50.0), path)
    keep(Result(ON, OPTIONS, broken={"mixes": "no disk"}), path)
    assert kept(path).broken == {"mixes": "no disk"}
    keep(result("duplicates", "mixes", 80.0), path)
    keep(result("drain-sqlite", "drain-sqlite", 60.0), path)

    found = kept(path)
    assert {row.key: row.measured for row in found.rows} == {"duplicates": 80.0, "drain-sqlite": 60.0}
    assert found.runs == {"drain-sqlite": {"worker": [{"rate": 60.0}]}, "mixes": {"worker": [{"rate": 80.0}]}}
    assert found.broken == {}


def test_what_was_measured_otherwise_does_not_stay(path: Path) -> None:
    keep(result("drain-sqlite", "drain-sqlite", 50.0), path)
    more = Options(commands=20, seconds=1.0, runs=1, stored=10)
    keep(result("duplicates", "mixes", 80.0, more), path)

    assert [row.key for row in kept(path).rows] == ["duplicates"]
