"""The world that the commands are run in."""

from collections.abc import Iterator

import pytest

from tests.servers import Kafka
from tests.world import SAMPLE, World, served


@pytest.fixture(scope="session")
def world(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A worker that has decided the sample; tests add streams of their own, and leave order-42 and order-43 alone."""
    with served(kafka, tmp_path_factory.mktemp("world")) as world:
        assert world.run("send", SAMPLE).exit_code == 1
        yield world


@pytest.fixture
def apart(kafka: Kafka, topic_prefix: str, sqlite_url: str) -> World:
    """Settings that nothing has been done with: no topics, no store, no worker."""
    return World(kafka.bootstrap, topic_prefix, sqlite_url)
