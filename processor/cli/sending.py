"""The work of `tidemark send`: lines out, outcomes counted or printed as they come back."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from processor.cli.frame import Form, figure, say, show, show_json
from processor.cli.lines import STDIN, Line, check_file, read_lines
from processor.cli.progress import Progress, progress
from processor.codec import decode_outcome
from processor.errors import NotSent, Unreachable
from processor.kafka.sending import Sender
from processor.messages import Accepted, Conflict, Duplicate, Outcome, Rejected
from processor.settings import Settings

_LOOK_EVERY_S = 0.2
_SHOWN = 20
_OUTCOMES = ("accepted", "duplicate", "conflict", "rejected")


class _Tag(Struct):
    outcome: str


_tag = msgspec.json.Decoder(_Tag)


class Sending:
    """One run of the command."""

    def __init__(
        self, settings: Settings, tenant: str, source: str, *, wait: bool, summary: bool, timeout_s: float, form: Form
    ) -> None:
        self._settings = settings
        self._tenant = tenant
        self._source = source
        self._wait = wait
        self._summary = summary
        self._timeout_s = timeout_s
        self._form = form
        self._lines = 0
        self._answered = 0
        self._counts: Counter[str] = Counter()
        self._refusals: list[tuple[int, Outcome | NotSent]] = []
        self._failure: BaseException | None = None
        self._all_answered = asyncio.Event()
        self._moved_s = 0.0

    @property
    def refused(self) -> int:
        """How many commands were not taken."""
        return self._counts["conflict"] + self._counts["rejected"] + self._counts["not_sent"]

    async def run(self) -> None:
        """Send all lines and wait for what is to come back.

        Raises `SettingsError` for lines that are no commands, and `Unreachable` where outcomes stay away.
        """
        total = None if self._source == STDIN else check_file(Path(self._source))
        began_s = time.monotonic()
        async with Sender(self._settings, self._tenant, replies=self._wait) as sender:
            with self._told_where_it_stopped():
                await self._send_and_wait(sender, total)
        if self._summary or not self._wait:
            self._show_summary(time.monotonic() - began_s)

    async def _send_and_wait(self, sender: Sender, total: int | None) -> None:
        self._moved_s = time.monotonic()
        sending = asyncio.create_task(self._send_all(sender))
        try:
            with progress("commands", total) as bar:
                await self._watch(sending, bar)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _watch(self, sending: "asyncio.Task[None]", bar: Progress) -> None:
        while True:
            await asyncio.wait({sending}, timeout=_LOOK_EVERY_S)
            if sending.done() and self._answered < self._lines:
                await self._for_the_rest()
            bar.at(self._answered)
            if self._failure is not None:
                raise self._failure
            if sending.done() and self._answered == self._lines:
                return sending.result()
            if self._answered < self._lines and time.monotonic() - self._moved_s > self._timeout_s:
                raise Unreachable(self._what_is_missing())

    async def _for_the_rest(self) -> None:
        self._all_answered.clear()
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._all_answered.wait()
        except TimeoutError:
            pass

    async def _send_all(self, sender: Sender) -> None:
        async for lines in read_lines(self._source):
            for line in lines:
                try:
                    sent = await sender.send(
                        line.stream, line.command, timestamp_ms=line.timestamp_ms, headers=line.headers
                    )
                except NotSent as error:
                    self._lines += 1
                    self._take(line, error)
                    continue
                self._lines += 1
                sent.outcome.add_done_callback(partial(self._came, line))

    # --- outcomes

    def _came(self, line: Line, future: "asyncio.Future[bytes]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._take(line, future.result())
        elif isinstance(error, NotSent):
            self._take(line, error)
        else:
            self._failure = error

    def _take(self, line: Line, answer: bytes | NotSent) -> None:
        word = "not_sent" if isinstance(answer, NotSent) else _tag.decode(answer).outcome if self._wait else "sent"
        self._counts[word] += 1
        self._answered += 1
        self._moved_s = time.monotonic()
        if self._answered == self._lines:
            self._all_answered.set()
        if word in ("conflict", "rejected", "not_sent") and len(self._refusals) < _SHOWN:
            self._refusals.append((line.number, answer if isinstance(answer, NotSent) else decode_outcome(answer)))
        if self._wait and not self._summary:
            self._show(line, answer)

    def _show(self, line: Line, answer: bytes | NotSent) -> None:
        if self._form is Form.TEXT:
            show(told(line.number, answer if isinstance(answer, NotSent) else decode_outcome(answer)))
        elif isinstance(answer, NotSent):
            show_json({"line": line.number, "outcome": "not_sent", "detail": str(answer)})
        else:
            show(f'{{"line":{line.number},{answer[1:].decode()}')

    # --- what is said

    def _show_summary(self, took_s: float) -> None:
        if self._form is Form.JSON:
            show_json(self._document(took_s))
            return
        rate = f"{self._lines / took_s:,.0f}/s" if took_s > 0 else ""
        what = "decided" if self._wait else "acknowledged by the broker"
        show(f"{figure(self._lines)} command{'s' * (self._lines != 1)} {what} in {took_s:.1f} s ({rate})")
        for word in (*_OUTCOMES, "not_sent") if self._wait else ("not_sent",):
            if self._counts[word]:
                show(f"  {word.replace('_', ' '):<10}{figure(self._counts[word]):>12}")
        for number, answer in self._refusals:
            show(told(number, answer))
        if self.refused > len(self._refusals):
            show(f"… and {figure(self.refused - len(self._refusals))} more; --no-summary prints all")

    def _document(self, took_s: float) -> dict[str, Any]:
        counts: dict[str, Any] = {"commands": self._lines, "seconds": round(took_s, 3)}
        if self._wait:
            counts |= {word: self._counts[word] for word in _OUTCOMES}
        refused = [
            {"line": number, **msgspec.to_builtins(answer)}
            if not isinstance(answer, NotSent)
            else {"line": number, "outcome": "not_sent", "detail": str(answer)}
            for number, answer in self._refusals
        ]
        return counts | {"not_sent": self._counts["not_sent"], "refused": refused}

    def _what_is_missing(self) -> str:
        what = "outcome" if self._wait else "acknowledgement"
        return (
            f"no {what} for {self._timeout_s:g} s: {figure(self._answered)} of {figure(self._lines)} commands that "
            "were sent have one; the others may be decided later. Does a worker run? `tidemark doctor` tells."
        )

    @contextmanager
    def _told_where_it_stopped(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            say(f"stopped: {figure(self._lines)} commands sent, {figure(self._answered)} of them answered")
            raise


def told(number: int, answer: Outcome | NotSent) -> str:
    """What the command on a line came to, in words."""
    match answer:
        case NotSent():
            return f"line {number}: not sent: {answer}"
        case Accepted() | Duplicate():
            kind = "accepted" if isinstance(answer, Accepted) else "duplicate"
            first, last = answer.first_version, answer.last_version
            versions = f"version {first}" if first == last else f"versions {first} to {last}"
            return f"line {number}: {kind}: {answer.stream} {versions}"
        case Conflict() | Rejected():
            kind = "conflict" if isinstance(answer, Conflict) else "rejected"
            stream = "" if answer.stream is UNSET else f" {answer.stream}"
            return f"line {number}: {kind}:{stream} {answer.reason}: {answer.detail}"
