"""Faults of SQLite's file: locked, full, read-only, deleted, a torn WAL, a flipped byte, writes that fail."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import NewTrial
from tests.faults.disk import fill, remount, small_disk
from tests.faults.trial import FEWER, REPEATS, Trial, WorkerProcess, until
from tests.servers import Kafka

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]

FLIPS = 10
DOES_NOT_ANSWER = "the store does not answer"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    with small_disk(tmp_path / "disk", 4) as folder:
        yield folder


@pytest.fixture
async def disk_trial(real_kafka: Kafka, disk: Path, new_trial: NewTrial) -> Trial:
    """A trial whose store is on a disk that can be filled and locked."""
    return await new_trial(real_kafka.bootstrap, f"sqlite:///{disk}/tidemark.db")


def file_of(trial: Trial) -> Path:
    return Path(trial.settings.store.removeprefix("sqlite:///"))


async def test_locked_by_someone_else(sqlite_trial: Trial) -> None:
    trial = sqlite_trial
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(10)
            with closing(sqlite3.connect(file_of(trial), isolation_level=None, timeout=30)) as other:
                other.execute("BEGIN IMMEDIATE")
                await worker.says(DOES_NOT_ANSWER, times=repeat + 1)
                other.execute("ROLLBACK")
            await trial.answers(10)
    await trial.holds()


async def test_full_disk(disk_trial: Trial, disk: Path) -> None:
    trial = disk_trial
    async with trial.load():
        worker = await trial.worker()
        for repeat in trial.times(FEWER):
            await trial.answers(10)
            fill(disk / "filler")
            await worker.says(DOES_NOT_ANSWER, times=repeat + 1)
            (disk / "filler").unlink()
            remount(disk, f"size={8 + 4 * repeat}m")
            await trial.answers(10)
    await trial.holds()


async def test_read_only_disk(disk_trial: Trial, disk: Path) -> None:
    """Where the worker can't write any more, it ends or waits; the next one goes on."""
    trial = disk_trial
    remount(disk, "size=64m")
    async with trial.load():
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(10)
            await worker.end()
            remount(disk, "ro")
            refused = await trial.worker(ready=False)
            assert await refused.ends() != 0
            assert "Traceback" not in refused.said, refused.said
            remount(disk, "rw")
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


async def test_deleted_under_the_worker(sqlite_trial: Trial) -> None:
    """The next worker finds a feed that is ahead of its new store, says so, and is brought up from the log."""
    trial = sqlite_trial
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(20)
            delete(file_of(trial))
            await trial.answers(10)
            await trial.workers[-1].end(signal.SIGKILL)
            lost = await trial.worker(ready=False)
            await lost.says("the log stands still")
            assert "--rebuild" in lost.said
            await lost.end()
            await trial.worker("", "--rebuild")
            await trial.answers(10)
    await trial.holds()


def delete(store: Path) -> None:
    for path in store.parent.glob(f"{store.name}*"):
        if not path.name.endswith(".lock"):
            path.unlink()


@pytest.mark.parametrize("torn_bytes", [100, 20_000])
async def test_torn_tail_of_the_wal(sqlite_trial: Trial, torn_bytes: int) -> None:
    """What the tail held is gone: decided again from the log, on request where it had been published."""
    trial = sqlite_trial
    async with trial.load():
        for repeat in trial.times(FEWER):
            worker = await trial.worker(f"after_commit=kill@{20 + repeat % 7}")
            assert await worker.ends() == -signal.SIGKILL
            wal = file_of(trial).with_name("tidemark.db-wal")
            os.truncate(wal, max(0, wal.stat().st_size - torn_bytes))
            await trial.worker("", "--rebuild")
            await trial.answers(10)
            await trial.workers[-1].end()
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


async def test_a_flipped_byte_is_found_by_verify(sqlite_trial: Trial) -> None:
    trial = sqlite_trial
    async with trial.load():
        await trial.worker()
        await trial.answers(300)
    await trial.healed()
    await trial.workers[-1].end()
    whole = file_of(trial).read_bytes()
    chance = random.Random(1)
    places = [at for at in find_all(whole, b"Counted") if whole[at + 7 : at + 200].count(b'{"n"')]
    for number in trial.times(FLIPS):
        at = places[number * len(places) // FLIPS]
        file_of(trial).write_bytes(flipped(whole, at + chance.randrange(7)))
        code, printed = await trial.command("verify")
        assert code == 1, f"byte {at}: {printed}"
        assert "hash" in printed or "malformed" in printed, printed
    file_of(trial).write_bytes(whole)
    code, printed = await trial.command("verify")
    assert code == 0, printed


def find_all(data: bytes, text: bytes) -> list[int]:
    found, at = [], data.find(text)
    while at >= 0:
        found.append(at)
        at = data.find(text, at + 1)
    return found


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_failing_system_call(sqlite_trial: Trial, call: str, error: str) -> None:
    """Writes and flushes of the file fail for a while, as on a broken or full disk."""
    trial = sqlite_trial
    async with trial.load():
        worker = await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(10)
            said = worker.said.count(DOES_NOT_ANSWER)
            async with failing(worker, f"{call}:error={error}"):
                await worker.says(DOES_NOT_ANSWER, times=said + 1)
            await trial.answers(10)
    await trial.holds()


@pytest.mark.parametrize("result", ["error=EIO", "retval=0"], ids=["EIO", "short"])
async def test_failing_reads(sqlite_trial: Trial, result: str) -> None:
    """What can't be read, or not in full, is never taken for an answer: the worker waits, or ends and says so."""
    trial = sqlite_trial
    async with trial.load():
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(10)
            async with failing(worker, f"pread64:{result}"):
                # Another owner's write makes the worker read again what it has in its memory.
                await trial.take_over()
                await until(lambda: says_fault(worker))  # noqa: B023 - awaited before the next one
            if not worker.has_ended:
                await trial.answers(10)
                await worker.end()
            assert "Traceback" not in worker.said, worker.said
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


def says_fault(worker: WorkerProcess) -> bool:
    return worker.has_ended or any(text in worker.said for text in (DOES_NOT_ANSWER, "can't be claimed yet"))


@pytest.mark.parametrize("bytes_more", [1, 5_000, 16_500], ids=["1-byte", "half-a-page", "a-page"])
async def test_short_writes(sqlite_trial: Trial, bytes_more: int) -> None:
    """The file may grow by so many bytes more: the kernel writes a part of what it is given, then nothing."""
    trial = sqlite_trial
    async with trial.load():
        worker = await trial.worker()
        process = psutil.Process(worker.pid)
        for _ in trial.times(FEWER):
            await trial.answers(10)
            said = worker.said.count(DOES_NOT_ANSWER)
            most = file_of(trial).with_name("tidemark.db-wal").stat().st_size + bytes_more
            process.rlimit(psutil.RLIMIT_FSIZE, (most, psutil.RLIM_INFINITY))
            await worker.says(DOES_NOT_ANSWER, times=said + 1)
            process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
            await trial.answers(10)
    await trial.holds()


@asynccontextmanager
async def failing(worker: WorkerProcess, how: str) -> AsyncIterator[None]:
    """Let a system call of the worker's file I/O fail while the block runs; `how` is strace's: CALL:error=NAME."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    inject = ("-e", f"trace={how.partition(':')[0]}", "-e", f"inject={how}")
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-p", str(worker.pid), "-o", os.devnull, *inject, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        attached = (await tracer.stderr.readline()).decode()
        if "attached" not in attached:
            pytest.skip(f"strace can't attach: {attached.strip()}")
        yield
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGINT)
        await tracer.communicate()
