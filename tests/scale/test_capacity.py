"""The capacity model finds the prices that runs were made from."""

from typing import get_args

import pytest

from benchmarks.capacity import Model, Needs, Planning, put
from benchmarks.costs import Amount, Costs, Sample

SECOND, COMMAND, EVENT, CYCLE = 20_000.0, 15.0, 6.0, 2_000.0
"""µs of CPU: of a second, a command, an event, a cycle."""
BYTES = 300.0
"""Of an event, and nothing else."""


def run(commands: int, events: int, seconds: float, cycles: int) -> Sample:
    cpu = SECOND * seconds + COMMAND * commands + EVENT * commands * events + CYCLE * cycles
    amounts: dict[Amount, float] = {
        amount: cpu if amount.endswith("_us") else BYTES * commands * events for amount in get_args(Amount)
    }
    amounts["flushes"] = cycles
    return Sample(1, commands, commands * events, seconds, amounts)


@pytest.fixture
def model() -> Model:
    return Model(
        Costs(
            machine={},
            idle=run(0, 0, 6.0, 0),
            one_event=run(40_000, 1, 2.0, 20),
            ten_events=run(10_000, 10, 3.0, 30),
            steady=run(10_000, 1, 10.0, 900),
            checks={},
        )
    )


def test_the_prices_are_found(model: Model) -> None:
    price = model.price("worker_us")
    assert (price.second, price.command, price.event, price.cycle) == pytest.approx((SECOND, COMMAND, EVENT, CYCLE))
    price = model.price("feed_bytes")
    assert (price.second, price.command, price.event, price.cycle) == pytest.approx((0, 0, BYTES, 0), abs=1e-6)


def test_the_steady_run_is_foreseen(model: Model) -> None:
    assert model.cycles(1_000) == pytest.approx(90)
    cpu = SECOND + 1_000 * (COMMAND + EVENT) + 90 * CYCLE
    assert model.per_second("worker_us", 1_000, 1) == pytest.approx(cpu)


def test_cycles_are_no_more_than_commands_and_fewer_where_each_is_longer(model: Model) -> None:
    assert model.cycles(10) == 10
    assert model.cycles(20_000) < model.cycles(1_000)


def test_two_workers_make_twice_the_cycles(model: Model) -> None:
    assert model.per_second("flushes", 2_000, 2) == pytest.approx(2 * model.cycles(1_000))


def test_ten_times_the_rate_needs_about_ten_times_as_much(model: Model) -> None:
    small, large = (Needs(model, Planning(), rate) for rate in (100_000, 1_000_000))
    assert 10 * (small.workers - 1) < large.workers <= 10 * small.workers
    assert large.partitions >= 4 * large.workers
    assert large.stored_tb_day == pytest.approx(10 * small.stored_tb_day)
    assert large.stored_tb_day == pytest.approx(BYTES * 1e6 * 86_400 / 1e12)
    assert large.brokers >= 3


def test_a_table_is_put_between_its_marks() -> None:
    assert put("a <b> old <e> c", "<b>", "<e>", "new") == "a <b>\nnew\n<e> c"
