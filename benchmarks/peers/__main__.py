"""Give each the same work, one after the other, and print what it did a second."""

import argparse
import asyncio
import subprocess
import sys
import venv
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.bed import Bed, Site, StoreKind, bed, say
from benchmarks.peers.ours import through_kafka, through_store
from benchmarks.report import RESULT
from processor.cli.tuning import tune_interpreter

_PEERS = RESULT.parent / "peers"
_EVENTSOURCING = ("eventsourcing==9.5.6", "psycopg[binary,pool]==3.3.9")
_LONGEST_S = 300.0

_Work = Callable[[Site, float], Awaitable[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each kind of work (5)")
    seconds: float = parser.parse_args().seconds
    python = _environment("eventsourcing", _EVENTSOURCING)

    async def eventsourcing(site: Site, seconds: float) -> dict[str, float]:
        # Beside Tidemark's own tables, which it does not look at; its file is another one.
        url = site.settings.store.replace("tidemark.db", "peer.db")
        return await _told([str(python), "-m", "benchmarks.peers.eventsourcing_client", url, str(seconds)])

    works: dict[str, _Work] = {
        "Tidemark, through Kafka": through_kafka,
        "Tidemark, through its store": through_store,
        "eventsourcing (Python)": eventsourcing,
    }
    kinds: dict[str, StoreKind] = {"SQLite": "sqlite", "PostgreSQL": "postgres"}
    told: dict[str, dict[str, float]] = {}
    tune_interpreter()
    with bed() as on:
        for name, work in works.items():
            for store, kind in kinds.items():
                told[f"{name}, {store}"] = uvloop.run(_on_a_site(on, kind, work, seconds))
                say(f"{name}, {store}: {told[f'{name}, {store}']}")
    (RESULT.parent / "peers.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
    _print(told)


async def _on_a_site(on: Bed, kind: StoreKind, work: _Work, seconds: float) -> dict[str, float]:
    async with on.site(kind) as site:
        return await work(site, seconds)


def _environment(name: str, packages: tuple[str, ...]) -> Path:
    """An environment with these packages, made the first time; returns its interpreter."""
    folder = _PEERS / name
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        say(f"installing {', '.join(packages)}")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=_LONGEST_S)
        (folder / ".installed").touch()
    return python


async def _told(command: list[str]) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=sys.stderr)
    try:
        async with asyncio.timeout(_LONGEST_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])} ended with {process.returncode}")
    return msgspec.json.decode(told, type=dict[str, float])


def _print(told: dict[str, dict[str, float]]) -> None:
    table = Table(title="events a second")
    table.add_column("")
    kinds = list(next(iter(told.values())))
    for kind in kinds:
        table.add_column(kind, justify="right")
    for name, rates in told.items():
        table.add_row(name, *(f"{rates[kind]:,.0f}" for kind in kinds))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
