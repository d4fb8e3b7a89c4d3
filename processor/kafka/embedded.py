"""A Kafka broker inside this process, for a first look and for tests where no real one is to be had.

It is the mock cluster that librdkafka carries for its own tests, out of the `confluent-kafka` wheel: the wire protocol
on a free port of the loopback address, served by a thread of its own. Everything is kept in memory, the newest 5 MB of
each partition at the most. Topics can't be created by an admin request: the ones that are named here get the
partitions that are asked for, any other one appears with `UNNAMED_PARTITIONS` when it is first asked about. A consumer
group has one member: a second one fails to join, and one that joins after another, or again, waits for about the
session time-out.
"""

import ctypes
from collections.abc import Iterable
from typing import Any, Self

from processor.errors import BrokerUnreachable, SettingsError, TopicMismatch

__all__ = ["UNNAMED_PARTITIONS", "EmbeddedBroker"]

UNNAMED_PARTITIONS = 4
"""How many partitions a topic gets that appears by being asked about; librdkafka's choice."""

_PRODUCER = 0
_TOPIC_EXISTS = 36
_ERRORS_ONLY = b"3"
_TEXT_BYTES = 512


class EmbeddedBroker:
    """A broker from `with` (or `async with`) to its end. Starts at once; what it holds is gone when it ends.

    Raises `SettingsError` where the wheel is missing.
    """

    def __init__(self, topics: Iterable[str] = (), partitions: int = 32) -> None:
        self.partitions = partitions
        """How many partitions the named topics have."""
        self._topics = tuple(topics)
        self._library = _library()
        self._client: int | None = None
        self._cluster: int | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients reach it, as `host:port`."""
        address: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._running())
        return address.decode()

    def start(self) -> None:
        """Open the port and create the named topics."""
        self._client = _client(self._library)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        if self._cluster is None:
            self.stop()
            raise BrokerUnreachable("The embedded broker could not open a port on the loopback address.")
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self.create_topics(self._topics)

    def stop(self) -> None:
        """Close the port and forget everything. May be called twice."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
        client, self._client = self._client, None
        if client is not None:
            self._library.rd_kafka_destroy(client)

    def create_topics(self, topics: Iterable[str], partitions: int | None = None) -> None:
        """Create topics, with as many partitions as the named ones unless told otherwise.

        Raises `TopicMismatch` where a topic is there already.
        """
        for topic in topics:
            error = self._library.rd_kafka_mock_topic_create(
                self._running(), topic.encode(), partitions or self.partitions, 1
            )
            if error == _TOPIC_EXISTS:
                raise TopicMismatch(f"The embedded broker has a topic {topic!r} already.")
            if error:
                text = self._library.rd_kafka_err2str(error).decode()
                raise TopicMismatch(f"The embedded broker did not create the topic {topic!r}: {text}.")

    def _running(self) -> int:
        if self._cluster is None:
            raise BrokerUnreachable("The embedded broker is not running.")
        return self._cluster

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.stop()


# What is called of librdkafka: result type, argument types.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_err2str": (ctypes.c_char_p, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    ),
}


def _library() -> ctypes.CDLL:
    """The librdkafka of the wheel. Its own Python interface has no way to the mock cluster's address and topics."""
    try:
        from confluent_kafka import cimpl  # noqa: PLC0415  (an optional package)
    except ImportError as error:
        raise SettingsError(
            "The embedded broker needs the confluent-kafka wheel: pip install 'tidemark[embedded]'."
        ) from error
    library = ctypes.CDLL(cimpl.__file__)
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise SettingsError(f"This confluent-kafka wheel can't serve as the embedded broker: {error}.") from error
    return library


def _client(library: ctypes.CDLL) -> int:
    """The client that the mock cluster hangs on. It is never used for anything else, and connects to nothing."""
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    config = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(config, b"log_level", _ERRORS_ONLY, text, _TEXT_BYTES)
    client = library.rd_kafka_new(_PRODUCER, config, text, _TEXT_BYTES)
    if client is None:
        raise BrokerUnreachable(f"The embedded broker could not start: {text.value.decode(errors='replace')}.")
    return int(client)
