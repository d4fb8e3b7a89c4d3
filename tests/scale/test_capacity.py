"""The capacity model finds the prices that runs were made from."""

import math
from typing import get_args

import pytest
from msgspec.structs import astuple

from benchmarks.capacity import Model, Needs, Planning, put
from benchmarks.costs import Amount, Costs, Sample
from benchmarks.load import PARTITIONS

SECOND, COMMAND, EVENT, CYCLE, SLICE = 20_000.0, 15.0, 6.0, 2_000.0, 150.0
"""µs of CPU: of a second, a command, an event, a cycle, a slice."""
BYTES = 300.0
"""Of an event, and nothing else."""


def slices_of(commands: float) -> float:
    """On how many of the logs there is something, of so many commands that come by chance."""
    return PARTITIONS * (1 - math.exp(-commands / PARTITIONS))


def run(commands: int, events: int, seconds: float, cycles: int) -> Sample:
    slices = cycles * slices_of(commands / cycles) if cycles else 0.0
    cpu = SECOND * seconds + COMMAND * commands + EVENT * commands * events + CYCLE * cycles + SLICE * slices
    amounts: dict[Amount, float] = {
        amount: cpu if amount.endswith("_us") else BYTES * commands * events for amount in get_args(Amount)
    }
    amounts["flushes"] = cycles
    return Sample(1, commands, commands * events, seconds, amounts)


@pytest.fixture
def costs() -> Costs:
    return Costs(
        machine={},
        idle=run(0, 0, 6.0, 0),
        one_event=run(40_000, 1, 2.0, 20),
        ten_events=run(10_000, 10, 3.0, 30),
        steady=run(10_000, 1, 10.0, 900),
        busy=run(30_000, 1, 10.0, 450),
        checks={},
    )


@pytest.fixture
def model(costs: Costs) -> Model:
    return Model(costs)


def test_the_prices_are_found(model: Model) -> None:
    price = model.price("worker_us")
    assert astuple(price) == pytest.approx((SECOND, COMMAND, EVENT, CYCLE, SLICE))
    assert astuple(model.price("feed_bytes")) == pytest.approx((0, 0, BYTES, 0, 0), abs=1e-6)


def test_the_steady_run_is_foreseen(model: Model) -> None:
    assert model.cycles(1_000, PARTITIONS) == pytest.approx(90)
    cpu = SECOND + 1_000 * (COMMAND + EVENT) + 90 * (CYCLE + SLICE * slices_of(1_000 / 90))
    assert model.per_second("worker_us", 1_000, 1) == pytest.approx(cpu)


def test_cycles_are_no_more_than_commands_and_fewer_where_each_is_longer(model: Model) -> None:
    assert model.cycles(10, PARTITIONS) == 10
    assert model.cycles(20_000, PARTITIONS) < model.cycles(1_000, PARTITIONS)


def test_the_more_logs_a_worker_has_the_fewer_are_its_cycles(model: Model) -> None:
    assert 1 / model.cycles(10_000, 4) + 0.01 < 1 / model.cycles(10_000, 32)


def test_what_is_measured_as_less_than_nothing_costs_nothing(costs: Costs) -> None:
    costs.busy.amounts["wal_bytes"] += 30_000 * BYTES
    wal = Model(costs).price("wal_bytes")
    assert wal.cycle == 0
    assert wal.slice > 0
    costs.busy.amounts["wal_bytes"] = 0.0
    wal = Model(costs).price("wal_bytes")
    assert (wal.cycle, wal.slice) == (0, 0)


def test_two_workers_make_twice_the_cycles(model: Model) -> None:
    assert model.per_second("flushes", 2_000, 2) == pytest.approx(2 * model.cycles(1_000, PARTITIONS / 2))


def test_ten_times_the_rate_needs_about_ten_times_as_much(model: Model) -> None:
    small, large = (Needs(model, Planning(), rate) for rate in (100_000, 1_000_000))
    assert 10 * (small.workers - 1) < large.workers <= 10 * small.workers
    assert large.partitions >= 4 * large.workers
    assert large.stored_tb_day == pytest.approx(10 * small.stored_tb_day)
    assert large.stored_tb_day == pytest.approx(BYTES * 1e6 * 86_400 / 1e12)
    assert large.brokers >= 3


def test_a_table_is_put_between_its_marks() -> None:
    assert put("a <b> old <e> c", "<b>", "<e>", "new") == "a <b>\nnew\n<e> c"
