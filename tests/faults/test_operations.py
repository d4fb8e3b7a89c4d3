"""Faults that an operator brings about: older backups, topics, retention, two deployments or versions at once."""

import io
import shutil
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete

from processor.client import Client, Event
from processor.kafka.topics import create_topics
from processor.messages import Rejected
from processor.names import TopicNames
from tests.faults.checker import one_verdict
from tests.faults.evidence import collect, ends_of
from tests.faults.trial import FEWER, OF_ONE_LOG, PARTITIONS, REPEATS, Trial, execute, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90 + 40 * REPEATS)]

STANDS_STILL = "the log stands still"
ROOT = Path(__file__).parents[2]
MIGRATIONS = "processor/stores/migrations/versions"


@pytest.fixture(scope="session")
def earlier_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it was when today's schema came: the oldest version that runs beside this one on one store."""
    try:
        history = git("log", "--diff-filter=A", "--format=%H", "--", MIGRATIONS).decode().split()
        if git("rev-parse", "--is-shallow-repository").strip() != b"false" or not history:
            pytest.skip("needs the repository's history: there is only the newest version")
        tree = git("archive", history[0], "processor", "schemas")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the repository's history: {error}")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(tree)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


@asynccontextmanager
async def admin(trial: Trial) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=trial.settings.brokers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def names(trial: Trial) -> TopicNames:
    return TopicNames.of(trial.settings.topic_prefix, "default")


async def make_anew(trial: Trial, topic: str) -> None:
    await delete(trial, topic)
    await create_topics(trial.settings)


async def delete(trial: Trial, topic: str) -> None:
    async with admin(trial) as client:
        await client.delete_topics([topic])
    while topic in await topics(trial):
        pass


async def topics(trial: Trial) -> list[str]:
    async with admin(trial) as client:
        return [str(topic) for topic in await client.list_topics()]


class Backup:
    """A copy of a store that no worker has open, and its return."""

    def __init__(self, trial: Trial) -> None:
        self._url = trial.settings.store
        self._is_postgres = self._url.startswith("postgresql:")
        self._file = Path(self._url.removeprefix("sqlite:///"))

    async def make(self) -> None:
        if self._is_postgres:
            await self._copy(self._name, f"{self._name}-copy")
        else:
            shutil.copy(self._file, self._file.with_suffix(".copy"))

    async def restore(self) -> None:
        if self._is_postgres:
            await self._copy(f"{self._name}-copy", self._name)
        else:
            # A write-ahead log that stays would bring back what came after the backup.
            for beside in ("-wal", "-shm"):
                self._file.with_name(self._file.name + beside).unlink(missing_ok=True)
            shutil.copy(self._file.with_suffix(".copy"), self._file)

    @property
    def _name(self) -> str:
        return urlsplit(self._url).path.lstrip("/")

    async def _copy(self, source: str, target: str) -> None:
        server = urlsplit(self._url)._replace(path="/postgres").geturl()
        await execute(server, f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)')
        await execute(server, f'CREATE DATABASE "{target}" TEMPLATE "{source}"')

    async def remove(self) -> None:
        if self._is_postgres:
            server = urlsplit(self._url)._replace(path="/postgres").geturl()
            await execute(server, f'DROP DATABASE IF EXISTS "{self._name}-copy" WITH (FORCE)')


async def test_the_store_is_restored_from_an_older_backup(trial: Trial) -> None:
    """Broker and feed are ahead: the logs stand still, and `--rebuild` decides again what is missing."""
    backup = Backup(trial)
    async with trial.load():
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(20)
            await worker.end()
            await backup.make()
            worker = await trial.worker()
            await trial.answers(20)
            await worker.end(signal.SIGKILL)
            await backup.restore()
            misfit = await trial.worker(ready=False)
            await misfit.says(STANDS_STILL)
            assert "restored from an older backup" in misfit.said
            await misfit.end()
            rebuilt = await trial.worker("", "--rebuild")
            await trial.answers(20)
            await rebuilt.end()
        await trial.worker()
    await trial.holds()
    await backup.remove()


async def test_the_commands_topic_is_made_anew(trial: Trial) -> None:
    """No log is guessed to be the old one, and what is stored stays as it is."""
    async with trial.load():
        worker = await trial.worker()
        await trial.answers(40)
    await trial.holds()
    await worker.end()
    before = await trial.command("verify", "--no-feed", "--output", "json")
    await make_anew(trial, names(trial).commands)
    for _ in trial.times(FEWER):
        misfit = await trial.worker(ready=False)
        await misfit.says(STANDS_STILL, times=PARTITIONS)
        assert "made anew" in misfit.said
        code, printed = await trial.command("doctor")
        assert code != 0 and "made anew" in printed
        await misfit.end()
    assert await trial.command("verify", "--no-feed", "--output", "json") == before


