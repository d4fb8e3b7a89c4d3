"""Where the worker's time goes while it drains: `python -m benchmarks.profile`, with py-spy on the PATH.

Samples all threads of the worker from outside and counts each sample for one stage: the one of the innermost function
that belongs to a stage. Samples of waiting are left out. Of what is compiled, only who called it is seen: where the
native part was built, hashing counts for deciding.
"""

import argparse
import asyncio
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bed import Bed, StoreKind, bed, say
from benchmarks.drain import Amount, Ends
from benchmarks.load import commands, preload
from benchmarks.process import WORKER, running

_RATE_HZ = 250
_LONGEST_S = 120

_SQLITE = "SQLite, in its own thread"

# Part of a file's path, name of a function or "" for all of them; of a frame's matches the first decides.
_STAGES = (
    ("processor/chain.py", "", "hash"),
    ("processor/codec.py", "event_headers", "encode"),
    ("processor/codec.py", "shared_headers", "encode"),
    ("processor/codec.py", "event_source", "encode"),
    ("processor/codec.py", "on_one_line", "encode"),
    ("processor/codec.py", "rfc3339", "encode"),
    ("processor/codec.py", "encode_outcome", "encode"),
    ("processor/codec.py", "", "decode"),
    ("processor/kafka/outgoing.py", "", "encode"),
    ("processor/kafka/batches.py", "", "encode"),
    ("processor/kafka/publish.py", "", "publish"),
    ("aiokafka/producer/", "", "publish"),
    ("processor/stores/sqlite.py", "write", _SQLITE),
    ("processor/stores/sqlite.py", "_execute_many", _SQLITE),
    ("processor/stores/sqlite.py", "_look_up", _SQLITE),
    ("processor/stores/sqlite.py", "commit", _SQLITE),
    ("processor/stores/views.py", "", "load"),
    ("processor/stores/", "load", "load"),
    ("processor/stores/", "_load", "load"),
    ("processor/stores/", "", "commit"),
    ("processor/cycle.py", "decode", "decode"),
    ("processor/cycle.py", "_load", "load"),
    ("processor/cycle.py", "wanted", "load"),
    ("processor/cycle.py", "_commit", "commit"),
    ("processor/decide.py", "", "decide"),
    ("processor/cycle.py", "", "decide"),
    ("processor/kafka/slices.py", "", "fetch"),
    ("aiokafka/consumer/", "", "fetch"),
    ("faust/", "", "fetch"),
    ("aiosqlite/", "", _SQLITE),
)
_OTHER = "event loops, sockets"
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)(:\d+)?\)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("store", choices=("sqlite", "postgres"))
    parser.add_argument("--commands", type=int, default=120_000, help="how many to drain (120,000)")
    options = parser.parse_args()
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        sys.exit("py-spy is not on the PATH: install it with pip")
    with bed() as on:
        stacks, cpu_us = asyncio.run(_sampled(on, options.store, options.commands, py_spy))
    stages = _by_stage(stacks)
    print(f"{cpu_us:5.1f} µs  100.0%  of the worker's CPU time per command")
    for stage, samples in stages.most_common():
        share = samples / stages.total()
        print(f"{share * cpu_us:5.1f} µs  {share:6.1%}  {stage}")


async def _sampled(on: Bed, kind: StoreKind, count: int, py_spy: str) -> tuple[list[str], float]:
    """The stacks of a worker that drains, as py-spy's raw format has them, and its CPU time per command in µs."""
    records = commands(count)
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks"
        async with on.site(kind) as site:
            say("preloading")
            await preload(on.bootstrap, site.names.commands, records)
            async with Ends(site) as ends, running(WORKER, site.environment()) as worker:
                await worker.ready()
                cpu_s = worker.cpu_s()
                command = [py_spy, "record", "--pid", str(worker.pid), "--format", "raw", "--output", str(raw)]
                command += ["--rate", str(_RATE_HZ), "--duration", str(_LONGEST_S), "--nonblocking"]
                sampler = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
                try:
                    await ends.reach(Amount(count, count), [worker])
                    cpu_s = worker.cpu_s() - cpu_s
                finally:
                    sampler.send_signal(signal.SIGINT)
                    await sampler.wait()
        return raw.read_text().splitlines(), cpu_s / count * 1e6


def _by_stage(stacks: list[str]) -> Counter[str]:
    stages: Counter[str] = Counter()
    for line in stacks:
        stack, _, samples = line.rpartition(" ")
        stages[_stage(stack.split(";"))] += int(samples)
    return stages


def _stage(frames: list[str]) -> str:
    for frame in reversed(frames):
        match = _FRAME.fullmatch(frame)
        if match is None:
            continue
        names = match["function"].split(".")
        for file, function, stage in _STAGES:
            if file in match["file"] and (not function or function in names):
                return stage
    return _OTHER


if __name__ == "__main__":
    main()
