"""A TCP proxy on the loopback address, whose connections can be slowed, held, cut, or robbed of an answer."""

import asyncio
import re
from contextlib import suppress
from typing import Literal, Self

_CHUNK = 64 * 1024
_How = Literal["request", "answer"] | float
"""What is lost with a connection; or the seconds by which the request comes late."""


class Proxy:
    """Stands between clients and the server on `to_port`; `async with` opens and closes it.

    Connections that come after a change of `to_port` go there. `delay_s` holds up every chunk, both ways. `cuts` counts
    the requests that were lost, robbed of their answer, or late and there at last.
    """

    def __init__(self, to_port: int, port: int = 0) -> None:
        self.delay_s = 0.0
        self.cuts = 0
        self.port = port
        self.to_port = to_port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._strike: tuple[re.Pattern[bytes], _How] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Take connections, on the same port each time."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut what there is and take no new connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flows.set()
        self.cut()

    def cut(self) -> None:
        """Cut every connection, both ways, without a good-bye."""
        for link in list(self._links):
            link.cut()

    def hold(self) -> None:
        """Let nothing through any more, with the connections open."""
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    def lose(self, text: bytes | re.Pattern[bytes], *, delivered: bool) -> None:
        """Cut the next connection over which a client sends `text`, once.

        `delivered`: the server has it and has answered, and only the answer is lost; otherwise it never gets there.
        """
        self._strike = _pattern(text), "answer" if delivered else "request"

    def deliver_late(self, text: bytes, late_s: float) -> None:
        """Cut the next connection over which a client sends `text`, once; the server gets it so much later."""
        self._strike = _pattern(text), late_s

    def struck_by(self, chunk: bytes) -> "_How | None":
        """What is to happen to a chunk that a client sends; None for nothing."""
        if self._strike is None or not self._strike[0].search(chunk):
            return None
        how, self._strike = self._strike[1], None
        return how

    async def passes(self) -> None:
        """Wait while everything is held or slow."""
        await self._flows.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self._links.add(link)
        try:
            await link.run(reader, self.to_port)
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._robbed = False

    async def run(self, from_client: asyncio.StreamReader, to_port: int) -> None:
        with suppress(OSError):
            from_server, self._server = await asyncio.open_connection("127.0.0.1", to_port)
            ways = [
                asyncio.create_task(self._there(from_client, self._server)),
                asyncio.create_task(self._back(from_server)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        self.cut()

    def cut(self) -> None:
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._proxy.passes()
            match self._proxy.struck_by(chunk):
                case None:
                    pass
                case "request":
                    self._proxy.cuts += 1
                    return
                case "answer":
                    self._robbed = True
                case float() as late_s:
                    self._robbed = True
                    self._client.transport.abort()
                    await asyncio.sleep(late_s)
                    writer.write(chunk)
                    # The answer, which nobody waits for any more, ends it.
                    await asyncio.get_running_loop().create_future()
            writer.write(chunk)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._proxy.passes()
            if self._robbed:
                self._proxy.cuts += 1
                return
            self._client.write(chunk)
            await self._client.drain()


def _pattern(text: bytes | re.Pattern[bytes]) -> re.Pattern[bytes]:
    return text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
