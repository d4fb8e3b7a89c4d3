"""A Docker engine, a base image and builds, for tests that want the image for real.

The engine that answers is used, or one is started on a socket of its own (root, Debian's `docker.io`), and ended
again. The base is Docker's official Python image, or where none can be pulled, a Debian made by `debootstrap`.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import CannotRun, cache_folder, kafka_libs

ROOT = Path(__file__).parents[2]
OFFICIAL = "python:3.13-slim"
OURS = "tidemark-test/base"
KAFKA = "tidemark-test/kafka:dev"
POSTGRES = "tidemark-test/postgres:dev"

_START_S = 60.0
_BUILD_S = 900
_PULL_S = 120
_PARTS = Path(__file__).parent / "parts"
_PACKAGES = "ca-certificates,python3,python3-venv"


class Engine:
    """Docker's command line, pointed at one engine."""

    def __init__(self, address: str | None = None) -> None:
        self.environment = os.environ | ({"DOCKER_HOST": address} if address else {})

    def run(self, *arguments: str | Path, check: bool = True, timeout_s: float = 120) -> str:
        """Run a docker command; returns what it printed. Raises `AssertionError` with what it said."""
        done = subprocess.run(
            ["docker", *arguments], check=False, text=True, capture_output=True, env=self.environment, timeout=timeout_s
        )
        assert not check or not done.returncode, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def answers(self) -> bool:
        """Whether there is an engine."""
        return shutil.which("docker") is not None and bool(
            self.run("version", "--format", "{{.Server.Version}}", check=False)
        )

    def inspect(self, what: str) -> Any:
        """What the engine knows of an image or a container."""
        return json.loads(self.run("inspect", what))[0]

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        return bool(self.run("images", "--quiet", image))

    def pulls(self, image: str) -> bool:
        """Whether an image is there, or can be brought."""
        if not self.has(image):
            self.run("pull", "--quiet", image, check=False, timeout_s=_PULL_S)
        return self.has(image)

    def base(self) -> str:
        """An image with Python to build on. Raises `CannotRun`."""
        if given := os.environ.get("TIDEMARK_TEST_BASE_IMAGE"):
            return given
        for image in (OURS, OFFICIAL):
            if self.has(image):
                return image
        if self.pulls(OFFICIAL):
            return OFFICIAL
        self._make_base()
        return OURS

    def _make_base(self) -> None:
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            raise CannotRun(f"{OFFICIAL} can't be pulled, and without root and debootstrap no base image can be made")
        with tempfile.TemporaryDirectory(prefix="tidemark-base-") as folder:
            root = Path(folder) / "root"
            command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "stable", str(root)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_BUILD_S)
            if done.returncode:
                raise CannotRun(f"debootstrap: {done.stdout[-500:]}")
            _trim(root)
            packed = Path(folder) / "root.tar"
            subprocess.run(["tar", "-C", root, "-cf", packed, "."], check=True)
            self.run("import", packed, OURS, timeout_s=_BUILD_S)

    def build(self, tag: str, dockerfile: Path, context: Path, **arguments: str) -> None:
        """Build an image. The host's network is used: the registries may be reachable from there alone."""
        given = [text for name, value in arguments.items() for text in ("--build-arg", f"{name}={value}")]
        self.run(
            "build", "--quiet", "--network", "host", "--file", dockerfile, *given, "--tag", tag, context,
            timeout_s=_BUILD_S,
        )  # fmt: skip

    def build_tidemark(self, tag: str) -> None:
        """The product's image."""
        self.build(tag, ROOT / "docker" / "Dockerfile", ROOT, BASE=self.base())

    def build_kafka(self) -> None:
        """An image that is set up as the official one, from Kafka's jars."""
        jars = "tidemark-test/kafka:jars"
        self.build(jars, _PARTS / "kafka-jars.Dockerfile", kafka_libs(), BASE=self.base())
        self.build(KAFKA, _PARTS / "kafka.Dockerfile", _PARTS, BASE=jars)

    def build_postgres(self) -> None:
        """An image that is set up as the official one, from Debian's packages."""
        self.build(POSTGRES, _PARTS / "postgres.Dockerfile", _PARTS, BASE=self.base())


def _trim(root: Path) -> None:
    """As official images are: without documentation, translations and lists; and trusting what this machine trusts."""
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt", "var/log"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for found in (root / "var/lib/apt/lists").glob("*_*"):
        found.unlink()
    trusted = Path("/etc/ssl/certs/ca-certificates.crt")
    if trusted.exists():
        shutil.copy(trusted, root / trusted.relative_to("/"))


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine that answers, or one that is started for as long as the block runs. Raises `CannotRun`."""
    given = Engine()
    if given.answers():
        yield given
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("docker") is None:
        raise CannotRun("no Docker engine answers, and none can be started here")
    with tempfile.TemporaryDirectory(prefix="tidemark-docker-") as folder:
        address = f"unix://{folder}/docker.sock"
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(_command(folder, address), stdout=log, stderr=log)
        try:
            started = Engine(address)
            deadline = time.monotonic() + _START_S
            while not started.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CannotRun(f"dockerd did not start: {(Path(folder) / 'log').read_text()[-500:]}")
                time.sleep(0.1)
            yield started
        finally:
            process.terminate()
            process.wait(_START_S)
            _unmount(folder)


def _unmount(folder: str) -> None:
    """What an engine leaves mounted below its folder: the network of the machine, where a container has used it."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in reversed([path for path in mounted if Path(path).is_relative_to(folder)]):
        subprocess.run(["umount", path], check=True, capture_output=True, timeout=_START_S)


def _command(folder: str, address: str) -> list[str]:
    cache = str(cache_folder("docker"))
    return ["dockerd", "-H", address, "--data-root", cache, "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid"]
