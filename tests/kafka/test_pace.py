"""How long the broker gathers records before it answers."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.kafka.pace import Utilization, rest_ms

SHARES = st.floats(0, 1)
SLICES = st.integers(0, 10_000)


@given(SLICES, SHARES, SHARES)
def test_the_rest_is_longer_the_more_slices_there_are_and_the_busier_the_worker_is_in_bounds(
    slices: int, busy: float, busier: float
) -> None:
    busy, busier = sorted((busy, busier))
    assert 0 <= rest_ms(slices, busy) <= rest_ms(slices, busier) <= rest_ms(slices + 1, busier) < 100


@pytest.mark.parametrize(("slices", "busy"), [(0, 0.0), (0, 1.0), (1, 0.0), (2, 0.0), (1, 0.7)])
def test_few_slices_are_fetched_without_a_rest_unless_the_processor_is_busy(slices: int, busy: float) -> None:
    assert rest_ms(slices, busy) == 0


def test_many_slices_rest_and_a_lone_one_where_nothing_is_left_of_the_processor() -> None:
    assert rest_ms(32, 0.0) == pytest.approx(12.8)
    assert rest_ms(32, 0.5) == 16
    assert rest_ms(1, 1.0) == 2


def times(*seconds: float) -> Callable[[], float]:
    left: Iterator[float] = iter(seconds)
    return lambda: next(left)


def test_the_share_is_what_was_used_since_the_last_look_and_a_look_takes_a_while() -> None:
    utilization = Utilization(times(10.0, 10.1, 11.0, 11.1, 13.0, 14.0), times(5.0, 5.5, 5.7, 8.7))
    assert utilization.share == 0
    assert utilization.share == pytest.approx(0.5)
    assert utilization.share == pytest.approx(0.5)
    assert utilization.share == pytest.approx(0.1)
    assert utilization.share == 1, "several threads can use more than one processor"
