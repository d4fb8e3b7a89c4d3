"""What a trial runs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.trial import Trial
from tests.servers import Kafka


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Each store that outlives its worker."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def trial(real_kafka: Kafka, topic_prefix: str, store_url: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """On the shared broker and each store."""
    async with Trial(real_kafka.bootstrap, topic_prefix, store_url, tmp_path) as trial:
        yield trial


@pytest.fixture
async def sqlite_trial(real_kafka: Kafka, topic_prefix: str, sqlite_url: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """On the shared broker and SQLite."""
    async with Trial(real_kafka.bootstrap, topic_prefix, sqlite_url, tmp_path) as trial:
        yield trial


@pytest.fixture
async def postgres_trial(
    real_kafka: Kafka, topic_prefix: str, postgres_url: str, tmp_path: Path
) -> AsyncIterator[Trial]:
    """On the shared broker and PostgreSQL."""
    async with Trial(real_kafka.bootstrap, topic_prefix, postgres_url, tmp_path) as trial:
        yield trial
