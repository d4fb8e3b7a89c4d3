"""The topics: how they have to look on the broker, making them, and checking them.

Works on aiokafka's client rather than on its admin client, which asks for metadata in a way that makes missing topics
appear on brokers that create topics by themselves.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    NodeNotReadyError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from msgspec import Struct

from processor.errors import BrokerUnreachable, TopicMismatch
from processor.kafka.connection import client_options, in_words, quiet, reach_broker
from processor.names import TopicNames
from processor.settings import Settings, variable

__all__ = [
    "Finding",
    "Report",
    "TopicNames",
    "TopicSpec",
    "ask",
    "await_topics",
    "check_topics",
    "connected",
    "count_partitions",
    "create_topics",
    "message_bytes",
    "require_topics",
    "topic_specs",
]

_POLL_S = 0.1
_LOOK_AGAIN_S = 1.0
_TOPIC_RESOURCE = 2
_FOR_EVER = "-1"
_NO_LIMIT = str(2**63 - 1)
_DAY_MS = 24 * 3600 * 1000
_BROKER_DEFAULT_BYTES = 1_048_588
_ROOM_BYTES = 64 * 1024


class TopicSpec(Struct, frozen=True):
    """A topic as it should be. `configs` are Kafka's names and values."""

    name: str
    partitions: int
    replication_factor: int
    configs: dict[str, str]


class Finding(Struct, frozen=True):
    """What is wrong with a topic. `text` is a sentence with the topic's name that says what to do.

    A `fatal` one keeps a worker from starting; with any other it runs, but something will be lost or refused one day.
    """

    topic: str
    problem: Literal["missing", "hidden", "partitions", "config", "unreadable"]
    fatal: bool
    text: str


class Report(Struct, frozen=True):
    """What `create_topics` did: topics made, topics that were there, and what is wrong with these."""

    created: list[str]
    existing: list[str]
    findings: list[Finding]


def message_bytes(settings: Settings) -> int:
    """The largest batch that the topics the processor writes to take: room for any one event, reply or dead letter.

    A dead letter carries what the commands topic let through and some headers, an event the command's data and its
    names, several times and percent-encoded, and a reply up to `max_events` ids.
    """
    return _command_bytes(settings) + 40 * settings.max_events + 16 * settings.max_name_bytes + _ROOM_BYTES


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """All topics of all tenants."""
    specs = []
    for tenant in settings.tenants:
        names = TopicNames.of(settings.topic_prefix, tenant)
        for name, configs in _configs(settings, names).items():
            specs.append(TopicSpec(name, settings.partitions, settings.replication_factor, configs))
    return specs


async def create_topics(settings: Settings) -> Report:
    """Make the topics that are missing; those that are there are checked and left as they are.

    Returns when the new ones can be used. Raises `TopicMismatch` where the broker refuses one, and
    `BrokerUnreachable`.
    """
    specs = topic_specs(settings)
    async with connected(settings) as client:
        found = await _metadata(client, [spec.name for spec in specs])
        missing = [spec for spec in specs if found[spec.name].error is UnknownTopicOrPartitionError]
        existing = [spec for spec in specs if spec not in missing]
        await _create_all(client, settings, missing)
        findings = await _examine(client, existing, found)
    return Report([spec.name for spec in missing], [spec.name for spec in existing], findings)


async def check_topics(settings: Settings) -> list[Finding]:
    """Compare the topics with what they should be; nothing is changed. Raises `BrokerUnreachable`."""
    specs = topic_specs(settings)
    async with connected(settings) as client:
        return await _examine(client, specs, await _metadata(client, [spec.name for spec in specs]))


async def require_topics(settings: Settings) -> list[Finding]:
    """Check that a worker can start; the findings that are returned are worth a warning.

    Raises `TopicMismatch` where it can't, and `BrokerUnreachable`.
    """
    findings = await check_topics(settings)
    fatal = [finding for finding in findings if finding.fatal]
    if fatal:
        raise TopicMismatch(_first_of([finding.text for finding in fatal]))
    return findings


