"""Fail points: what arms them, and that each action does what it says."""

import asyncio
import signal
import subprocess
import sys

import psutil
import pytest

from processor import failpoints
from processor.failpoints import VARIABLE, Armed, Charge, FailPoint, Reached, parse

REACH_TWICE = """
import asyncio
from processor.failpoints import FailPoint, reach

async def main():
    for time in (1, 2):
        await reach(FailPoint.AFTER_COMMIT)
        print(time, flush=True)

asyncio.run(main())
"""


def spawn(armed: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", REACH_TWICE], env={VARIABLE: armed}, stdout=subprocess.PIPE)


def test_what_arms_them_is_read() -> None:
    assert parse("after_commit=kill@3;before_feed=pause:5;before_claim=raise") == {
        FailPoint.AFTER_COMMIT: Charge("kill", None, 3),
        FailPoint.BEFORE_FEED: Charge("pause", 5.0, 1),
        FailPoint.BEFORE_CLAIM: Charge("raise", None, 1),
    }


@pytest.mark.parametrize(
    "text", ["nowhere=kill", "after_commit", "after_commit=stop", "after_commit=delay", "x=kill:2"]
)
def test_what_can_not_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"POINT=ACTION|takes seconds|FailPoint"):
        parse(text)


async def test_nothing_happens_where_nothing_is_armed() -> None:
    await failpoints.reach(FailPoint.AFTER_COMMIT)
    assert failpoints.reach.__name__ == "_pass"


async def test_raise_strikes_at_its_time_and_only_then() -> None:
    armed = Armed(parse("before_feed=raise@2"))
    await armed.reach(FailPoint.BEFORE_FEED)
    await armed.reach(FailPoint.AFTER_FEED)
    with pytest.raises(Reached, match="before_feed"):
        await armed.reach(FailPoint.BEFORE_FEED)
    await armed.reach(FailPoint.BEFORE_FEED)


async def test_delay_holds_up_the_task_and_pause_the_loop() -> None:
    loop = asyncio.get_running_loop()
    for action, turns in (("delay", True), ("pause", False)):
        turned = asyncio.Event()
        loop.call_soon(turned.set)
        began = loop.time()
        await Armed(parse(f"before_feed={action}:0.05")).reach(FailPoint.BEFORE_FEED)
        assert loop.time() - began >= 0.05
        assert turned.is_set() is turns


def test_kill_ends_the_process_at_its_time() -> None:
    with spawn("after_commit=kill@2") as process:
        printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (-signal.SIGKILL, b"1\n")


def test_pause_stops_the_process_until_it_is_continued() -> None:
    with spawn("after_commit=pause@2") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        watched = psutil.Process(process.pid)
        while watched.status() != psutil.STATUS_STOPPED:
            assert process.poll() is None
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == b"2\n"
        assert process.wait(30) == 0
