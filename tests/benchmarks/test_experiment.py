from typing import Any, cast

import pytest

from benchmarks.drain import Drained
from benchmarks.experiment import EXPERIMENTS, Options

OPTIONS = Options(commands=10, seconds=1.0, runs=3, stored=10)
FAILED = Drained(failure="a hash is wrong")


async def share(cycles: list[Drained], bulk: list[Drained]) -> float | None:
    """What the row of a worker's cycles beside the bulk insert says."""
    async with EXPERIMENTS["alone-sqlite"](cast(Any, None), OPTIONS) as experiment:
        (row,) = experiment.rows({"cycles": cycles, "bulk": bulk})
    return row.measured


@pytest.mark.parametrize(
    ("cycles", "bulk", "measured"),
    [
        ([50.0, 10.0, 60.0], [100.0, 20.0, 40.0], 50.0),
        ([50.0, None, None], [100.0, 100.0, 100.0], 0.0),
        ([50.0, 10.0, 60.0], [100.0, None, 60.0], 75.0),
        ([50.0, 10.0, 60.0], [None, None, None], None),
    ],
    ids=[
        "what runs beside each other is compared",
        "a run that fails counts as zero",
        "a yardstick's run that fails does not count",
        "without a yardstick there is nothing to say",
    ],
)
async def test_shares_are_the_median_of_the_turns(
    cycles: list[float | None], bulk: list[float | None], measured: float | None
) -> None:
    assert await share(_runs(cycles), _runs(bulk)) == measured


def _runs(rates: list[float | None]) -> list[Drained]:
    return [FAILED if rate is None else Drained(rate) for rate in rates]
