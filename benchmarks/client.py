"""A client that sends commands at a steady rate, and notes when each is answered.

It is librdkafka's, which takes little of the processors that it shares with what is measured.
"""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.bed import Site
from benchmarks.load import PARTITIONS, CommandRecord

_LONGEST_S = 60.0
_WAIT_S = 0.002

Waits = list[tuple[int, float]]
"""For each command its partition, and the milliseconds from due to answered."""


class Client:
    """Sends each command when it is due, however late that is. All are accepted: a reply's offset is its command's.

    `at_once`: replies are taken when so many are there, or 2 ms are over.
    """

    def __init__(self, site: Site, *, linger_ms: int, at_once: int) -> None:
        self._at_once = at_once
        brokers = {"bootstrap.servers": ",".join(site.settings.brokers)}
        self._topic = site.names.commands
        self._producer = Producer({**brokers, "acks": "all", "linger.ms": linger_ms})
        self._consumer = Consumer(
            {**brokers, "group.id": "bench-client", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )
        self._consumer.assign([TopicPartition(site.names.results, n, 0) for n in range(PARTITIONS)])

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()
        self._producer.purge()

    def measure(self, records: Sequence[CommandRecord], rate: float) -> Waits:
        """The waits, in the order of the records. Raises `TimeoutError`, `KafkaException`."""
        places: dict[tuple[int | None, int | None], int] = {}
        places.update(((record.partition, record.offset), index) for index, record in enumerate(records))
        arrived = [0.0] * len(records)
        sent = answered = 0
        begin = time.perf_counter()
        while answered < len(records):
            now = time.perf_counter() - begin
            if now > len(records) / rate + _LONGEST_S:
                raise TimeoutError
            due = min(len(records), int(now * rate) + 1)
            for record in records[sent:due]:
                self._producer.produce(
                    self._topic, record.value, record.key, record.partition, timestamp=record.timestamp
                )
            sent = due
            self._producer.poll(0)
            until_due_s = sent / rate - (time.perf_counter() - begin)
            replies = self._consumer.consume(self._at_once, min(max(until_due_s, _WAIT_S / 2), _WAIT_S))
            now = time.perf_counter() - begin
            for reply in replies:
                if reply.error() is not None:
                    raise KafkaException(reply.error())
                index = places.get((reply.partition(), reply.offset()))
                if index is not None and not arrived[index]:
                    arrived[index] = now
                    answered += 1
        return [(record.partition, (arrived[index] - index / rate) * 1_000) for index, record in enumerate(records)]
