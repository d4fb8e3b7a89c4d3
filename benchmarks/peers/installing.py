"""What peers are made of, at fixed versions: installed the first time, and kept in the user's cache.

Each raises `CannotRun` where the tool that installs it is missing, or fails.
"""

import fcntl
import shutil
import subprocess
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bed import say
from tests.servers import CannotRun, cache_folder

_QUICK_S, _BUILD_S = 300.0, 3_600.0


def python_environment(name: str, packages: Sequence[str]) -> Path:
    """An environment with these packages; returns the folder of its programs."""

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        _run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages], folder, _QUICK_S)

    return _installed(name, packages, install) / "bin"


def npm_packages(name: str, packages: Sequence[str]) -> Path:
    """A folder with these packages under `node_modules`."""

    def install(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true}')
        options = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        _run([_tool("npm"), "install", *options, *packages], folder, _QUICK_S)

    return _installed(name, packages, install)


def cargo_program(name: str, crate: str) -> Path:
    """A program built from a crate (`name@version`), which may take half an hour; returns the folder of programs."""

    def install(folder: Path) -> None:
        build = folder / "build"
        options = ("--quiet", "--locked", "--root", folder, "--target-dir", build)
        _run([_tool("cargo"), "install", *options, crate], folder, _BUILD_S)
        shutil.rmtree(build)

    return _installed(name, [crate], install) / "bin"


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotRun(f"needs {name}")
    return found


def _installed(name: str, what: Sequence[str], install: Callable[[Path], None]) -> Path:
    """The folder of the peer, where it is complete and of these versions; else made anew."""
    home = cache_folder("peers")
    home.mkdir(exist_ok=True)
    folder = home / name
    mark, wanted = folder / "installed", "\n".join(what)
    with (home / f"{name}.lock").open("w") as lock:
        # Held until the file is closed. Another process may be installing it right now.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            say(f"installing {', '.join(what)}")
            install(folder)
            mark.write_text(wanted)
    return folder


def _run(command: Sequence[str | Path], folder: Path, longest_s: float) -> None:
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=longest_s)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{Path(command[0]).name} took more than {longest_s:.0f} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it did not say why"]
        raise CannotRun(f"{Path(command[0]).name} failed: {lines[-1]}")
