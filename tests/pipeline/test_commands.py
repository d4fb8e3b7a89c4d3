"""Whatever is on the commands topic gets its outcome, on every store, and what is accepted comes out on the feed."""

import asyncio
import json
from collections import Counter
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from processor.codec import decode_outcome
from processor.kafka.topics import create_topics
from processor.messages import Accepted, Conflict, Duplicate, Outcome, Rejected
from processor.names import TopicNames
from processor.partition import partition_of
from tests.pipeline.conftest import PARTITIONS, Pipeline

Sent = tuple[bytes | None, bytes | None]


def command(stream: str, *types: str, **fields: object) -> Sent:
    events = [{"type": name, "event_id": str(uuid4()), "data": {"type": name}} for name in types]
    return stream.encode(), json.dumps({"stream": stream, "events": events, **fields}).encode()


def plain(value: bytes | None, key: bytes | None = b"order-1") -> Sent:
    return key, value


def with_events(events: str) -> Sent:
    return plain(b'{"stream":"order-1","events":[%s]}' % events.encode())


async def answered(pipeline: Pipeline, *commands: Sent) -> list[Outcome]:
    """The outcomes, in order, of commands that are sent one after the other to a worker."""
    async with pipeline.worker():
        places = await pipeline.send(*commands)
        outcomes = await pipeline.outcomes(len(commands))
    return [outcomes[place] for place in places]


async def test_each_kind_of_outcome_reaches_its_topic_and_the_feed_carries_the_events(pipeline: Pipeline) -> None:
    first = command("order-1", "Placed", "Paid", expected_version=0)
    outcomes = await answered(
        pipeline,
        first,
        command("order-1", "Shipped", expected_version=2, correlation_id="c", causation_id="d"),
        first,
        command("order-1", "Shipped", expected_version=2, command_id="id-1"),
        plain(b"{"),
    )
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted, Duplicate, Conflict, Rejected]
    placed, shipped, repeated, refused, _ = outcomes
    assert isinstance(placed, Accepted) and (placed.first_version, placed.last_version) == (1, 2)
    assert isinstance(shipped, Accepted) and (shipped.first_version, shipped.first_position) == (3, 3)
    assert isinstance(repeated, Duplicate) and (repeated.first_position, repeated.last_position) == (1, 2)
    assert isinstance(refused, Conflict) and (refused.expected_version, refused.actual_version) == (2, 3)

    feed = await pipeline.records(pipeline.names.events)
    assert [dict(record.headers)["ce_position"] for record in feed] == [b"1", b"2", b"3"]
    assert [record.key for record in feed] == [b"order-1"] * 3
    assert {record.partition for record in feed} == {partition_of(b"order-1", PARTITIONS)}
    last = dict(feed[-1].headers)
    assert (last["ce_correlationid"], last["ce_causationid"]) == (b"c", b"d")
    assert feed[-1].value == b'{"type": "Shipped"}'


BAD = {
    "not UTF-8": (plain(b'{"stream":"order-1","events":[{"type":"\xff"}]}'), "malformed"),
    "not JSON": (plain(b"hello"), "malformed"),
    "other JSON": (plain(b"[1,2]"), "malformed"),
    "tombstone": (plain(None), "malformed"),
    "NaN": (with_events('{"type":"t","data":NaN}'), "malformed"),
    "unknown field": (plain(b'{"stream":"order-1","events":[{"type":"t"}],"expected_verison":1}'), "invalid"),
    "deeply nested": (with_events('{"type":"t","data":' + "[" * 5_000 + "]" * 5_000 + "}"), "too_large"),
    "null key": (plain(b'{"stream":"order-1","events":[{"type":"t"}]}', None), "wrong_key"),
    "wrong key": (plain(b'{"stream":"order-2","events":[{"type":"t"}]}'), "wrong_key"),
    "a record of 1 MB": (with_events('{"type":"t","data":"' + "x" * 1_000_000 + '"}'), "too_large"),
    "a name of 10 KB": (with_events('{"type":"' + "x" * 10_240 + '"}'), "too_large"),
    "version below 0": (plain(b'{"stream":"order-1","events":[{"type":"t"}],"expected_version":-1}'), "invalid"),
    "version of 2^63": (
        plain(b'{"stream":"order-1","events":[{"type":"t"}],"expected_version":9223372036854775808}'),
        "invalid",
    ),
    "an id twice": (
        with_events(",".join(['{"type":"t","event_id":"0199f2d4-9c1e-7b53-8a55-6d5f0c2f9a10"}'] * 2)),
        "invalid",
    ),
}


