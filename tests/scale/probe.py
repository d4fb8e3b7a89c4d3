"""A steady load on every partition, whose answers show how long each of them stood still.

An open loop: each command is sent when it is due, whatever has been answered, so that the longest wait of a partition's
commands is the time for which it gave no answer. The client is librdkafka's, in a thread of its own: it takes little of
the processors that the workers need.
"""

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec import Struct

from processor.names import DEFAULT_TENANT, TopicNames
from processor.partition import partition_of
from processor.settings import Settings

_CONSUME_S = 0.005
_AT_ONCE = 1_000
_WAIT_S = 90.0
_LOOK_EVERY_S = 0.02


class _Reply(Struct):
    command_id: str = ""


class _Sent(Struct):
    partition: int
    due_s: float
    answered_s: float | None = None


class Probe:
    """Sends `rate` commands a second to each partition, from `start` to `stop`. Times are `time.monotonic`'s."""

    def __init__(self, settings: Settings, rate: float) -> None:
        self._names = TopicNames.of(settings.topic_prefix, DEFAULT_TENANT)
        self._brokers = {"bootstrap.servers": ",".join(settings.brokers)}
        self._partitions = range(settings.partitions)
        self._every_s = 1 / (rate * settings.partitions)
        self._streams = _stream_of_each(settings.partitions)
        self._sent: list[_Sent] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    async def stop(self) -> None:
        """Send no more, and wait until all is answered. Raises `TimeoutError`, and what the thread has failed with."""
        self._ended.set()
        await asyncio.to_thread(self._thread.join)
        if self._error is not None:
            raise self._error

    async def all_answer(self) -> float:
        """Wait until each partition has answered a command that was due after now; returns what was now."""
        since = time.monotonic()
        async with asyncio.timeout(_WAIT_S):
            while len(self._answered_since(since)) < len(self._partitions):
                if self._error is not None:
                    raise self._error
                await asyncio.sleep(_LOOK_EVERY_S)
        return since

    def _answered_since(self, since: float) -> set[int]:
        recent = itertools.takewhile(lambda sent: sent.due_s >= since, reversed(self._sent))
        return {sent.partition for sent in recent if sent.answered_s is not None}

    def waits_ms(self, since: float, until: float) -> Mapping[int, Sequence[float]]:
        """By partition, how long the commands that were due in this time waited for their answers, which are there."""
        waits = defaultdict(list)
        for sent in self._sent:
            if since <= sent.due_s < until:
                assert sent.answered_s is not None
                waits[sent.partition].append((sent.answered_s - sent.due_s) * 1_000)
        return waits

    # --- in the thread

    def _run(self) -> None:
        producer = Producer({**self._brokers, "acks": "all", "linger.ms": 1})
        consumer = Consumer({**self._brokers, "group.id": "probe", "enable.auto.commit": False, "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(self._names.results, number, 0) for number in self._partitions])
        try:
            self._send_and_listen(producer, consumer)
        except Exception as error:  # noqa: BLE001  a thread has nobody to raise it to
            self._error = error
        finally:
            consumer.close()
            producer.purge()

    def _send_and_listen(self, producer: Producer, consumer: Consumer) -> None:
        begin = time.monotonic()
        decode = msgspec.json.Decoder(_Reply).decode
        answered = 0
        while not self._ended.is_set() or answered < len(self._sent):
            now = time.monotonic()
            if self._ended.is_set() and now > self._sent[-1].due_s + _WAIT_S:
                raise TimeoutError(f"{len(self._sent) - answered} commands have no answer")
            while not self._ended.is_set() and (due_s := begin + len(self._sent) * self._every_s) <= now:
                self._send(producer, due_s)
            producer.poll(0)
            for reply in consumer.consume(_AT_ONCE, _CONSUME_S):
                if reply.error() is None:
                    answered += self._take(decode(reply.value() or b"{}").command_id)

    def _send(self, producer: Producer, due_s: float) -> None:
        number = len(self._sent)
        partition = self._partitions[number % len(self._partitions)]
        stream = self._streams[partition]
        value = f'{{"stream":"{stream}","command_id":"probe-{number}","events":[{{"type":"Probed"}}]}}'
        producer.produce(self._names.commands, value.encode(), stream.encode(), partition)
        self._sent.append(_Sent(partition, due_s))

    def _take(self, command_id: str) -> bool:
        """Whether it is the first answer to one of ours."""
        name, _, number = command_id.partition("-")
        if name != "probe" or (sent := self._sent[int(number)]).answered_s is not None:
            return False
        sent.answered_s = time.monotonic()
        return True


def _stream_of_each(partitions: int) -> list[str]:
    """A stream's name for every partition."""
    found: dict[int, str] = {}
    for number in itertools.count():
        name = f"probe-{number}"
        found.setdefault(partition_of(name.encode(), partitions), name)
        if len(found) == partitions:
            return [found[partition] for partition in range(partitions)]
    raise AssertionError
