"""Give each the same work, one after the other, and print what it did a second."""

import argparse
import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks.bed import Bed, Site, StoreKind, bed, say
from benchmarks.peers import work
from benchmarks.peers.installing import cargo_program, npm_packages, python_environment
from benchmarks.peers.ours import through_kafka, through_store
from benchmarks.peers.results import PEERS_RESULT, Peers, Side, print_side
from benchmarks.peers.servers import SierraDB, UmaDB
from benchmarks.peers.slow_disk import DELAY_MS, is_slow, run_on_slow_disk
from benchmarks.report import machine
from processor.cli.tuning import tune_interpreter
from tests.servers import CannotRun

_LONGEST_S = 300.0
_HERE = Path(__file__).parent
_EVENTSOURCING = ("eventsourcing==9.5.6", "psycopg[binary,pool]==3.3.9")
_UMADB = ("umadb==0.7.8",)
_HIREDIS = ("hiredis==3.5.0",)
_SIERRADB = "sierradb-server@0.3.1"
_MESSAGE_DB = "@eventide/message-db"
_EMMETT = (
    "@event-driven-io/dumbo@0.12.7",
    "@event-driven-io/emmett@0.42.0",
    "@event-driven-io/emmett-postgresql@0.42.0",
    "@event-driven-io/pongo@0.16.11",
    "pg@8.23.1",
)

_Rates = dict[str, float]
_Work = Callable[[Site, float], Awaitable[_Rates]]


class _Row(NamedTuple):
    """Who does the work, and the store of the site that it is given."""

    name: str
    store: StoreKind
    work: _Work


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each kind of work (5)")
    parser.add_argument("--only", default="", help="those with this text in their name; nothing is written to .build")
    parser.add_argument("--slow-disk", action="store_true", help=f"let each sync take {DELAY_MS:g} ms more")
    given = parser.parse_args()
    try:
        if given.slow_disk and not is_slow():
            sys.exit(run_on_slow_disk([sys.executable, "-m", "benchmarks.peers", *sys.argv[1:]]))
    except CannotRun as reason:
        sys.exit(f"left out: {reason}")
    side = _measured([row for row in _ROWS if given.only.lower() in row.name.lower()], given.seconds)
    if not given.only:
        _write(side, slow=given.slow_disk)
    print_side(side, f"each sync {DELAY_MS:g} ms longer" if given.slow_disk else "side by side")


def _measured(rows: Sequence[_Row], seconds: float) -> Side:
    side = Side(seconds)
    tune_interpreter()
    with bed() as on:
        for row in rows:
            try:
                rates = side.rates[row.name] = uvloop.run(_on_a_site(on, row.store, row.work, seconds))
            except (CannotRun, RuntimeError) as reason:
                # The others' figures stand without this one's.
                side.left_out[row.name] = str(reason)
                say(f"{row.name}: left out: {reason}")
            else:
                say(f"{row.name}: {', '.join(f'{kind} {rate:,.0f}' for kind, rate in rates.items())}")
    return side


async def _on_a_site(on: Bed, kind: StoreKind, work: _Work, seconds: float) -> _Rates:
    async with on.site(kind) as site:
        return await work(site, seconds)


def _write(side: Side, *, slow: bool) -> None:
    """Beside the other side, where that was measured before."""
    there = msgspec.json.decode(PEERS_RESULT.read_bytes(), type=Peers) if PEERS_RESULT.exists() else Peers({})
    there.machine = machine()
    if slow:
        there.slow_disk = side
    else:
        there.normal = side
    PEERS_RESULT.parent.mkdir(exist_ok=True)
    PEERS_RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(there)) + b"\n")


# --- the peers


async def _eventsourcing(site: Site, seconds: float) -> _Rates:
    # Beside Tidemark's own tables, which it does not look at; its file is another one.
    url = site.settings.store.replace("tidemark.db", "peer.db")
    programs = python_environment("eventsourcing", _EVENTSOURCING)
    return await _told([programs / "python", "-m", "benchmarks.peers.eventsourcing_client", url, str(seconds)])


async def _message_db(site: Site, seconds: float) -> _Rates:
    folder = npm_packages("message-db", [f"{_MESSAGE_DB}@1.3.1"]) / "node_modules" / _MESSAGE_DB / "database"
    module = "benchmarks.peers.message_db_client"
    return await _told([sys.executable, "-m", module, site.settings.store, folder, str(seconds)])


async def _emmett(site: Site, seconds: float) -> _Rates:
    node = shutil.which("node")
    if node is None:
        raise CannotRun("needs node")
    what = {
        "streams": work.STREAMS,
        "waiting": {kind: work.CLIENTS[kind] for kind in work.WAITING},
        "data": msgspec.Raw(work.DATA),
        "event": work.EVENT,
        "longStream": work.LONG_STREAM,
        "longStreams": work.LONG_STREAMS,
        "page": work.PAGE,
        "readStream": work.READ_STREAM,
        "readFeed": work.READ_FEED,
    }
    options: list[str | Path] = [npm_packages("emmett", _EMMETT), site.settings.store, str(seconds)]
    return await _told([node, _HERE / "emmett_client.mjs", *options], WORK=msgspec.json.encode(what).decode())


async def _umadb(_: Site, seconds: float) -> _Rates:
    programs = python_environment("umadb", _UMADB)
    with UmaDB(programs) as server:
        return await _told([programs / "python", "-m", "benchmarks.peers.umadb_client", server.url, str(seconds)])


async def _sierradb(_: Site, seconds: float) -> _Rates:
    client = python_environment("hiredis", _HIREDIS) / "python"
    with SierraDB(cargo_program("sierradb", _SIERRADB)) as server:
        return await _told([client, "-m", "benchmarks.peers.sierradb_client", str(server.port), str(seconds)])


async def _told(command: Sequence[str | Path], **environment: str) -> _Rates:
    """What the client says on standard output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=sys.stderr, env=os.environ | environment
    )
    try:
        async with asyncio.timeout(_LONGEST_S):
            told, _ = await process.communicate()
    except TimeoutError:
        raise RuntimeError(f"took more than {_LONGEST_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"its client ended with {process.returncode}")
    return msgspec.json.decode(told, type=_Rates)


_ROWS = (
    _Row("Tidemark through Kafka, SQLite", "sqlite", through_kafka),
    _Row("Tidemark through Kafka, PostgreSQL", "postgres", through_kafka),
    _Row("Tidemark's store, SQLite", "sqlite", through_store),
    _Row("Tidemark's store, PostgreSQL", "postgres", through_store),
    _Row("eventsourcing, SQLite", "sqlite", _eventsourcing),
    _Row("eventsourcing, PostgreSQL", "postgres", _eventsourcing),
    _Row("Message DB", "postgres", _message_db),
    _Row("Emmett", "postgres", _emmett),
    _Row("UmaDB", "memory", _umadb),
    _Row("SierraDB", "memory", _sierradb),
)


if __name__ == "__main__":
    main()
