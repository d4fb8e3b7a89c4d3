"""A disk that is slower: a program runs with a library that waits after each sync, as do all the programs it starts."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.servers import CannotRun

DELAY_MS = 2.0

_SOURCE = Path(__file__).with_name("slow_fsync.c")
_DELAY = "SLOW_FSYNC_US"


def is_slow() -> bool:
    """Whether the disk of this process is slower. Raises `CannotRun` where it should be and is not."""
    if _DELAY not in os.environ:
        return False
    with tempfile.TemporaryFile() as file:
        begin = time.perf_counter()
        os.fdatasync(file.fileno())
        if (time.perf_counter() - begin) * 1000 < DELAY_MS:
            raise CannotRun("the library that makes syncs slow has no effect here")
    return True


def run_on_slow_disk(command: Sequence[str]) -> int:
    """Run it on a disk whose syncs take `DELAY_MS` more; its exit code. Raises `CannotRun` without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        raise CannotRun("a slow disk needs Linux and a C compiler (cc)")
    with tempfile.TemporaryDirectory(prefix="tidemark-slow-disk-") as folder:
        # PostgreSQL runs as another user where this is run by root.
        Path(folder).chmod(0o755)
        library = Path(folder) / "slow_fsync.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True, timeout=60)
        environment = os.environ | {"LD_PRELOAD": str(library), _DELAY: f"{DELAY_MS * 1000:.0f}"}
        return subprocess.run(command, env=environment, check=False).returncode
