"""Clients that send what clients send: new commands, the same again, ones that compete, and ones that are none."""

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

from processor.kafka.outgoing import Outgoing
from processor.partition import partition_of
from tests.simulation.broker import NAMES, REPLY_TOPIC, Broker

_START_MS = 1_760_000_000_000
_HEADERS: tuple[list[tuple[str, bytes]], ...] = (
    [],
    [],
    [("reply_to", REPLY_TOPIC.encode()), ("correlation_id", b"\x00\x01")],
    [("reply_to", b"elsewhere")],
)
_POISON = (b"{", b'"order"', b'{"stream":"order-1"}', None)


class Client:
    """Sends so many commands, a random while apart. `versions` says at what version a stream is now."""

    def __init__(
        self, random: Random, broker: Broker, streams: list[str], count: int, versions: Callable[[str], int]
    ) -> None:
        self._random = random
        self._broker = broker
        self._streams = streams
        self._count = count
        self._versions = versions
        self._sent: list[tuple[bytes, dict[str, Any]]] = []

    async def run(self) -> None:
        """Send them all."""
        for _ in range(self._count):
            await asyncio.sleep(self._random.choice((0.0, 0.001, 0.3, 1.5)))
            self._send_one()

    def _send_one(self) -> None:
        draw = self._random.random()
        if draw < 0.08:
            self._send_poison()
        elif draw < 0.12:
            self._append_markers()
        elif draw < 0.30 and self._sent:
            self._send(*self._random.choice(self._sent))
        elif draw < 0.42 and self._sent:
            key, command = self._random.choice(self._sent)
            self._send(key, self._changed(command))
        else:
            command = self._fresh()
            self._send(command["stream"].encode(), command)

    def _append_markers(self) -> None:
        """Offsets without a record, as transactions and compaction leave them."""
        topic = self._random.choice((NAMES.commands, NAMES.commands, NAMES.events))
        count = self._random.choice((1, 1, 5))
        self._broker.append(topic, self._random.randrange(len(self._broker.logs)), [None] * count)

    def _fresh(self) -> dict[str, Any]:
        random = self._random
        stream = random.choice(self._streams)
        command: dict[str, Any] = {
            "stream": stream,
            "events": [self._event() for _ in range(random.choice((1, 1, 2, 3)))],
        }
        expected = random.choice(("exact", "exact", "any", "any", "no_stream", "stream_exists", None))
        if expected == "exact":
            command["expected_version"] = max(0, self._versions(stream) + random.choice((0, 0, 0, 1, -1)))
        elif expected is not None:
            command["expected_version"] = expected
        if random.random() < 0.7:
            command["command_id"] = f"c-{random.getrandbits(32)}"
        return command

    def _event(self) -> dict[str, Any]:
        random = self._random
        event: dict[str, Any] = {"type": random.choice(("Opened", "Closed"))}
        if random.random() < 0.6:
            event["event_id"] = f"0199f2d4-9c1e-7b53-8a55-{random.getrandbits(48):012x}"
        if random.random() < 0.3:
            event["data"] = {"amount": random.randrange(3), "note": "ä"}
        if random.random() < 0.1:
            event["metadata"] = {"user": "u-7"}
        return event

    def _changed(self, command: dict[str, Any]) -> dict[str, Any]:
        """The same ids with other content, some new events, another order or another expectation."""
        events = list(command["events"])
        match self._random.randrange(8):
            case 0:
                events[0] = events[0] | {"type": "Changed"}
            case 1:
                events.append(self._event())
            case 2:
                events.reverse()
            case 3:
                events.append(events[0])
            case 4 | 5 | 6:
                return command | {"expected_version": self._versions(command["stream"])}
            case _:
                return command | {"command_id": f"c-{self._random.getrandbits(32)}"}
        return command | {"events": events}

    def _send_poison(self) -> None:
        command = self._fresh()
        key = command["stream"].encode()
        match self._random.randrange(5):
            case 0:
                self._append(key, self._random.choice(_POISON))
            case 1:
                self._append(b"another", _encoded(command))
            case 2:
                self._append(key, _encoded(command), self._random.randrange(len(self._broker.logs)))
            case 3:
                self._send(key, command | {"events": [self._event() for _ in range(5)]})
            case _:
                self._send(key, command | {"colour": "green"})

    def _send(self, key: bytes, command: dict[str, Any]) -> None:
        self._sent.append((key, command))
        self._append(key, _encoded(command))

    def _append(self, key: bytes, value: bytes | None, partition: int | None = None) -> None:
        random = self._random
        now_ms = _START_MS + int(asyncio.get_running_loop().time() * 1000)
        timestamp = random.choice((now_ms, now_ms, now_ms + random.randint(-5_000, 5_000), -1))
        place = partition_of(key, len(self._broker.logs)) if partition is None else partition
        # A producer without idempotence that tries again may leave two.
        copies = 2 if random.random() < 0.05 else 1
        record: Outgoing = (key, value, [*random.choice(_HEADERS)], timestamp)
        self._broker.append(NAMES.commands, place, [record] * copies)


def _encoded(command: dict[str, Any]) -> bytes:
    return json.dumps(command, ensure_ascii=False).encode()
