"""What a measurement runs on, and when."""

from collections.abc import Iterator

import pytest

from tests.scale.report import Report
from tests.servers import Postgres


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave it out where it was not asked for by its marker: it takes minutes."""
    for item in items:
        if item.get_closest_marker("scale") and "scale" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="measures for minutes: make scale-test"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One that flushes to the disk, as in production."""
    with Postgres() as server:
        yield server.url()


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What has been measured; written down in the end."""
    report = Report.of_this_machine()
    yield report
    report.write()
