"""The lines that `tidemark send` reads: each a command, plus what its record carries besides."""

import asyncio
import gzip
import io
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta, Raw, Struct

from processor.errors import SettingsError

STDIN = "-"

_MOST_LINE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_AT_ONCE = 500
_SHOWN = 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_members = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_timestamp = msgspec.json.Decoder(Annotated[int, Meta(ge=0, le=2**63 - 1)])
_headers = msgspec.json.Decoder(dict[str, str])
_encode = msgspec.json.Encoder().encode


class Line(Struct, frozen=True, gc=False):
    """A command as it stands in the input; `stream` is its name in UTF-8, `command` its JSON, as it came."""

    number: int
    stream: bytes
    command: bytes
    timestamp_ms: int | None
    headers: tuple[tuple[str, bytes], ...]


class BadLine(SettingsError):  # noqa: N818 — a name that says what is the matter needs no suffix
    """A line that no record can be made of."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")


def parse(number: int, text: bytes) -> Line:
    """Read one line. Only what is needed to make a record is looked at: the rest is the worker's to judge.

    The values of the command go out as the bytes that came. Raises `BadLine`.
    """
    try:
        members = _members.decode(text)
        given = members.get("stream")
        if given is None:
            raise BadLine(number, "stream is missing")
        stream = _text.decode(given).encode()
        timestamp, headers = members.pop("timestamp", None), members.pop("headers", None)
        if timestamp is None and headers is None:
            return Line(number, stream, text, None, ())
        return Line(
            number,
            stream,
            b"{%b}" % b",".join(b"%b:%b" % (_encode(name), value) for name, value in members.items()),
            None if timestamp is None else _timestamp.decode(timestamp),
            ()
            if headers is None
            else tuple((name, value.encode()) for name, value in _headers.decode(headers).items()),
        )
    except msgspec.ValidationError as error:
        raise BadLine(number, f"not a command with a stream, a timestamp in ms and headers of text: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadLine(number, f"not JSON: {error}") from None


# --- a file: read twice, so that nothing is sent of one that is not whole


def check_file(path: Path) -> int:
    """Read a file through; returns how many commands it has. Raises `SettingsError`, which names the bad lines."""
    count = 0
    bad: list[BadLine] = []
    for number, text in _lines_of(path):
        try:
            parse(number, text)
            count += 1
        except BadLine as error:
            bad.append(error)
            if len(bad) > _SHOWN:
                break
    if bad:
        told = "\n".join(f"  {error}" for error in bad[:_SHOWN])
        more = "\n  … and more" if len(bad) > _SHOWN else ""
        raise SettingsError(f"nothing was sent: {path} has lines that are no commands\n{told}{more}")
    return count


def read_file(path: Path) -> Iterator[Line]:
    """The commands of a file, plain or, by its name, compressed with gzip."""
    for number, text in _lines_of(path):
        yield parse(number, text)


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    with _opened(path) as file:
        number = 0
        while text := file.readline(_MOST_LINE_BYTES + 1):
            number += 1
            if len(text) > _MOST_LINE_BYTES:
                raise BadLine(number, f"longer than {_MOST_LINE_BYTES:,} bytes")
            if text := _stripped(number, text):
                yield number, text


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).rstrip(".")
        raise SettingsError(f"can't read {path}: {reason}.") from None


def _stripped(number: int, text: bytes) -> bytes:
    return (text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text).strip()


# --- both, as the sender takes them


async def read_lines(source: str) -> AsyncIterator[list[Line]]:
    """The commands of a file or, for `-`, of standard input, some at a time. Raises `SettingsError`."""
    if source == STDIN:
        async for lines in _read_stdin():
            yield lines
        return
    lines_of_file = read_file(Path(source))
    while some := list(islice(lines_of_file, _AT_ONCE)):
        yield some


async def _read_stdin() -> AsyncIterator[list[Line]]:
    number = 0
    rest = b""
    async for chunk in _chunks(_stdin_reader()):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MOST_LINE_BYTES:
            raise BadLine(number + len(whole) + 1, f"longer than {_MOST_LINE_BYTES:,} bytes")
        lines: list[Line] = []
        for text in whole:
            number += 1
            if text := _stripped(number, text):
                try:
                    lines.append(parse(number, text))
                except BadLine:
                    yield lines
                    raise
        yield lines
    if rest := _stripped(number + 1, rest):
        yield [parse(number + 1, rest)]


def _stdin_reader() -> Callable[[int], bytes]:
    """Reads what there is, and waits only where there is nothing."""
    try:
        # Without a buffer there is no lock that a thread which still reads would hold at the interpreter's end.
        return io.FileIO(sys.stdin.fileno(), closefd=False).read
    except io.UnsupportedOperation:
        return sys.stdin.buffer.read


async def _chunks(read: Callable[[int], bytes]) -> AsyncIterator[bytes]:
    """What a blocking reader reads, from a thread that nobody has to wait for."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)

    def pump() -> None:
        chunk = b"-"
        while chunk:
            chunk = read(_CHUNK_BYTES)
            asyncio.run_coroutine_threadsafe(queue.put(chunk), loop).result()

    Thread(target=pump, daemon=True).start()
    while chunk := await queue.get():
        yield chunk
