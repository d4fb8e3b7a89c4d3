"""SierraDB by its own protocol (RESP3, as Redis), in an environment with hiredis: `… PORT SECONDS`; prints JSON.

A connection's commands are answered one after the other, so each client has a connection of its own.
"""

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid5

from hiredis import Reader, pack_command

from benchmarks.peers.work import (
    CLIENTS,
    DATA,
    EVENT,
    LONG_STREAM,
    LONG_STREAMS,
    PAGE,
    READ_FEED,
    READ_STREAM,
    by_threads,
    rate,
    tell,
    whole,
)

_PARTITIONS = 32
# Of which it makes a stream's partition key where none is given; a command on several events has to give it.
_NAMESPACE = UUID("219bd637-e279-53e9-9e2b-eabe5d9120cc")
_AT_ONCE = 100
_FILLERS = 8
_RECEIVE_BYTES = 256 * 1024
_LONGEST_S = 60.0


class _Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_LONGEST_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = Reader()
        self.ask("HELLO", 3)

    def ask(self, *words: Any) -> Any:
        """One command's answer. Raises what the server says is wrong."""
        self._socket.sendall(pack_command(words))
        while (answer := self._reader.gets()) is False:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionError("the server has closed the connection")
            self._reader.feed(received)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def scan(self, command: str, what: str, after: str = "-") -> Iterator[bytes]:
        """Payloads page by page; `command` is ESCAN or EPSCAN."""
        place = b"stream_version" if command == "ESCAN" else b"partition_sequence"
        while True:
            page = self.ask(command, what, after, "+", "COUNT", PAGE)
            for event in page[b"events"]:
                yield event[b"payload"]
            if not page[b"has_more"]:
                return
            after = str(page[b"events"][-1][place] + 1)

    def close(self) -> None:
        self._socket.close()


def _expected(version: int) -> str:
    # It counts from 0.
    return "EMPTY" if version == 1 else str(version - 2)


def _appended(port: int, clients: int, seconds: float) -> float:
    connections = [_Connection(port) for _ in range(clients)]

    def append(client: int, stream: int, version: int) -> None:
        name = f"order-{clients}-{stream:04}"
        connections[client].ask("EAPPEND", name, EVENT, "EXPECTED_VERSION", _expected(version), "PAYLOAD", DATA)

    try:
        return by_threads(append, clients, seconds)
    finally:
        for connection in connections:
            connection.close()


def _fill(port: int, stream: str) -> None:
    connection = _Connection(port)
    for begin in range(1, LONG_STREAM + 1, _AT_ONCE):
        words: list[Any] = ["EMAPPEND", str(uuid5(_NAMESPACE, stream))]
        for version in range(begin, begin + _AT_ONCE):
            words += [stream, EVENT, "EXPECTED_VERSION", _expected(version), "PAYLOAD", DATA]
        connection.ask(*words)
    connection.close()


def main() -> None:
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    told = {kind: _appended(port, clients, seconds) for kind, clients in CLIENTS.items()}
    connection = _Connection(port)
    with ThreadPoolExecutor(_FILLERS) as fillers:
        list(fillers.map(lambda stream: _fill(port, f"long-{stream}"), range(LONG_STREAMS)))

    def stream() -> int:
        return whole(connection.scan("ESCAN", "long-0"))

    def feed() -> int:
        return sum(whole(connection.scan("EPSCAN", str(partition))) for partition in range(_PARTITIONS))

    told[READ_STREAM] = rate(stream, seconds)
    told[READ_FEED] = rate(feed, seconds)
    tell(told)


if __name__ == "__main__":
    main()
