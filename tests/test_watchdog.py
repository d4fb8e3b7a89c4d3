"""The watchdog: a loop that stands still ends its process, one that turns or was held does not."""

import signal
import subprocess
import sys
import time

import psutil

STAND_STILL = """
import asyncio, time
from processor.watchdog import watching

async def main():
    with watching(asyncio.get_running_loop(), {timeout_s}):
        print("watched", flush=True)
        {body}
    print("ended well", flush=True)

asyncio.run(main())
"""


def spawn(body: str, timeout_s: float = 0.4) -> "subprocess.Popen[str]":
    code = STAND_STILL.format(body=body, timeout_s=timeout_s)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_loop_that_stands_still_ends_the_process_and_says_where() -> None:
    with spawn("time.sleep(60)") as process:
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the event loop stands still" in printed
    assert "main" in printed
    assert "ended well" not in printed


def test_it_ends_even_if_nothing_can_be_logged() -> None:
    body = "import sys, threading; sys.stdout.flush = sys.stdout.write = lambda *_: time.sleep(60); time.sleep(60)"
    with spawn(body) as process:
        assert process.wait(30) == 1


def test_a_loop_that_turns_is_left_alone() -> None:
    with spawn("await asyncio.sleep(1)") as process:
        printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (0, "watched\nended well\n")


def test_without_a_time_out_nothing_is_watched() -> None:
    with spawn("time.sleep(0.5)", timeout_s=0) as process:
        printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (0, "watched\nended well\n")


def test_a_process_that_was_held_goes_on() -> None:
    with spawn("await asyncio.sleep(3)", timeout_s=1) as process:
        assert process.stdout is not None and process.stdout.readline() == "watched\n"
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=30)[0] == "ended well\n"
