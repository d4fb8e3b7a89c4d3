"""A file system of a test's own, small enough to be filled, and what can be done to it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int, user: int | None = None) -> Iterator[Path]:
    """A new file system on a new folder, owned by `user`; the test is left out where it may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tidemark", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        if user is not None:
            os.chown(folder, user, -1)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a disk's options, such as `size=8m` or `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(path: Path) -> None:
    """Make a file of all the room that is left on its disk."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return
