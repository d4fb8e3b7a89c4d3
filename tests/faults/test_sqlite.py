"""Faults of SQLite's file: locked, full, read-only, deleted, a torn WAL, a flipped byte, writes that fail."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.faults.conftest import NewTrial
from tests.faults.trial import FEWER, REPEATS, Trial, WorkerProcess
from tests.servers import Kafka

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]

FLIPS = 10
DOES_NOT_ANSWER = "the store does not answer"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tidemark", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
async def disk_trial(real_kafka: Kafka, disk: Path, new_trial: NewTrial) -> Trial:
    """A trial whose store is on a disk that can be filled and locked."""
    return await new_trial(real_kafka.bootstrap, f"sqlite:///{disk}/tidemark.db")


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


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


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


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
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    trial = sqlite_trial
    async with trial.load():
        worker = await trial.worker()
        for _ in trial.times(FEWER):
            await trial.answers(10)
            said = worker.said.count(DOES_NOT_ANSWER)
            async with failing(worker, call, error):
                await worker.says(DOES_NOT_ANSWER, times=said + 1)
            await trial.answers(10)
    await trial.holds()


@asynccontextmanager
async def failing(worker: WorkerProcess, call: str, error: str) -> AsyncIterator[None]:
    """Let a system call of the worker's file I/O fail while the block runs."""
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}")
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