async def test_the_feed_is_made_anew(trial: Trial) -> None:
    """It goes on behind what was acknowledged: what is missing is said by `verify`, and nothing is out of order."""
    async with trial.load():
        worker = await trial.worker()
        await trial.answers(40)
    await trial.holds()
    await worker.end()
    await make_anew(trial, names(trial).events)
    async with trial.load():
        await trial.worker()
        await trial.answers(40)
    await trial.holds(without=["feed_in_order"])
    code, printed = await trial.command("verify")
    assert code == 1 and "feed" in printed


async def test_the_commands_topic_is_deleted_under_the_worker(trial: Trial) -> None:
    """It stands still once the topic is there again, and a new log is decided when an operator has chosen that."""
    async with trial.load(timeout_s=5.0):
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(20)
            await make_anew(trial, names(trial).commands)
            await worker.says(STANDS_STILL, times=PARTITIONS)
            assert "made anew" in worker.said and "Traceback" not in worker.said
            code, printed = await trial.command("doctor")
            assert code != 0 and "made anew" in printed
            assert await worker.end() == 0
            before = await trial.command("verify", "--no-feed", "--output", "json")
            assert before[0] == 0
            assert (await trial.command("recover", "new-log", "--dry-run"))[0] == 0
            assert await trial.command("verify", "--no-feed", "--output", "json") == before
            code, printed = await trial.command("recover", "new-log")
            assert code == 0, printed
        await trial.worker()
        await trial.answers(20)
    await trial.holds(without=OF_ONE_LOG, from_log=False)


async def test_the_feed_is_deleted_under_the_worker(trial: Trial) -> None:
    """The worker waits for it, and goes on behind what was out; a whole feed is published anew where one is wanted."""
    feed = names(trial).events
    async with trial.load():
        for _ in trial.times(FEWER):
            worker = await trial.worker()
            await trial.answers(20)
            await delete(trial, feed)
            await worker.says(f"{feed} not found")
            code, printed = await trial.command("doctor")
            assert code != 0 and feed in printed
            await create_topics(trial.settings)
            await trial.answers(20)
            assert await worker.end() == 0
        await trial.worker()
    await trial.holds(without=["feed_in_order"])
    code, printed = await trial.command("verify")
    assert code == 1 and "the feed begins" in printed
    await trial.workers[-1].end()
    await make_anew(trial, feed)
    code, printed = await trial.command("recover", "republish")
    assert code == 0, printed
    await trial.worker()
    await trial.holds()
    assert (await trial.command("verify"))[0] == 0


async def test_partitions_are_added(trial: Trial) -> None:
    """A worker that starts refuses the topic, and says so; the store stays as it is."""
    async with trial.load():
        worker = await trial.worker()
        await trial.answers(20)
    await trial.holds()
    await worker.end()
    async with admin(trial) as client:
        await client.create_partitions({names(trial).commands: NewPartitions(PARTITIONS + 2)})
    refused = await trial.worker(ready=False)
    assert await refused.ends() == 2
    assert "partitions" in refused.said and "Traceback" not in refused.said
    code, _ = await trial.command("verify", "--no-feed")
    assert code == 0


async def test_commands_are_deleted_before_they_are_decided(trial: Trial) -> None:
    async with trial.load():
        worker = await trial.worker()
        await trial.answers(40)
    await trial.healed()
    await worker.end()
    ends = await ends_of(trial.settings, names(trial).commands)
    partition = max(ends, key=lambda one: ends[one])
    stream = next(f"s-{n}" for n in range(9) if trial.partition_of(f"s-{n}") == partition)
    lines = "".join(f'{{"stream":"{stream}","events":[{{"type":"Lost"}}]}}\n' for _ in range(3))
    (trial.folder / "lost.jsonl").write_text(lines)
    assert (await trial.command("send", "--no-wait", str(trial.folder / "lost.jsonl")))[0] == 0
    async with admin(trial) as client:
        await client.delete_records(
            {TopicPartition(names(trial).commands, partition): RecordsToDelete(ends[partition] + 2)}
        )
    misfit = await trial.worker(ready=False)
    await misfit.says(STANDS_STILL)
    assert "deleted before they were decided" in misfit.said
    await until(lambda: "owning logs" in misfit.said)
    assert misfit.said.count(STANDS_STILL) == 1
    code, _ = await trial.command("verify")
    assert code == 0


async def test_another_number_of_partitions_on_the_same_store(trial: Trial) -> None:
    async with trial.load():
        await trial.worker()
        for _ in trial.times(FEWER):
            other = await trial.worker(ready=False, TIDEMARK_PARTITIONS=str(PARTITIONS + 4), TIDEMARK_GROUP="another")
            assert await other.ends() == 2
            assert "partitions" in other.said and "Traceback" not in other.said
            await trial.answers(10)
    await trial.holds()