async def test_bad_input_gets_its_outcome_and_the_next_command_is_decided_as_if_nothing_had_happened(
    pipeline: Pipeline,
) -> None:
    partition = partition_of(b"order-1", PARTITIONS)
    async with pipeline.worker():
        for sent, _ in BAD.values():
            await pipeline.send(sent, partition=partition)
        await pipeline.send(command("order-1", "Placed", expected_version=0))
        outcomes = list((await pipeline.outcomes(len(BAD) + 1)).values())
        dead = await pipeline.records(pipeline.names.dead_letters)
    outcomes.sort(key=lambda outcome: outcome.offset)
    found = [outcome.reason if isinstance(outcome, Rejected) else type(outcome).__name__ for outcome in outcomes]
    assert dict(zip(BAD, found, strict=False)) == {name: reason for name, (_, reason) in BAD.items()}
    assert found[-1] == "Accepted"

    malformed = [sent for sent, reason in BAD.values() if reason == "malformed"]
    assert [(letter.key, letter.value) for letter in dead] == malformed
    headers = dict(dead[0].headers)
    assert headers["tidemark_reason"] == b"malformed"
    assert headers["tidemark_topic"] == pipeline.names.commands.encode()
    assert (headers["tidemark_partition"], headers["tidemark_offset"]) == (b"%d" % partition, b"0")


async def test_a_tombstone_without_a_key_is_a_dead_letter(sqlite_pipeline: Pipeline) -> None:
    async with sqlite_pipeline.worker():
        # The producer refuses a record with neither, other clients don't: an empty value stands for it here.
        await sqlite_pipeline.send((None, b""))
        await sqlite_pipeline.outcomes(1)
        (letter,) = await sqlite_pipeline.records(sqlite_pipeline.names.dead_letters)
    assert (letter.key, letter.value) == (None, b"")


async def test_a_partitioner_that_is_not_kafkas_is_named(sqlite_pipeline: Pipeline) -> None:
    wrong = (partition_of(b"order-1", PARTITIONS) + 1) % PARTITIONS
    async with sqlite_pipeline.worker():
        await sqlite_pipeline.send(command("order-1", "Placed"), partition=wrong)
        (outcome,) = (await sqlite_pipeline.outcomes(1)).values()
    assert isinstance(outcome, Rejected) and outcome.reason == "wrong_partition"
    assert "murmur2" in outcome.detail


async def test_a_thousand_events_in_one_command_are_one_append(pipeline: Pipeline) -> None:
    (outcome,) = await answered(pipeline, command("order-1", *["Counted"] * 1_000))
    assert isinstance(outcome, Accepted)
    assert (outcome.first_version, outcome.last_version) == (1, 1_000)
    assert len(await pipeline.records(pipeline.names.events)) == 1_000


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_commands_compressed_by_their_producer_are_read(sqlite_pipeline: Pipeline, codec: str) -> None:
    key, value = command("order-1", "Placed")
    async with sqlite_pipeline.worker(), sqlite_pipeline.producer(compression_type=codec) as producer:
        await producer.send_and_wait(sqlite_pipeline.names.commands, value, key)
        (outcome,) = (await sqlite_pipeline.outcomes(1)).values()
    assert isinstance(outcome, Accepted)


async def test_commands_of_an_aborted_transaction_are_not_carried_out(sqlite_pipeline: Pipeline) -> None:
    names = sqlite_pipeline.names
    async with sqlite_pipeline.worker(), sqlite_pipeline.producer(transactional_id=f"{names.commands}-tx") as producer:
        key, value = command("order-1", "Aborted")
        await producer.begin_transaction()
        await producer.send_and_wait(names.commands, value, key)
        await producer.abort_transaction()
        key, value = command("order-1", "Committed", expected_version=0)
        async with producer.transaction():
            await producer.send_and_wait(names.commands, value, key)
        (outcome,) = (await sqlite_pipeline.outcomes(1)).values()
    assert isinstance(outcome, Accepted) and outcome.first_version == 1


