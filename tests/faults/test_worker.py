"""Faults of the worker process: killed at each point of the data path, held past its session, ended in mid-batch."""

import signal
from typing import Any

import psutil
import pytest

from processor.failpoints import FailPoint
from tests.faults.trial import FEWER, MANY, Trial, WorkerProcess, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60 + 30 * MANY)]

# A name that outlives the process: the next one has the logs back at once, without waiting for a session to end.
SAME_WORKER: Any = {"TIDEMARK_GROUP_INSTANCE_ID": "worker-1"}
# Copied, not written in one statement, are more events than this in PostgreSQL: only then is a commit in two parts.
MANY_EVENTS = 250
AT_CLAIM = {FailPoint.BEFORE_CLAIM, FailPoint.AFTER_CLAIM}
AT_THE_END = {FailPoint.ON_REVOCATION, FailPoint.ON_SHUTDOWN}


@pytest.mark.parametrize("point", FailPoint, ids=lambda point: point.value)
async def test_killed(trial: Trial, point: FailPoint) -> None:
    on_postgres = trial.settings.store.startswith("postgresql:")
    many = point is FailPoint.WITHIN_COMMIT and on_postgres
    async with trial.load(most_events=MANY_EVENTS if many else 3, clients=4):
        for repeat in trial.times(MANY):
            # At another time of its life in each repetition, from the first on.
            time = 1 if point in AT_CLAIM | AT_THE_END else 1 + repeat % 7
            worker = await trial.worker(f"{point.value}=kill@{time}", ready=False, **SAME_WORKER)
            if point in AT_THE_END:
                await worker.says("owning logs")
                await trial.answers(5)
                worker.send(signal.SIGTERM)
            assert await worker.ends() == -signal.SIGKILL, worker.said
        await trial.worker(**SAME_WORKER)
        await trial.answers(10)
    await trial.holds()


# Behind its decision, behind its commit with the feed or the replies still to be sent, and with both out.
HELD_AT = ["before_commit", "after_commit", "before_feed", "before_replies", "after_replies", "before_offset_commit"]


@pytest.mark.parametrize("point", HELD_AT)
async def test_held_past_its_session_and_let_go_again(postgres_trial: Trial, point: str) -> None:
    trial = postgres_trial
    async with trial.load():
        for repeat in trial.times(MANY):
            zombie = await trial.worker(f"{point}=pause@{2 + repeat % 7}", ready=False)
            await until(lambda: zombie.is_stopped)  # noqa: B023 - awaited before the next one
            successor = await trial.worker()
            await trial.answers(10)
            zombie.send(signal.SIGCONT)
            await trial.answers(10)
            assert await successor.end() == 0
            await trial.answers(10)
            assert await zombie.end() == 0, zombie.said
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


async def test_ended_in_the_middle_of_a_batch(trial: Trial) -> None:
    async with trial.load():
        for repeat in trial.times(FEWER):
            # It is told to end while a commit is under way, and its publications wait behind that.
            worker = await trial.worker(f"before_commit=delay:0.3@{3 + repeat % 7}")
            await trial.answers(5)
            assert await worker.end() == 0, worker.said
            assert "Traceback" not in worker.said
        await trial.worker()
        await trial.answers(10)
    await trial.holds()


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_feed"])
async def test_a_bug_ends_the_process_and_the_next_one_goes_on(trial: Trial, point: str) -> None:
    async with trial.load():
        for repeat in trial.times(FEWER):
            worker = await trial.worker(f"{point}=raise@{1 + repeat % 7}", ready=False, **SAME_WORKER)
            assert await worker.ends() not in (0, -signal.SIGKILL)
            assert "the pipeline crashed" in worker.said
        await trial.worker(**SAME_WORKER)
        await trial.answers(10)
    await trial.holds()


async def test_a_second_worker_on_sqlite_is_refused(sqlite_trial: Trial) -> None:
    async with sqlite_trial.load():
        await sqlite_trial.worker()
        second = await sqlite_trial.worker(ready=False)
        assert await second.ends() == 2
        assert "in use by process" in second.said
        await sqlite_trial.answers(10)
    await sqlite_trial.holds()


async def test_a_worker_whose_loop_stands_still_ends_itself(trial: Trial) -> None:
    async with trial.load():
        for repeat in trial.times(FEWER):
            # Heartbeats go on, so the group would never take its logs away.
            stalled = await trial.worker(
                f"after_commit=pause:600@{2 + repeat % 7}", ready=False, TIDEMARK_STALL_TIMEOUT_S="2", **SAME_WORKER
            )
            assert await stalled.ends() == 1
            assert "the event loop stands still" in stalled.said
        await trial.worker(**SAME_WORKER)
        await trial.answers(10)
    await trial.holds()


LARGE_BYTES = 200_000
LARGE_COMMANDS = 200


async def test_a_memory_limit_is_hit(trial: Trial) -> None:
    """Wherever an allocation fails while a backlog of large commands is drained, the process ends and says why."""
    backlog = trial.folder / "large.jsonl"
    data = "x" * LARGE_BYTES
    async with trial.load():
        for repeat in trial.times(FEWER):
            worker = await trial.worker(**SAME_WORKER)
            await trial.answers(5)
            limit_memory(worker, more_bytes=(repeat % 5) * 2**18)
            backlog.write_text(
                "".join(
                    f'{{"stream":"large-{n % 9}","events":[{{"type":"Large","data":"{data}"}}]}}\n'
                    for n in range(LARGE_COMMANDS)
                )
            )
            assert (await trial.command("send", "--no-wait", str(backlog)))[0] == 0
            assert await worker.ends() != 0, worker.said
            assert "emory" in worker.said, worker.said
        await trial.worker(**SAME_WORKER)
        await trial.answers(10)
    await trial.holds()


def limit_memory(worker: WorkerProcess, more_bytes: int) -> None:
    """Let a worker's address space grow by so much more, and then no further."""
    process = psutil.Process(worker.pid)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + more_bytes, psutil.RLIM_INFINITY))
