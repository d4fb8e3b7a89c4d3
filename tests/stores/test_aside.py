"""The event loop beside the caller's."""

import asyncio
import threading

import pytest

from processor.stores.aside import Aside

_LONGEST_S = 10


async def nothing() -> None:
    """What is last, where nothing has to be."""


async def test_what_runs_aside_goes_on_while_the_caller_computes() -> None:
    aside, done = Aside(), threading.Event()

    async def work() -> str:
        await asyncio.sleep(0.001)
        done.set()
        return threading.current_thread().name

    task = asyncio.wrap_future(aside.start(work()))
    await asyncio.sleep(0)
    assert done.wait(_LONGEST_S)
    assert await task != threading.current_thread().name
    await aside.stop(nothing)


async def test_what_is_called_is_called_there() -> None:
    aside, event = Aside(), asyncio.Event()

    async def work() -> bool:
        return await event.wait()

    waiting = aside.start(work())
    aside.call(event.set)
    assert await asyncio.wrap_future(waiting)
    await aside.stop(nothing)


async def test_a_fault_reaches_the_caller() -> None:
    aside = Aside()

    async def work() -> None:
        raise ValueError("aside")

    with pytest.raises(ValueError, match="aside"):
        await asyncio.wrap_future(aside.start(work()))
    await aside.stop(nothing)


@pytest.mark.parametrize("by", ["the caller", "the end"])
async def test_work_is_cancelled(by: str) -> None:
    aside, begun, ended = Aside(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(_LONGEST_S)
        finally:
            ended.set()

    task = asyncio.wrap_future(aside.start(work()))
    await asyncio.sleep(0)
    assert begun.wait(_LONGEST_S)
    if by == "the caller":
        task.cancel()
        await asyncio.sleep(0)
    else:
        await aside.stop(nothing)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.wait(_LONGEST_S)
    await aside.stop(nothing)


async def test_the_last_is_done_there_and_only_where_something_ran() -> None:
    aside, where = Aside(), list[int]()

    async def last() -> None:
        where.append(threading.get_ident())

    await aside.stop(last)
    assert where == []

    async def ident() -> int:
        return threading.get_ident()

    there = await asyncio.wrap_future(aside.start(ident()))
    await aside.stop(last)
    assert where == [there]
