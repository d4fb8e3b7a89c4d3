"""Which of these tests run when."""

import pytest

from tests.chart.tools import PROGRAMS, CannotBuild, are_built, program, schemas


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long and was not asked for by its marker."""
    left_out = {"cluster": "needs a Kubernetes cluster: make cluster-test"}
    if not are_built():
        left_out["chart"] = "the chart's programs are built by Go the first time: make chart-test"
    for item in items:
        for marker, reason in left_out.items():
            if item.get_closest_marker(marker) and marker not in config.option.markexpr:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def built() -> None:
    """All programs and schemas are there; the test is left out where they can't be had."""
    try:
        for name in PROGRAMS:
            program(name)
        schemas()
    except CannotBuild as reason:
        pytest.skip(str(reason))
