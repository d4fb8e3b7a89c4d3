import pytest

from benchmarks.targets import Row, in_order, middle, ratio


@pytest.mark.parametrize(
    ("key", "measured", "reached"),
    [
        ("drain-sqlite", 75.0, "goal"),
        ("drain-sqlite", 74.9, "floor"),
        ("drain-sqlite", 49.9, "missed"),
        ("open-25", 30.0, "goal"),
        ("open-25", 30.1, "floor"),
        ("open-25", 100.1, "missed"),
        ("open-25", None, "missed"),
        ("drain-sqlite", None, "missed"),
    ],
)
def test_how_far_a_figure_came(key: str, measured: float | None, reached: str) -> None:
    assert Row(key, measured, "").reached == reached


def test_a_run_that_failed_counts_as_the_worst() -> None:
    assert middle([None, 1.0, 2.0], more=False) == 2.0
    assert middle([None, 1.0, 2.0], more=True) == 1.0
    assert middle([None, None, 2.0], more=True) is None
    assert middle([], more=False) is None


def test_a_ratio_needs_both() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, 0.0) is None


def test_rows_stand_in_the_order_of_the_table() -> None:
    rows = [Row("stored", 1.0, ""), Row("drain-postgres", 1.0, ""), Row("open-50", 1.0, "")]
    assert [row.key for row in in_order(rows)] == ["drain-postgres", "open-50", "stored"]