async def await_topics(settings: Settings, within_s: float) -> list[Finding]:
    """What `require_topics` says, as soon as a worker can start.

    Raises `TopicMismatch` where it still can't after `within_s` seconds, and `BrokerUnreachable`.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await require_topics(settings)
        except TopicMismatch:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOOK_AGAIN_S)


async def count_partitions(settings: Settings, names: Sequence[str]) -> dict[str, int]:
    """How many partitions topics have. Raises `TopicMismatch` where one is missing, and `BrokerUnreachable`."""
    async with connected(settings) as client:
        found = await _metadata(client, names)
    hidden = [
        f"The topic {name} can't be looked at: {in_words(topic.error)}."
        if topic.error is not UnknownTopicOrPartitionError
        else f"The topic {name} is missing: run `tidemark topics create`."
        for name, topic in found.items()
        if topic.error is not NoError
    ]
    if hidden:
        raise TopicMismatch(_first_of(hidden))
    return {name: topic.partitions for name, topic in found.items()}


# --- how they should be


def _command_bytes(settings: Settings) -> int:
    """Above the limit for commands, so that one over the limit is answered `too_large` rather than refused unseen."""
    return max(_BROKER_DEFAULT_BYTES, settings.max_record_bytes + _ROOM_BYTES)


def _configs(settings: Settings, names: TopicNames) -> dict[str, dict[str, str]]:
    # What is here is here because a broker's own default may be another, or because the default does harm.
    common = {"cleanup.policy": "delete", "compression.type": "producer"}
    if settings.replication_factor >= 3:
        # With 1, a broker that fails takes acknowledged records with it, and the feed has a hole.
        common["min.insync.replicas"] = "2"
    written = common | {"max.message.bytes": str(message_bytes(settings))}
    kept = {
        # The commands are what a store can be rebuilt from, the feed what a new consumer starts with.
        "retention.ms": _FOR_EVER,
        "retention.bytes": _FOR_EVER,
        # Commands and events carry the client's time, which may be years back.
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": _NO_LIMIT,
        # Kafka begins a new segment when a record's time is this far from the segment's first: a history of years
        # that is loaded in an hour would make hundreds of files per partition. Their size alone decides.
        "segment.ms": _NO_LIMIT,
    }
    # One timestamp far ahead would move the log's clock, and every remembered refusal would expire.
    commands = {"max.message.bytes": str(_command_bytes(settings)), "message.timestamp.after.max.ms": "3600000"}
    # An event has the time of a command that was let in: if the feed refused it, its partition would stand still.
    events = {"message.timestamp.after.max.ms": _NO_LIMIT}
    # A reply can be had again by sending the command again; a dead letter says where the original stands.
    replies = {"retention.ms": str(7 * _DAY_MS)}
    dead_letters = {"retention.ms": str(30 * _DAY_MS)}
    return {
        names.commands: common | kept | commands,
        names.results: written | replies,
        names.conflicts: written | replies,
        names.events: written | kept | events,
        names.dead_letters: written | dead_letters,
    }


# --- comparing

_AT_LEAST = {
    "max.message.bytes": "records that the limits allow will be refused",
    "message.timestamp.before.max.ms": "older records will be refused",
    "message.timestamp.after.max.ms": "events of commands with a time ahead will be refused",
    "min.insync.replicas": "a broker that fails takes acknowledged records with it",
}
_EXACTLY = {
    "cleanup.policy": "records will be lost",
    "retention.ms": "old records are deleted, and a store can't be rebuilt from what is left",
    "retention.bytes": "old records are deleted, and a store can't be rebuilt from what is left",
    "message.timestamp.type": "the time that the client gave is lost",
}


class _Found(Struct, frozen=True):
    """A topic in the cluster's metadata."""

    error: type[KafkaError]
    partitions: int
    has_leaders: bool


async def _examine(client: AIOKafkaClient, specs: Sequence[TopicSpec], found: Mapping[str, _Found]) -> list[Finding]:
    present = [spec for spec in specs if found[spec.name].error is NoError]
    findings = [finding for spec in specs for finding in _compare(spec, found[spec.name])]
    configs = await _described(client, present)
    for spec in present:
        actual = configs.get(spec.name, {})
        if isinstance(actual, str):
            text = f"The settings of the topic {spec.name} can't be read: {actual}."
            findings.append(Finding(spec.name, "unreadable", fatal=False, text=text))
        else:
            findings += _compare_configs(spec, actual)
    return findings


def _compare(spec: TopicSpec, found: _Found) -> Iterator[Finding]:
    if found.error is UnknownTopicOrPartitionError:
        text = f"The topic {spec.name} is missing: run `tidemark topics create`."
        yield Finding(spec.name, "missing", fatal=True, text=text)
    elif found.error is not NoError:
        hint = " `tidemark topics acls` prints the rules that an account needs."
        text = f"The topic {spec.name} can't be looked at: {in_words(found.error)}."
        text += hint if found.error is TopicAuthorizationFailedError else ""
        yield Finding(spec.name, "hidden", fatal=True, text=text)
    elif found.partitions != spec.partitions:
        text = (
            f"The topic {spec.name} has {found.partitions} partitions, but {variable('partitions')} is "
            f"{spec.partitions}: set it to what the store was made with, or make the topic anew if it is empty."
        )
        yield Finding(spec.name, "partitions", fatal=True, text=text)


def _compare_configs(spec: TopicSpec, actual: Mapping[str, str]) -> Iterator[Finding]:
    for name, wanted in spec.configs.items():
        value = actual.get(name, wanted)
        if name in _AT_LEAST and int(value) < int(wanted):
            yield _config_finding(spec, name, value, f"at least {wanted}", _AT_LEAST[name])
        # How long replies are kept is the operator's choice; that the log and the feed are kept is not.
        elif name in _EXACTLY and value != wanted and (wanted == _FOR_EVER or not name.startswith("retention.")):
            yield _config_finding(spec, name, value, wanted, _EXACTLY[name])


def _config_finding(spec: TopicSpec, name: str, value: str, wanted: str, harm: str) -> Finding:
    text = f"The topic {spec.name} has {name}={value}, which should be {wanted}, or {harm}."
    return Finding(spec.name, "config", fatal=name == "cleanup.policy", text=text)


