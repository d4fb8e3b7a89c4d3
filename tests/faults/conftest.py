"""What a trial runs on."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.trial import Trial
from tests.servers import CannotRun, Kafka, ProxiedBroker

HERE = Path(__file__).parent
QUICK = {
    "test_worker.py::test_killed[sqlite-within_commit]",
    "test_worker.py::test_killed[sqlite-after_commit]",
    "test_worker.py::test_killed[postgres-before_feed]",
    "test_worker.py::test_held_past_its_session_and_let_go_again[before_commit]",
    "test_worker.py::test_ended_in_the_middle_of_a_batch[sqlite]",
    "test_worker.py::test_a_worker_whose_loop_stands_still_ends_itself[sqlite]",
    "test_group.py::test_another_owner_claims_all_logs_while_they_stay_assigned[postgres]",
    "test_postgres.py::test_the_connection_breaks_in_the_middle_of_a_commit[one-statement-answer-lost]",
    "test_postgres.py::test_the_connection_breaks_in_the_middle_of_a_commit[transaction-answer-lost]",
    "test_broker.py::test_killed_and_started_again[postgres]",
    "test_sqlite.py::test_full_disk",
    "test_sqlite.py::test_deleted_under_the_worker",
    "test_input.py::test_poison[sqlite]",
    "test_input.py::test_clocks_that_jump[postgres]",
    "test_operations.py::test_the_store_is_restored_from_an_older_backup[sqlite]",
}
"""What every run of the tests tries: one or two of each kind."""

NewTrial = Callable[[str, str], Awaitable[Trial]]
"""Makes a trial on a broker and a store, given by their addresses; it ends with the test."""


@pytest.fixture
async def new_trial(
    topic_prefix: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> AsyncIterator[NewTrial]:
    """See `NewTrial`. Says in the report how often the fault was tried."""
    async with AsyncExitStack() as ending:

        async def make(brokers: str, store: str) -> Trial:
            trial = await ending.enter_async_context(Trial(brokers, topic_prefix, store, tmp_path))
            ending.callback(lambda: record_property("repetitions", trial.tried))
            return trial

        yield make


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store that outlives its worker."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def trial(real_kafka: Kafka, store_url: str, new_trial: NewTrial) -> Trial:
    """On the shared broker and each store."""
    return await new_trial(real_kafka.bootstrap, store_url)


@pytest.fixture
async def sqlite_trial(real_kafka: Kafka, sqlite_url: str, new_trial: NewTrial) -> Trial:
    """On the shared broker and SQLite."""
    return await new_trial(real_kafka.bootstrap, sqlite_url)


@pytest.fixture
async def postgres_trial(real_kafka: Kafka, postgres_url: str, new_trial: NewTrial) -> Trial:
    """On the shared broker and PostgreSQL."""
    return await new_trial(real_kafka.bootstrap, postgres_url)


@pytest.fixture(scope="session")
def proxied_broker() -> Iterator[ProxiedBroker]:
    """A broker that may be ended and held, and is reached through a proxy."""
    try:
        broker = ProxiedBroker()
    except CannotRun as reason:
        pytest.skip(f"needs a real Kafka broker: {reason}")
    with broker:
        yield broker


@pytest.fixture
async def proxy(proxied_broker: ProxiedBroker) -> AsyncIterator[Proxy]:
    """Between all clients of `proxied_broker` and it."""
    async with Proxy(proxied_broker.port, proxied_broker.proxy_port) as proxy:
        yield proxy


@pytest.fixture
async def proxied_trial(proxy: Proxy, store_url: str, new_trial: NewTrial) -> Trial:
    """On `proxied_broker`, through the proxy, and each store."""
    return await new_trial(f"127.0.0.1:{proxy.port}", store_url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the long ones to `make faults`, which says how often each is to be tried."""
    if "TIDEMARK_TEST_FAULT_REPEATS" in os.environ:
        return
    for item in items:
        name = f"{item.path.name}::{item.name}"
        if item.path.parent == HERE and item.get_closest_marker("faults") and name not in QUICK:
            item.add_marker(pytest.mark.skip(reason="takes long, or another fault stands for it: make faults"))
