"""`tidemark stress` on parts made for it, SQLite and then PostgreSQL: `python -m benchmarks.stress`.

Other arguments are handed on, `--rate 500 --duration 1m` for one. Reports go to `.build/stress-….html` and `.json`;
with `--write NAME`, the last one of the store that `--only` names goes to `docs/stress/NAME.md`, with its plots.

The topics keep the newest part of each partition, so that a run of days needs disk for its events alone.
"""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from benchmarks.bed import Bed, Site, StoreKind, bed, say
from benchmarks.experiment import NAMES
from benchmarks.process import WORKER, running
from benchmarks.report import RESULT, machine
from processor.cli.stress_report import Report, as_markdown
from processor.kafka.topics import topic_specs

_KINDS: tuple[StoreKind, ...] = ("sqlite", "postgres")
_DOCS = Path("docs/stress")
_PAGE = Path("docs/performance.md")
_BLOCK = re.compile(r"(<!-- stress reports: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
_KEEP = {"retention.bytes": str(64 * 2**20), "segment.bytes": str(16 * 2**20)}
"""Of each partition: some minutes at 10,000 commands a second, far more than what a worker or a reader is behind."""
_OWN_GROUP = 0


async def _stress(on: Bed, kind: StoreKind, arguments: Sequence[str]) -> int:
    report = _report(kind)
    async with on.site(kind) as site:
        await _keep_little(site)
        async with running(WORKER, site.environment(), process_group=_OWN_GROUP) as worker:
            await worker.ready()
            command = [sys.executable, "-m", "processor.cli", "stress", "--watch", str(worker.pid)]
            command += ["--html", f"{report}.html", "--json", f"{report}.json", *arguments]
            stress = await asyncio.create_subprocess_exec(*command, env=site.environment(), process_group=_OWN_GROUP)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, _end, stress)
            ended = await stress.wait()
            worker.check()
    return ended


def _end(stress: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        stress.send_signal(signal.SIGINT)


async def _keep_little(site: Site) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=site.settings.brokers)
    await admin.start()
    try:
        # What is not named goes back to the broker's default.
        specs = topic_specs(site.settings)
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, spec.name, spec.configs | _KEEP) for spec in specs]
        )
    finally:
        await admin.close()


def _report(kind: StoreKind) -> Path:
    return RESULT.parent / f"stress-{kind}"


def _write(kind: StoreKind, name: str) -> None:
    """The last report, as a page of the documentation."""
    report = msgspec.json.decode(_report(kind).with_suffix(".json").read_bytes(), type=Report)
    on = machine()
    about = (
        f"`tidemark stress` on {NAMES[kind]}, one worker, broker and database and the load itself on "
        f"{on['processors']} processors ({on['system']}, Python {on['python']}), written by `make stress` "
        "([performance](../performance.md#stress))."
    )
    page, plots = as_markdown(report, name.replace("-", " ").capitalize(), about, name)
    (_DOCS / name).mkdir(parents=True, exist_ok=True)
    (_DOCS / f"{name}.md").write_text(page)
    for file, svg in plots.items():
        (_DOCS / name / file).write_text(svg)
    kept = "".join(
        f"- {_title(page)}: [stress/{page.name}](stress/{page.name})\n" for page in sorted(_DOCS.glob("*.md"))
    )
    _PAGE.write_text(_BLOCK.sub(lambda match: match[1] + kept + match[2], _PAGE.read_text()))
    say(f"written: {_DOCS / name}.md, and its place in {_PAGE}")


def _title(page: Path) -> str:
    with page.open() as lines:
        return next(lines).removeprefix("# ").rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=_KINDS, help="one store")
    parser.add_argument("--write", metavar="NAME", help="no run: write the last report into docs/stress")
    given, arguments = parser.parse_known_args()
    kinds = (given.only,) if given.only else _KINDS
    if given.write:
        _write(kinds[-1], given.write)
        return
    RESULT.parent.mkdir(exist_ok=True)
    worst = 0
    with bed(process_group=_OWN_GROUP) as on:
        for kind in kinds:
            say(f"--- {kind}")
            worst = max(worst, asyncio.run(_stress(on, kind, arguments)))
    sys.exit(worst)


if __name__ == "__main__":
    main()
