"""What each account can do at a broker that looks at access rules, and nothing more."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from typer.testing import CliRunner

from processor.cli import app
from processor.client import Accepted, Client, Event
from processor.errors import SettingsError
from processor.kafka.acls import client_acls, commands, reader_acls, worker_acls
from processor.kafka.connection import client_options
from processor.settings import load_settings
from processor.worker import Worker
from tests.pipeline.conftest import settled
from tests.security.accounts import ACCOUNTS, Accounts

_TIMEOUT_S = 10
_DENIED = {
    KafkaError._NOENT,  # librdkafka's own word for the partitions of a topic that it is not shown
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


@asynccontextmanager
async def served(accounts: Accounts) -> AsyncIterator[None]:
    worker = Worker(accounts.settings("worker"))
    task = asyncio.create_task(worker.run())
    try:
        await settled(worker, task)
        yield
    finally:
        worker.stop()
        await task


# --- what they can


async def test_everybody_does_his_job(accounts: Accounts) -> None:
    async with served(accounts):
        async with Client(accounts.settings("shop")) as shop:
            assert isinstance(await shop.append("order-1", [Event("Placed")]), Accepted)
        assert (await asked(accounts, "order-1"))["outcome"] == "accepted"
        async with Client(accounts.settings("reports"), tenant="acme") as reports:
            assert [event.stream async for event in reports.events(follow=False)] == ["order-1"]
        for arguments in (["topics", "check"], ["stats"], ["doctor"], ["verify"]):
            looked = await asyncio.to_thread(
                CliRunner().invoke, app, arguments, env=accounts.environment("operator")
            )  # fmt: skip
            assert looked.exit_code == 0, looked.output


async def asked(accounts: Accounts, stream: str) -> dict[str, str]:
    """What client `acme` is answered on its own reply topic, which it reads in a group of its own."""
    options = client_options(accounts.settings("acme"))
    command = {"stream": stream, "events": [{"type": "Placed"}]}
    consumer = AIOKafkaConsumer(accounts.replies, **options, group_id="acme", auto_offset_reset="earliest")
    producer = AIOKafkaProducer(**options, enable_idempotence=True)
    await asyncio.gather(consumer.start(), producer.start())
    try:
        headers = [("reply_to", accounts.replies.encode())]
        value = json.dumps(command).encode()
        await producer.send_and_wait(accounts.acme.commands, value, stream.encode(), headers=headers)
        reply: dict[str, str] = json.loads((await asyncio.wait_for(consumer.getone(), _TIMEOUT_S)).value)
        return reply
    finally:
        await producer.stop()
        await consumer.stop()


# --- and nothing more


def everything(accounts: Accounts) -> set[str]:
    return {*accounts.default.all(), *accounts.acme.all(), accounts.replies}


def test_accounts_write_where_they_may_and_nowhere_else(accounts: Accounts) -> None:
    default, acme = accounts.default, accounts.acme
    may = {
        "worker": everything(accounts) - {default.commands, acme.commands},
        "operator": {default.events, acme.events},
        "shop": {default.commands},
        "acme": {acme.commands},
        "reports": set(),
        "stranger": set(),
    }
    for account in ACCOUNTS:
        codes: dict[str, int | None] = {}

        def told(error: KafkaError | None, message: Any, codes: dict[str, int | None] = codes) -> None:
            codes[message.topic()] = error.code() if error is not None else None

        producer = Producer({**accounts.librdkafka(account), "message.timeout.ms": _TIMEOUT_S * 1000})
        for topic in everything(accounts):
            producer.produce(topic, b"{}", on_delivery=told)
        assert producer.flush(_TIMEOUT_S) == 0
        assert {topic for topic, code in codes.items() if code is None} == may[account], account
        assert set(codes.values()) <= {None, KafkaError.TOPIC_AUTHORIZATION_FAILED}


def test_accounts_read_what_they_may_and_nothing_else(accounts: Accounts) -> None:
    default, acme = accounts.default, accounts.acme
    may = {
        "worker": {default.commands, default.events, acme.commands, acme.events},
        "operator": everything(accounts) - {accounts.replies},
        "shop": {default.results, default.conflicts},
        "acme": {accounts.replies},
        "reports": {acme.events},
        "stranger": set(),
    }
    for account in ACCOUNTS:
        assert readable(accounts, account) == may[account], account


def readable(accounts: Accounts, account: str) -> set[str]:
    consumer = Consumer({**accounts.librdkafka(account), "group.id": "none", "enable.partition.eof": True})
    # A topic of which an account may not even know can't be read; of the others a fetch tells.
    known = everything(accounts) & consumer.list_topics(timeout=_TIMEOUT_S).topics.keys()
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in known])
    verdicts: dict[str, bool] = {}
    try:
        while len(verdicts) < len(known):
            message = consumer.poll(_TIMEOUT_S)
            assert message is not None, f"{account}: no verdict on {known - verdicts.keys()}"
            error = message.error()
            if error is None or error.code() in {KafkaError._PARTITION_EOF, KafkaError.TOPIC_AUTHORIZATION_FAILED}:
                verdicts[str(message.topic())] = error is None or error.code() == KafkaError._PARTITION_EOF
    finally:
        consumer.close()
    return {topic for topic, let_in in verdicts.items() if let_in}


async def test_accounts_are_in_their_group_and_in_no_other(accounts: Accounts) -> None:
    may = {"worker": {accounts.group}, "operator": {accounts.group}, "acme": {"acme"}, "reports": {"reports"}}
    for account in ACCOUNTS:
        admin = AIOKafkaAdminClient(**client_options(accounts.settings(account)))
        await admin.start()
        let_in = set()
        for group in (accounts.group, "acme", "reports", "some"):
            [response] = await admin.describe_consumer_groups([group], group_coordinator_id=1)
            [(error_code, *_)] = response.groups
            if error_code != KafkaError.GROUP_AUTHORIZATION_FAILED:
                let_in.add(group)
        await admin.close()
        assert let_in == may.get(account, set()), account


def test_nobody_changes_topics_or_rules(accounts: Accounts) -> None:
    topic = accounts.acme.commands
    allow, exact = AclPermissionType.ALLOW, ResourcePatternType.LITERAL
    rule = AclBinding(ResourceType.TOPIC, topic, exact, "User:acme", "*", AclOperation.ALL, allow)
    entry = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    deeds: list[Callable[[AdminClient], Mapping[Any, Any]]] = [
        lambda admin: admin.delete_topics([topic]),
        lambda admin: admin.create_topics([NewTopic("another", 1, 1)]),
        lambda admin: admin.create_partitions([NewPartitions(topic, 64)]),
        lambda admin: admin.incremental_alter_configs(
            [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])]
        ),
        lambda admin: admin.delete_records([TopicPartition(topic, 0, 0)]),
        lambda admin: admin.create_acls([rule]),
        lambda admin: admin.delete_consumer_groups([accounts.group]),
    ]
    for account in ACCOUNTS:
        admin = AdminClient(accounts.librdkafka(account))
        for deed in deeds:
            for done in deed(admin).values():
                with pytest.raises(KafkaException) as refused:
                    done.result(_TIMEOUT_S)
                assert refused.value.args[0].code() in _DENIED, (account, refused.value)


async def test_a_client_is_told_that_a_topic_is_not_its_own(accounts: Accounts) -> None:
    for account, tenant in (("shop", "acme"), ("reports", "acme"), ("stranger", "default")):
        sent = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["send", "-", "--tenant", tenant],
            input='{"stream": "order-1", "events": [{"type": "Placed"}]}\n',
            env=accounts.environment(account),
        )
        assert sent.exit_code in (1, 2), sent.output
        assert "authorization failed" in sent.stderr or "may not write" in sent.stderr
        assert len(sent.stderr.strip().splitlines()) <= 2
        assert "Traceback" not in sent.stderr


# --- what is printed


def test_the_rules_are_lines_for_kafka_s_own_tool() -> None:
    settings = load_settings(tenants="acme", reply_topics="replies", topic_prefix="")

    assert list(commands(client_acls(settings, "acme", "CN=shop, O=a b", "replies"), ["b:1"])) == [
        "kafka-acls.sh --bootstrap-server b:1 --command-config admin.properties --add --allow-principal "
        f"'User:CN=shop, O=a b' --operation {operation} --{what} {name} --resource-pattern-type literal"
        for operation, what, name in (
            ("READ", "group", "'CN=shop, O=a b'"),
            ("WRITE", "topic", "acme.commands"),
            ("READ", "topic", "replies"),
        )
    ]


@pytest.mark.parametrize("pattern", ["a?b*", "*-replies", "a[bc]"])
def test_a_pattern_that_rules_can_not_say_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="which Kafka's rules can't say"):
        worker_acls(load_settings(reply_topics=pattern), "w")


def test_no_reply_goes_where_the_list_does_not_allow_it() -> None:
    with pytest.raises(SettingsError, match="does not allow 'other'"):
        client_acls(load_settings(reply_topics="replies-*"), "default", "c", "other")


def test_a_reader_is_not_let_into_the_workers_group() -> None:
    with pytest.raises(SettingsError, match="which only they may join"):
        reader_acls(load_settings(), "default", "tidemark")


@pytest.mark.parametrize(
    "arguments", [[], ["--client", "shop"], ["--reader", "default:x=r"], ["--client", "other=shop"]]
)
def test_accounts_that_can_not_be_read_are_told(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["topics", "acls", *arguments])

    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
