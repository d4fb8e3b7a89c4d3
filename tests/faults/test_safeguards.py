"""Faults against which one safeguard stands: they are held, and noticed once it is switched off in the worker."""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from processor.messages import Log
from tests.faults.checker import check
from tests.faults.evidence import collect, reading
from tests.faults.trial import Trial, WorkerProcess, execute, until
from tests.faults.unsafe import VARIABLE, WITHOUT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

ROOT = str(Path(__file__).parents[2])
# Before clients have given up, nobody may be there who answers.
QUICK: Any = {"timeout_s": 2.0, "clients": 4}


async def a_worker(trial: Trial, without: str, failpoints: str = "", *, ready: bool = True) -> WorkerProcess:
    environment: Any = {VARIABLE: without, "PYTHONPATH": ROOT}
    return await trial.worker(failpoints, ready=ready, program="tests.faults.unsafe", **environment)


async def places(trial: Trial) -> dict[Log, tuple[int, int]]:
    """By log: the owner's epoch, and the next offset to be decided."""
    async with reading(trial.settings) as store:
        return {log: (found.epoch, found.next_offset) for log, found in (await store.checkpoints()).items()}


async def breaches(trial: Trial, rule: str) -> list[str]:
    evidence = await collect(trial.settings, trial.history, from_log=False)
    return [breach for breach in check(evidence, ["chains_hold"]) if breach.startswith(rule)]


async def a_zombie_writes_nothing(trial: Trial, without: str) -> list[str]:
    """Its successor has claimed the logs, and is itself held before it decides: nobody may write meanwhile."""
    async with trial.load(**QUICK):
        zombie = await a_worker(trial, without, "before_commit=pause@5", ready=False)
        await until(lambda: zombie.is_stopped)
        successor = await a_worker(trial, without, "after_claim=pause", ready=False)
        await until(lambda: successor.is_stopped)
        claimed = await places(trial)
        zombie.send(signal.SIGCONT)
        # Or the group has taken its logs back before the store could say so, and it has claimed them anew.
        while "another owner has claimed" not in zombie.said and zombie.said.count("owning logs") < 2:
            assert not zombie.has_ended, zombie.said
            now = await places(trial)
            written = [log for log, (epoch, at) in now.items() if epoch == claimed[log][0] and at != claimed[log][1]]
            if written:
                return [f"{written[0]}: an owner that is not the last one has written"]
        await zombie.end(signal.SIGKILL)
        await successor.end()
        await a_worker(trial, without)
        await trial.answers(5)
    await trial.holds()
    return []


async def what_is_answered_is_in_the_store(trial: Trial, without: str) -> list[str]:
    async with trial.load(**QUICK):
        worker = await a_worker(trial, without, "after_replies=kill@3", ready=False)
        assert await worker.ends() == -signal.SIGKILL
        return await breaches(trial, "nothing_made_up")


async def sent_again_is_stored_once(trial: Trial, without: str) -> list[str]:
    # The database's own key would stop the worker, before there is anything for the checker to find.
    await execute(trial.settings.store, "ALTER TABLE events DROP CONSTRAINT events_id_key")
    async with trial.load():
        await a_worker(trial, without)
        await trial.answers(200)
    return await breaches(trial, "one_effect")


SCENARIOS: dict[str, Callable[[Trial, str], Awaitable[list[str]]]] = {
    "epoch check": a_zombie_writes_nothing,
    "publish after commit": what_is_answered_is_in_the_store,
    "dedup by event id": sent_again_is_stored_once,
}


@pytest.mark.parametrize("safeguard", SCENARIOS)
async def test_it_holds(postgres_trial: Trial, safeguard: str) -> None:
    assert await SCENARIOS[safeguard](postgres_trial, "") == []


@pytest.mark.parametrize("safeguard", SCENARIOS)
async def test_it_is_missed(
    postgres_trial: Trial, safeguard: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("safeguard", safeguard)
    assert safeguard in WITHOUT
    found = await SCENARIOS[safeguard](postgres_trial, safeguard)
    assert found
    record_property("noticed", f"a trial, {found[0]}")
