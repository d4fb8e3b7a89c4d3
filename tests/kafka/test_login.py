"""Logins over TLS, at a real broker that asks for one."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from processor.errors import BrokerUnreachable
from processor.kafka.connection import reach_broker
from processor.kafka.topics import check_topics, create_topics
from processor.settings import Settings, load_settings
from tests.guarded import GuardedBroker
from tests.servers import CannotRun


@pytest.fixture(scope="module")
def broker() -> Iterator[GuardedBroker]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    try:
        broker = GuardedBroker()
    except CannotRun as reason:
        pytest.skip(str(reason))
    with broker:
        yield broker


def token() -> str:
    """A token for the next ten minutes: to be made in the test, as the whole suite can take longer than that."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": "admin", "iat": now - 5, "exp": now + 600})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*texts, ""])


def settings(broker: GuardedBroker, **given: Any) -> Settings:
    protocol = {"kafka_security_protocol": "SASL_SSL", "kafka_ssl_cafile": broker.certificate}
    common = {"brokers": f"localhost:{broker.port}", "startup_timeout_s": 5, "partitions": 1}
    return load_settings(**{**common, **protocol, **given})


def by_password(mechanism: str, password: str) -> dict[str, str]:
    return {
        "kafka_sasl_mechanism": mechanism,
        "kafka_sasl_username": "admin",
        "kafka_sasl_password": password,
    }


def by_token(text: str) -> dict[str, str]:
    return {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_oauth_token": text}


async def test_topics_are_made_after_a_login_by_password(broker: GuardedBroker, topic_prefix: str) -> None:
    await assert_topics_are_made(settings(broker, topic_prefix=topic_prefix, **by_password("PLAIN", "geheim")))


async def test_topics_are_made_after_a_login_by_token(broker: GuardedBroker, topic_prefix: str) -> None:
    await assert_topics_are_made(settings(broker, topic_prefix=topic_prefix, **by_token(token())))


async def assert_topics_are_made(guarded: Settings) -> None:
    assert len((await create_topics(guarded)).created) == 5
    assert await check_topics(guarded) == []


@pytest.mark.parametrize(
    ("login", "named"),
    [
        (by_password("PLAIN", "wrong"), "Invalid username or password"),
        (by_password("SCRAM-SHA-512", "wrong"), "invalid credentials"),
        (by_password("SCRAM-SHA-256", "geheim"), "unsupported sasl mechanism"),
        (by_token("nonsense"), "did not accept the token"),
    ],
)
async def test_a_refused_login_is_told_at_once(broker: GuardedBroker, login: dict[str, str], named: str) -> None:
    guarded = settings(broker, **login)

    with pytest.raises(BrokerUnreachable, match=f"Authentication failed: localhost:{broker.port}: .*{named}"):
        await reach_broker(guarded)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
async def test_a_wrong_protocol_is_suspected(broker: GuardedBroker, protocol: str) -> None:
    login = by_password("PLAIN", "geheim") if protocol.startswith("SASL") else {}
    unguarded = load_settings(
        brokers=f"localhost:{broker.port}", startup_timeout_s=1, kafka_security_protocol=protocol, **login
    )

    with pytest.raises(BrokerUnreachable, match=r"TIDEMARK_KAFKA_SECURITY_PROTOCOL right"):
        await reach_broker(unguarded)
