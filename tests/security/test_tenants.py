"""Tenants share nothing: not ids, streams, refusals, replies or feeds, whatever the store."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from processor.cli import app
from processor.names import TopicNames
from processor.stores.migrate import upgrade
from tests.pipeline.conftest import PARTITIONS, Pipeline, made
from tests.records import command, event, event_id
from tests.servers import Kafka

COMMAND = "0199f2d4-9c1e-7000-8000-000000000001"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def tenants(
    request: pytest.FixtureRequest, real_kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> tuple[Pipeline, Pipeline]:
    """One store, one worker's settings; the second one sends and reads as tenant acme."""
    store = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/tidemark.db"}.get(request.param)
    if store is None:
        store = str(request.getfixturevalue("postgres_url"))
        upgrade(store, partitions=PARTITIONS)
    default = await made(
        real_kafka, topic_prefix, store, tenants=["default", "acme"], reply_topics=[f"{topic_prefix}*s"]
    )
    acme = Pipeline(default.settings)
    acme.names = TopicNames.of(topic_prefix, "acme")
    return default, acme


def as_record(value: dict[str, object]) -> tuple[bytes, bytes]:
    return str(value["stream"]).encode(), json.dumps(value).encode()


async def test_tenants_share_nothing(tenants: tuple[Pipeline, Pipeline]) -> None:
    default, acme = tenants
    first = as_record(command(event(1, data={"of": "default"}), stream="order-1"))
    same_ids = as_record(command(event(1, data={"of": "acme"}), stream="order-1"))
    refused = as_record(command(event(2), stream="order-1", expected_version=7, command_id=COMMAND))
    same_command = as_record(command(event(3), stream="order-1", expected_version=1, command_id=COMMAND))
    async with default.worker():
        await default.send(first, refused, headers=[("reply_to", acme.names.results.encode())])
        await acme.send(same_ids, same_command)
        answers = {name: await tenant.outcomes(2) for name, tenant in (("default", default), ("acme", acme))}
    feeds = {name: await tenant.records(tenant.names.events) for name, tenant in (("default", default), ("acme", acme))}

    # With the same ids, other content is no reuse; a refusal of one tenant is not remembered for the other.
    assert [type(outcome).__name__ for outcome in answers["default"].values()] == ["Accepted", "Conflict"]
    assert [type(outcome).__name__ for outcome in answers["acme"].values()] == ["Accepted", "Accepted"]
    # The reply topic is one of acme's: the outcomes are acme's own and no more.
    assert len(await acme.records(acme.names.results)) == 2
    assert all(outcome.reply_refused for outcome in answers["default"].values())
    assert all(outcome.tenant == name for name, found in answers.items() for outcome in found.values())
    for name, count in (("default", 1), ("acme", 2)):
        headers = [dict(record.headers) for record in feeds[name]]
        assert {header["ce_tenant"] for header in headers} == {name.encode()}
        assert [header["ce_position"] for header in headers] == [b"%d" % (n + 1) for n in range(count)]
        assert headers[0]["ce_id"].decode() == event_id(1)
        shown = await asyncio.to_thread(read, default, name, "order-1")
        assert shown[0]["data"] == {"of": name}
        assert len(shown) == count


def read(pipeline: Pipeline, tenant: str, stream: str) -> list[dict[str, object]]:
    """What the command line shows of a stream to who asks for a tenant."""
    settings = pipeline.settings
    environment = {
        "TIDEMARK_BROKERS": settings.brokers[0],
        "TIDEMARK_STORE": settings.store,
        "TIDEMARK_TOPIC_PREFIX": settings.topic_prefix,
        "TIDEMARK_PARTITIONS": str(settings.partitions),
        "TIDEMARK_TENANTS": "default,acme",
    }
    result = CliRunner().invoke(app, ["read", stream, "--tenant", tenant, "--output", "json"], env=environment)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]
