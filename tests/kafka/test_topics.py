import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from processor.codec import event_headers
from processor.errors import BrokerUnreachable, TopicMismatch
from processor.kafka.embedded import EmbeddedBroker
from processor.kafka.topics import (
    check_topics,
    create_topics,
    message_bytes,
    require_topics,
    topic_specs,
)
from processor.messages import Log, RecordedEvent
from processor.names import TopicNames
from processor.settings import Settings, load_settings
from tests.servers import Kafka, free_port

FEBRUARY_2011_MS = 1_298_000_000_000
FAR_AHEAD_MS = 9_000_000_000_000


@pytest.fixture
def settings(real_kafka: Kafka, topic_prefix: str) -> Settings:
    return load_settings(brokers=real_kafka.bootstrap, topic_prefix=topic_prefix, partitions=2)


@pytest.fixture
def names(settings: Settings) -> TopicNames:
    return TopicNames.of(settings.topic_prefix, "default")


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=settings.brokers, max_request_size=2**27) as producer:
        yield producer


async def make(settings: Settings, topic: str, configs: dict[str, str], partitions: int = 2) -> None:
    """Create a topic as an operator might have."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    await admin.close()


def but(settings: Settings, **changed: Any) -> Settings:
    return load_settings(**{**settings.model_dump(exclude_unset=True), **changed})


async def test_topics_are_made_for_every_tenant_and_can_be_used_at_once(settings: Settings) -> None:
    settings = but(settings, tenants="default,acme")

    report = await create_topics(settings)

    assert report.created == [spec.name for spec in topic_specs(settings)]
    assert len(report.created) == 10
    assert report.findings == []
    assert await require_topics(settings) == []


async def test_topics_that_are_there_are_left(settings: Settings, names: TopicNames) -> None:
    await make(settings, names.results, {})

    first = await create_topics(settings)
    second = await create_topics(settings)

    assert first.existing == [names.results]
    assert names.results not in first.created
    assert (second.created, len(second.existing)) == ([], 5)


async def test_missing_topics_are_found_and_do_not_appear_by_asking(settings: Settings, names: TopicNames) -> None:
    for _ in range(2):
        findings = await check_topics(settings)
        assert [(finding.topic, finding.problem) for finding in findings] == [(name, "missing") for name in names.all()]
    with pytest.raises(TopicMismatch, match=r"tidemark topics create.* in 4 more topics") as raised:
        await require_topics(settings)
    assert "\n" not in str(raised.value)


async def test_another_number_of_partitions_is_found(settings: Settings, names: TopicNames) -> None:
    await make(settings, names.events, {}, partitions=3)

    report = await create_topics(settings)

    (finding,) = [finding for finding in report.findings if finding.fatal]
    assert (finding.topic, finding.problem) == (names.events, "partitions")
    with pytest.raises(TopicMismatch, match="has 3 partitions, but TIDEMARK_PARTITIONS is 2"):
        await require_topics(settings)


@pytest.mark.parametrize(
    ("topic", "name", "value", "fatal"),
    [
        ("commands", "retention.ms", "1000000", False),
        ("commands", "retention.bytes", "1000000", False),
        ("commands", "max.message.bytes", "1000", False),
        ("commands", "cleanup.policy", "compact", True),
        ("commands", "message.timestamp.type", "LogAppendTime", False),
        ("commands", "message.timestamp.before.max.ms", "1000000", False),
        ("events", "retention.ms", "1000000", False),
        ("events", "message.timestamp.after.max.ms", "1000", False),
        ("results", "max.message.bytes", "1000", False),
        ("results", "cleanup.policy", "compact", True),
    ],
)
async def test_a_topic_that_would_lose_something_is_found(
    settings: Settings, names: TopicNames, topic: str, name: str, value: str, fatal: bool
) -> None:
    full_name = getattr(names, topic)
    right = next(spec.configs for spec in topic_specs(settings) if spec.name == full_name)
    await make(settings, full_name, right | {name: value})

    (finding,) = (await create_topics(settings)).findings

    assert (finding.topic, finding.problem, finding.fatal) == (full_name, "config", fatal)
    assert f"{full_name} has {name}={value}" in finding.text
    if not fatal:
        assert await require_topics(settings) == [finding]


async def test_how_long_replies_are_kept_is_the_operators_choice(settings: Settings, names: TopicNames) -> None:
    for topic in (names.results, names.conflicts, names.dead_letters):
        await make(settings, topic, {"retention.ms": "1000000", "max.message.bytes": str(message_bytes(settings))})

    assert (await create_topics(settings)).findings == []


async def test_higher_limits_need_larger_topics(settings: Settings) -> None:
    await create_topics(settings)

    findings = await check_topics(but(settings, max_record_bytes=2_000_000))

    assert len(findings) == 5
    assert all("max.message.bytes" in finding.text for finding in findings)


async def test_records_of_any_age_are_taken_and_commands_far_ahead_are_not(
    settings: Settings, names: TopicNames, producer: AIOKafkaProducer
) -> None:
    await create_topics(settings)

    for topic in (names.commands, names.events):
        await producer.send_and_wait(topic, b"x", timestamp_ms=FEBRUARY_2011_MS)
    await producer.send_and_wait(names.events, b"x", timestamp_ms=FAR_AHEAD_MS)
    with pytest.raises(InvalidTimestampError):
        await producer.send_and_wait(names.commands, b"x", timestamp_ms=FAR_AHEAD_MS)


def largest_event(settings: Settings) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of the event of a command at every limit."""
    name = "ü" * (settings.max_name_bytes // 2)
    event_id = "0199f2d4-9c1e-7b53-8a55-6d5f0c2f9a10"
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    half = b'"' + b"x" * (settings.max_record_bytes // 2) + b'"'
    event = RecordedEvent(
        name, 2**62, 2**62, event_id, name, 2**31 - 1, half, half, 0, 0, name, name, name, traceparent, b""
    )  # fmt: skip
    return name.encode(), half, event_headers(Log("default", 0), event)


@pytest.mark.parametrize("limits", [{}, {"max_record_bytes": 3_000_000, "max_name_bytes": 1024}])
async def test_every_event_of_an_allowed_command_fits(
    settings: Settings, names: TopicNames, producer: AIOKafkaProducer, limits: dict[str, int]
) -> None:
    settings = but(settings, **limits)
    await create_topics(settings)
    key, value, headers = largest_event(settings)

    await producer.send_and_wait(names.events, value, key, headers=headers)
    await producer.send_and_wait(names.commands, b"x" * (settings.max_record_bytes + 1000))
    await producer.send_and_wait(names.dead_letters, b"x" * (settings.max_record_bytes + 65_536))
    await producer.send_and_wait(names.results, b"x" * (settings.max_record_bytes + 39 * settings.max_events))
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(names.events, b"x" * message_bytes(settings))


async def test_what_the_broker_refuses_is_told_in_its_words(settings: Settings) -> None:
    with pytest.raises(TopicMismatch, match=r"refuses to create the topic .*replication factor"):
        await create_topics(but(settings, replication_factor=9))


async def test_copies_bring_a_minimum_of_copies_in_step() -> None:
    configs = [spec.configs for spec in topic_specs(load_settings(replication_factor=3))]

    assert {config["min.insync.replicas"] for config in configs} == {"2"}


async def test_a_broker_that_is_down_is_told_without_noise(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(brokers=f"127.0.0.1:{free_port()}", startup_timeout_s=1)

    with caplog.at_level(logging.WARNING):
        for action in (create_topics, check_topics, require_topics):
            with pytest.raises(BrokerUnreachable, match="connection refused"):
                await action(settings)

    assert caplog.records == []


async def test_one_broker_of_two_is_enough_and_makes_no_noise(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = but(settings, brokers=[f"127.0.0.1:{free_port()}", *settings.brokers])

    with caplog.at_level(logging.WARNING):
        await create_topics(settings)

    assert caplog.records == []


async def test_the_embedded_brokers_topics_are_checked_and_can_not_be_made() -> None:
    names = TopicNames.of("tidemark.", "default").all()
    with EmbeddedBroker(names[:4], partitions=2) as broker:
        settings = load_settings(brokers=broker.bootstrap, partitions=2)
        with pytest.raises(TopicMismatch, match="this broker can't create topics on request"):
            await create_topics(settings)
        broker.create_topics(names[4:])

        assert (await create_topics(settings)).existing == list(names)
        assert await require_topics(settings) == []
