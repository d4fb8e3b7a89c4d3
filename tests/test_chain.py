"""The hash chain, recomputed by hand from what `docs/contract.md` says."""

import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, fields, replace

from processor.chain import event_hash, fingerprint, genesis, payload_digest
from processor.decide import event_ids
from processor.messages import Command, Log, NewEvent, RecordedEvent
from tests.records import SomeRecord, record

CONTRACT = Path(__file__).parents[1].joinpath("docs", "contract.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```sh\n(printf .*?)```\n\n```text\n(\w+)\n```", CONTRACT, re.DOTALL)

DOCUMENTED = RecordedEvent(
    stream="order-42",
    version=1,
    position=1,
    event_id="0199f2d4-9c1e-7b53-8a55-6d5f0c2f9a10",
    type="OrderShipped",
    schema_version=1,
    data=b'{"carrier":"DHL"}',
    metadata=b'{"user":"u-7"}',
    time_ms=1_760_000_000_000,
    offset=1284,
    command_id="0199f2d4-9c1e-7000-8000-000000000001",
    correlation_id=None,
    causation_id=None,
    traceparent=None,
    hash=b"",
)
FULL = replace(DOCUMENTED, correlation_id="k-é", causation_id="a-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")


def by_hand(previous: bytes, event: RecordedEvent) -> bytes:
    """The hash of an event, as the contract describes it."""
    payload = sha256(str(len(event.data)).encode() + b"\n" + event.data + event.metadata).hexdigest()
    lines = [
        previous.hex(),
        payload,
        str(event.position),
        event.stream,
        str(event.version),
        event.event_id,
        event.type,
        str(event.schema_version),
        str(event.time_ms),
        str(event.offset),
        event.command_id or "",
        event.correlation_id or "",
        event.causation_id or "",
        event.traceparent or "",
    ]
    return sha256("".join(line + "\n" for line in lines).encode()).digest()


def chained(previous: bytes, event: RecordedEvent) -> bytes:
    return event_hash(previous, payload_digest(event.data, event.metadata), event)


def test_the_contracts_example_is_what_the_code_computes() -> None:
    first = genesis(Log("default", 0))
    digest = payload_digest(DOCUMENTED.data, DOCUMENTED.metadata)
    computed = [first, digest, event_hash(first, digest, DOCUMENTED)]
    assert [shown for _, shown in EXAMPLE] == [it.hex() for it in computed]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_the_contracts_example_is_what_sha256sum_computes() -> None:
    assert len(EXAMPLE) == 3
    for script, shown in EXAMPLE:
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == shown


def test_the_contracts_derived_ids_are_what_the_code_derives() -> None:
    shown = dict(re.findall(r"^\| `((?:command|offset):\S+)` \| `(\S+)` \|$", CONTRACT, re.MULTILINE))
    log, sent, two = Log("default", 0), record(1284, None), [NewEvent("T"), NewEvent("T")]
    command_id = "0199f2d4-9c1e-7000-8000-000000000001"
    named = event_ids(log, 0, sent, Command("s", two, command_id=command_id))
    assert shown == {
        f"command:{command_id}:0": named[0],
        f"command:{command_id}:1": named[1],
        "offset:default:0:1284:0": event_ids(log, 0, sent, Command("s", two))[0],
        "offset:default:0:1284:0:1": event_ids(log, 1, sent, Command("s", two))[0],
    }
    namespace = UUID(re.findall(r"Its namespace is `(\S+)`", CONTRACT)[0])
    assert namespace == uuid5(UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "events.tidemark")
    assert shown == {name: str(uuid5(namespace, name)) for name in shown}


@pytest.mark.parametrize(("tenant", "partition"), [("default", 0), ("acme", 31)])
def test_genesis_is_that_of_the_contract(tenant: str, partition: int) -> None:
    assert genesis(Log(tenant, partition)) == sha256(f"tidemark.chain.v1\n{tenant}\n{partition}\n".encode()).digest()


@pytest.mark.parametrize("event", [DOCUMENTED, FULL, replace(FULL, metadata=b"", stream="日本", type="😀")], ids=str)
def test_the_hash_is_that_of_the_contract(event: RecordedEvent) -> None:
    previous = sha256(b"before").digest()
    assert chained(previous, event) == by_hand(previous, event)


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5)
numbers = st.integers(1, 2**63 - 1)
events = st.builds(
    RecordedEvent,
    stream=texts,
    version=numbers,
    position=numbers,
    event_id=st.uuids().map(str),
    type=texts,
    schema_version=st.integers(1, 2**31 - 1),
    data=st.binary(max_size=5),
    metadata=st.binary(max_size=5),
    time_ms=st.integers(0, 253_402_300_799_999),
    offset=st.integers(0, 2**63 - 1),
    command_id=st.none() | texts,
    correlation_id=st.none() | texts,
    causation_id=st.none() | texts,
    traceparent=st.none() | texts,
    hash=st.just(b""),
)


@given(events, st.binary(min_size=32, max_size=32))
def test_the_hash_of_any_event_is_that_of_the_contract(event: RecordedEvent, previous: bytes) -> None:
    assert chained(previous, event) == by_hand(previous, event)


@given(events, events, st.data())
def test_the_hash_covers_every_field(event: RecordedEvent, other: RecordedEvent, data: st.DataObject) -> None:
    previous = genesis(Log("default", 0))
    name = data.draw(st.sampled_from([field.name for field in fields(RecordedEvent) if field.name != "hash"]))
    changed = replace(event, **{name: getattr(other, name)})
    assert (chained(previous, event) == chained(previous, changed)) == (astuple(event) == astuple(changed))


def test_the_hash_covers_the_one_before() -> None:
    assert chained(genesis(Log("default", 0)), FULL) != chained(genesis(Log("default", 1)), FULL)


def test_data_and_metadata_can_not_be_taken_for_each_other() -> None:
    assert payload_digest(b"{}", b'{"a":1}') != payload_digest(b'{}{"a":1}', b"")


def test_the_hash_does_not_look_at_the_one_that_is_there() -> None:
    assert chained(bytes(32), replace(FULL, hash=b"x" * 32)) == chained(bytes(32), FULL)


def test_a_fingerprint_tells_records_apart() -> None:
    plain = SomeRecord(1, b"value", b"key", 1000, ())
    others = [
        plain._replace(offset=2),
        plain._replace(timestamp=1001),
        plain._replace(key=b"k"),
        plain._replace(value=b"v"),
        plain._replace(key=b"keyv", value=b"alue"),
        plain._replace(key=None),
        plain._replace(value=None),
    ]
    assert len({fingerprint(it) for it in [plain, *others]}) == 1 + len(others)
    assert fingerprint(plain) == fingerprint(plain._replace(headers=[("a", b"b")]))
    assert len(fingerprint(plain)) == 16