async def test_two_versions_take_turns(trial: Trial, earlier_code: Path) -> None:
    """An upgrade and the way back, each time over what the other has left: ended in its own way, or killed."""
    async with trial.load():
        for _ in trial.times(FEWER):
            for number in (signal.SIGTERM, signal.SIGKILL):
                for code in (earlier_code, None):
                    worker = await trial.worker(code=code)
                    await trial.answers(20)
                    await worker.end(number)
        await trial.worker()
    await trial.holds()


async def test_a_rolling_upgrade(postgres_trial: Trial, earlier_code: Path) -> None:
    """Workers of two versions in one group, that take the logs from each other, forwards and back."""
    trial = postgres_trial
    async with trial.load():
        old = [await trial.worker(code=earlier_code), await trial.worker(code=earlier_code)]
        for repeat in trial.times(max(2, FEWER)):
            leaves = signal.SIGKILL if repeat % 2 else signal.SIGTERM
            new = []
            for worker in old:
                new.append(await trial.worker())
                await trial.answers(20)
                await worker.end(leaves)
                await trial.answers(20)
            old = [await trial.worker(code=earlier_code)]
            await trial.answers(20)
            for worker in new:
                await worker.end(leaves)
            await trial.answers(20)
        await trial.worker()
    await trial.holds()


@pytest.mark.parametrize("held", [True, False])
async def test_retention_passes_the_store(trial: Trial, held: bool) -> None:
    """Under a worker that is held, or while none runs: it gives up nothing unasked, and goes on when it is told to."""
    for _ in trial.times(FEWER):
        async with trial.load(timeout_s=3.0):
            worker = await trial.worker()
            await trial.answers(20)
            if held:
                worker.send(signal.SIGSTOP)
            else:
                assert await worker.end() == 0
            await delete_more_than(trial, await ends(trial))
            if held:
                worker.send(signal.SIGCONT)
            else:
                worker = await trial.worker(ready=False)
            await worker.says(STANDS_STILL)
            assert "deleted before they were decided" in worker.said and "skip-deleted" in worker.said
            code, printed = await trial.command("doctor")
            assert code != 0 and "skip-deleted" in printed
            assert await worker.end() == 0
            code, printed = await trial.command("recover", "skip-deleted")
            assert code == 0 and "give up" in printed, printed
            worker = await trial.worker()
            await trial.answers(20)
        await trial.healed()
        await worker.end()
    await trial.worker()
    # What was given up is decided when its clients send it again; it has no answer at the offsets that are gone.
    await trial.holds(without=OF_ONE_LOG, from_log=False)


async def delete_more_than(trial: Trial, decided: dict[int, int]) -> None:
    """Wait until some log is longer than it was, and delete all that it has."""
    while not (longer := [one for one, end in (await ends(trial)).items() if end > decided[one] + 2]):
        pass
    async with admin(trial) as client:
        await client.delete_records({TopicPartition(names(trial).commands, one): RecordsToDelete(-1) for one in longer})


async def ends(trial: Trial) -> dict[int, int]:
    return await ends_of(trial.settings, names(trial).commands)


async def test_two_deployments_with_other_limits(trial: Trial) -> None:
    """Each record keeps the verdict that it was given, whoever repeats it; one that is sent again may get another."""
    async with trial.load():
        for _ in trial.times(FEWER):
            strict = await trial.worker("after_commit=kill@5", ready=False, TIDEMARK_MAX_EVENTS="1")
            await strict.ends()
            other = await trial.worker()
            await trial.answers(20)
            await other.end(signal.SIGKILL)
        await trial.worker()
    # A command that was refused at first and is taken later is appended after its first answer.
    await trial.holds(without=["one_verdict", "linearisable"], from_log=False)
    evidence = await collect(trial.settings, trial.history, from_log=False)
    assert [breach for breach in one_verdict(evidence) if not breach.startswith("command ")] == []
    assert "too_large" in {reply.reason for reply in evidence.replies if isinstance(reply, Rejected)}


async def test_two_deployments_with_other_tenants(postgres_trial: Trial) -> None:
    """In one group: every log has an owner that serves it, whoever comes and goes."""
    trial = postgres_trial
    both = trial.settings.model_copy(update={"tenants": ["default", "acme"]})
    await create_topics(both)
    async with trial.load():
        for _ in trial.times(FEWER):
            one = await trial.worker()
            two = await trial.worker("", TIDEMARK_TENANTS="default,acme")
            await trial.answers(20)
            async with Client(both, tenant="acme") as client:
                for n in range(4 * PARTITIONS):
                    await client.append(f"s-{n}", [Event("Counted", n)], timeout_s=20)
            await one.end()
            await trial.answers(20)
            await two.end()
        await trial.worker()
    await trial.holds()
