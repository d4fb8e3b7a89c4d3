"""Named points of the data path at which a test can kill, pause, delay or break a worker process.

`TIDEMARK_TEST_FAILPOINTS` arms them, such as `after_commit=kill@3;before_feed=pause:5`: at the third commit the process
kills itself, and before the first feed record it stands still for 5 seconds.

| action | |
|---|---|
| `kill` | the process ends as by `kill -9` |
| `pause` | the process stops as by SIGSTOP, until it is sent SIGCONT |
| `pause:S` | the event loop stands still for S seconds; other threads go on (PostgreSQL's large commits have one) |
| `delay:S` | the task waits for S seconds; all else goes on |
| `raise` | `Reached` is raised, as a bug would raise something |

`@N` is the N-th time that the point is reached, the first where it is left out. Each point is armed once at the most. A
process without the variable has nothing to look up: `reach` is then a function that does nothing.
"""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, cast

from msgspec import Struct

VARIABLE = "TIDEMARK_TEST_FAILPOINTS"


class FailPoint(Enum):
    """Where a fault may strike, in the order of the data path."""

    BEFORE_CLAIM = "before_claim"
    AFTER_CLAIM = "after_claim"
    BEFORE_COMMIT = "before_commit"
    WITHIN_COMMIT = "within_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_FEED = "before_feed"
    AFTER_FEED = "after_feed"
    BEFORE_REPLIES = "before_replies"
    AFTER_REPLIES = "after_replies"
    BEFORE_OFFSET_COMMIT = "before_offset_commit"
    ON_REVOCATION = "on_revocation"
    ON_SHUTDOWN = "on_shutdown"


class Reached(Exception):  # noqa: N818 - it says what happened, and nobody handles it
    """An armed point was reached whose action is to raise."""


class Charge(Struct, frozen=True):
    """What happens at a point: the action, for how long (None: without an end), and at which time it is reached."""

    action: str
    seconds: float | None
    time: int


_CHARGE = re.compile(r"(?P<point>\w+)=(?P<action>kill|pause|delay|raise)(:(?P<seconds>[0-9.]+))?(@(?P<time>[0-9]+))?")


def parse(text: str) -> dict[FailPoint, Charge]:
    """The charges of `TIDEMARK_TEST_FAILPOINTS`. Raises `ValueError`."""
    charges = {}
    for part in filter(None, text.split(";")):
        match = _CHARGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{VARIABLE}: {part!r} is not POINT=ACTION[:SECONDS][@TIME]")
        seconds = float(match["seconds"]) if match["seconds"] else None
        if (match["action"] == "delay" and seconds is None) or (match["action"] in ("kill", "raise") and seconds):
            raise ValueError(f"{VARIABLE}: {part!r}: a delay takes seconds, a kill and a raise take none")
        charges[FailPoint(match["point"])] = Charge(match["action"], seconds, int(match["time"] or 1))
    return charges


class Armed:
    """The charges of this process, and how often each point was reached."""

    def __init__(self, charges: dict[FailPoint, Charge]) -> None:
        self._charges = charges
        self._times: Counter[FailPoint] = Counter()

    async def reach(self, point: FailPoint) -> None:
        """Strike, if it is this point's time."""
        self._times[point] += 1
        charge = self._charges.get(point)
        if charge is None or self._times[point] != charge.time:
            return
        match charge.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "pause" if charge.seconds is None:
                os.kill(os.getpid(), signal.SIGSTOP)
            case "pause":
                time.sleep(charge.seconds or 0)  # noqa: ASYNC251 - the loop is meant to stand still
            case "delay":
                await asyncio.sleep(charge.seconds or 0)
            case _:
                raise Reached(point.value)


async def _pass(_: FailPoint) -> None:
    """Nothing is armed."""


_text = os.environ.get(VARIABLE)
reach: Callable[[FailPoint], Awaitable[None]] = Armed(parse(_text)).reach if _text else _pass
"""Called where a fault may strike."""


def reach_from_thread(point: FailPoint, loop: asyncio.AbstractEventLoop) -> None:
    """`reach`, from a thread beside that of `loop`, which waits meanwhile."""
    if reach is not _pass:
        asyncio.run_coroutine_threadsafe(cast(Coroutine[Any, Any, None], reach(point)), loop).result()