# --- asking the broker


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AIOKafkaClient]:
    """A client that has found the cluster. What fails within is raised as `BrokerUnreachable`."""
    await reach_broker(settings)
    options = client_options(settings) | {"request_timeout_ms": settings.startup_timeout_s * 1000}
    client = AIOKafkaClient(**options)
    try:
        with quiet():
            await client.bootstrap()
            yield client
    except NodeNotReadyError as error:
        advertised = ", ".join(f"{broker.host}:{broker.port}" for broker in client.cluster.brokers())
        addresses = ", ".join(settings.brokers)
        text = f"{addresses} answers, but not the address that it tells clients to use: {advertised}."
        raise BrokerUnreachable(text) from error
    except (KafkaError, TimeoutError) as error:
        text = f"The broker at {', '.join(settings.brokers)} did not answer a request: {in_words(type(error))}."
        raise BrokerUnreachable(text) from error
    finally:
        await client.close()


async def ask(client: AIOKafkaClient, request: Any) -> Any:
    """Ask the controller if it can be reached, or else another broker; each passes the request on."""
    controller = client.cluster.controller
    nodes = sorted(client.cluster.brokers(), key=lambda broker: broker != controller)
    for node in nodes:
        if await client.ready(node.nodeId):
            return await client.send(node.nodeId, request)
    raise NodeNotReadyError


async def _metadata(client: AIOKafkaClient, names: Sequence[str]) -> dict[str, _Found]:
    response = await ask(client, MetadataRequest(list(names), allow_auto_topic_creation=False))
    found = {}
    for topic in response.to_object()["topics"]:
        partitions = topic["partitions"]
        has_leaders = all(partition["leader"] >= 0 for partition in partitions)
        found[topic["topic"]] = _Found(for_code(topic["error_code"]), len(partitions), has_leaders)
    return found


async def _described(client: AIOKafkaClient, specs: Sequence[TopicSpec]) -> dict[str, dict[str, str] | str]:
    """The configs of each topic, or in words why they can't be read; nothing where a broker has no such request."""
    if not specs:
        return {}
    resources = [(_TOPIC_RESOURCE, spec.name, list(spec.configs)) for spec in specs]
    try:
        response = await ask(client, DescribeConfigsRequest(resources=resources, include_synonyms=False))
    except IncompatibleBrokerVersion:
        return {}
    described: dict[str, dict[str, str] | str] = {}
    for code, message, _, name, entries in response.resources:
        error = for_code(code)
        described[name] = {entry[0]: entry[1] for entry in entries} if error is NoError else message or in_words(error)
    return described


async def _create_all(client: AIOKafkaClient, settings: Settings, specs: Sequence[TopicSpec]) -> None:
    deadline = time.monotonic() + settings.startup_timeout_s
    # One at a time: a controller refuses a request that makes some 10,000 partitions at once.
    refused = [text for spec in specs if (text := await _create(client, spec, deadline)) is not None]
    if refused:
        raise TopicMismatch(_first_of(refused))
    await _wait_until_usable(client, [spec.name for spec in specs], deadline)


async def _create(client: AIOKafkaClient, spec: TopicSpec, deadline: float) -> str | None:
    """Create one topic; returns why not."""
    timeout_ms = max(1_000, int((deadline - time.monotonic()) * 1000))
    topic: Any = (spec.name, spec.partitions, spec.replication_factor, [], list(spec.configs.items()))
    request = CreateTopicsRequest(create_topic_requests=[topic], timeout=timeout_ms, validate_only=False)
    while True:
        try:
            response = await ask(client, request)
        except IncompatibleBrokerVersion:
            return f"The topic {spec.name} is missing, and this broker can't create topics on request."
        _, code, message = response.topic_errors[0]
        error = for_code(code)
        # Somebody else may have been quicker, or an earlier try of ours that was not answered in time.
        if error is NoError or error is TopicAlreadyExistsError:
            return None
        if not error.retriable or time.monotonic() > deadline:
            return f"The broker refuses to create the topic {spec.name}: {(message or in_words(error)).rstrip('.')}."
        await asyncio.sleep(_POLL_S)


async def _wait_until_usable(client: AIOKafkaClient, names: Sequence[str], deadline: float) -> None:
    """A broker hears of a new topic a moment after the controller; a worker that asks it too early would not start."""
    while names:
        found = await _metadata(client, names)
        names = [name for name in names if not _usable(found[name])]
        if names and time.monotonic() > deadline:
            raise BrokerUnreachable(f"New topics are not usable yet, run the same again later: {', '.join(names)}.")
        await asyncio.sleep(_POLL_S if names else 0)


def _usable(found: _Found) -> bool:
    return found.error is NoError and found.partitions > 0 and found.has_leaders


def _first_of(texts: Sequence[str]) -> str:
    """One line for many: topics that are wrong are mostly wrong in the same way."""
    return texts[0] if len(texts) == 1 else f"{texts[0]} The same, or other faults, in {len(texts) - 1} more topics."