class TestReplyTopic:
    async def replies(
        self, pipeline: Pipeline, topic: str, headers: list[tuple[str, bytes]]
    ) -> list[tuple[int, Outcome]]:
        key, value = command("order-1", "Placed")
        async with pipeline.worker(), pipeline.producer() as producer:
            await producer.send_and_wait(pipeline.names.commands, value, key, headers=headers)
            await pipeline.outcomes(1)
        return [(record.partition, decode_outcome(record.value)) for record in await pipeline.records(topic)]

    async def test_one_on_the_list_gets_the_reply_as_well(self, sqlite_pipeline: Pipeline) -> None:
        own = sqlite_pipeline.names.dead_letters  # a topic that exists, under a name of its own
        target = f"{sqlite_pipeline.settings.topic_prefix}answers"
        pipeline = sqlite_pipeline.with_(reply_topics="*.answers")
        await create_topic(pipeline, target)
        found = await self.replies(
            pipeline, target, [("reply_to", target.encode()), ("kafka_replyPartition", (2).to_bytes(4, "big"))]
        )
        assert [(partition, type(outcome)) for partition, outcome in found] == [(2, Accepted)]
        assert own != target

    async def test_the_correlation_id_comes_back_byte_for_byte(self, sqlite_pipeline: Pipeline) -> None:
        await self.replies(
            sqlite_pipeline, sqlite_pipeline.names.results, [("kafka_correlationId", b"\x00\xff"), ("other", b"x")]
        )
        (reply,) = await sqlite_pipeline.records(sqlite_pipeline.names.results)
        assert list(reply.headers) == [("kafka_correlationId", b"\x00\xff")]

    @pytest.mark.parametrize("kind", ["unknown", "events", "commands"])
    async def test_one_that_is_not_allowed_is_refused_and_the_command_decided(
        self, sqlite_pipeline: Pipeline, kind: str
    ) -> None:
        pipeline = sqlite_pipeline.with_(reply_topics="allowed-*")
        target = {"unknown": "elsewhere", "events": pipeline.names.events, "commands": pipeline.names.commands}[kind]
        found = await self.replies(pipeline, pipeline.names.results, [("reply_to", target.encode())])
        assert [outcome.reply_refused for _, outcome in found] == [True]
        assert len(await pipeline.records(pipeline.names.commands)) == 1
        assert len(await pipeline.records(pipeline.names.events)) == 1

    async def test_one_that_does_not_exist_holds_nothing_up(self, sqlite_pipeline: Pipeline) -> None:
        pipeline = sqlite_pipeline.with_(reply_topics="*")
        async with pipeline.worker(), pipeline.producer() as producer:
            for number in range(3):
                key, value = command("order-1", f"Event{number}")
                await producer.send_and_wait(
                    pipeline.names.commands, value, key, headers=[("reply_to", b"no-such-topic")]
                )
            outcomes = await pipeline.outcomes(3)
        assert [type(outcome) for outcome in outcomes.values()] == [Accepted] * 3


async def create_topic(pipeline: Pipeline, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.settings.brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 3, 1)])
    finally:
        await admin.close()


async def test_a_dead_letter_that_no_topic_could_take_is_cut_and_says_so(sqlite_pipeline: Pipeline) -> None:
    names = sqlite_pipeline.names
    large = [("huge", b"x" * 900_000)] * 3
    async with (
        sqlite_pipeline.worker(),
        sqlite_pipeline.producer(compression_type="gzip", max_request_size=10_000_000) as producer,
    ):
        await producer.send_and_wait(names.commands, b"{", b"order-1", headers=[*large, ("correlation_id", b"c")])
        await producer.send_and_wait(names.commands, b"{", b"order-1", headers=[("correlation_id", b"x" * 3_000_000)])
        await producer.send_and_wait(names.commands, None, b"k" * 5_000_000, partition=0)
        outcomes = await sqlite_pipeline.outcomes(3)
        dead = await sqlite_pipeline.records(names.dead_letters)
    assert {outcome.reason for outcome in outcomes.values() if isinstance(outcome, Rejected)} == {"malformed"}
    cuts = Counter(dict(letter.headers)["tidemark_cut"] for letter in dead)
    assert cuts == {b"headers": 2, b"headers,key,value": 1}


async def test_tenants_have_topics_versions_and_ids_of_their_own(pipeline: Pipeline) -> None:
    both = pipeline.with_(tenants="default,acme")
    await create_topics(both.settings)
    key, value = command("order-1", "Placed", expected_version=0)
    acme = TopicNames.of(both.settings.topic_prefix, "acme")
    async with both.worker(), both.producer() as producer:
        for topic in (both.names.commands, acme.commands):
            await producer.send_and_wait(topic, value, key)
        await until_on(both, both.names.results, 1)
        await until_on(both, acme.results, 1)
    replies = [decode_outcome(record.value) for record in await both.records(acme.results)]
    assert [(reply.tenant, type(reply)) for reply in replies] == [("acme", Accepted)]
    (fed,) = await both.records(acme.events)
    headers = dict(fed.headers)
    assert (headers["ce_source"], headers["ce_tenant"]) == (b"/tidemark/acme/order-1", b"acme")
    assert (headers["ce_position"], headers["ce_streamversion"]) == (b"1", b"1")


async def until_on(pipeline: Pipeline, topic: str, count: int) -> None:
    """Wait until a topic has so many records."""
    async with asyncio.timeout(20):
        while len(await pipeline.records(topic)) < count:
            await asyncio.sleep(0.05)
