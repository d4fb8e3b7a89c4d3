"""`tidemark topics create`, `check`, `wait` and `acls`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from processor.cli.frame import (
    NO,
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    PrefixOption,
    chosen_tenant,
    command,
    load,
    run,
    show,
    show_json,
    subcommands,
)
from processor.errors import SettingsError

if TYPE_CHECKING:
    from processor.kafka.acls import Acl
    from processor.kafka.topics import Finding
    from processor.settings import Settings


app = subcommands("Make the topics, check that they are as they must be, or print who needs which rights on them.")


@app.command()
@command
def create(
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Create the topics of every tenant that are missing; those that are there are checked and left as they are.

    Exit code 1 where a topic that was there is not as it must be.

    Example: tidemark topics create --brokers localhost:9092 --partitions 32
    """
    settings = load(brokers, None, topic_prefix, partitions, config)
    import msgspec  # noqa: PLC0415

    from processor.kafka.topics import create_topics  # noqa: PLC0415

    report = run(create_topics(settings))
    if output is Form.JSON:
        show_json({"ok": not report.findings, **msgspec.structs.asdict(report)})
    else:
        for name in report.created:
            show(f"created  {name}  {settings.partitions} partitions")
        for name in report.existing:
            show(f"exists   {name}")
        _show_findings(report.findings)
    if report.findings:
        raise typer.Exit(NO)


@app.command()
@command
def check(
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Compare the topics on the broker with what they must be; nothing is changed.

    Exit code 1 where something is wrong with them.

    Example: tidemark topics check
    """
    settings = load(brokers, None, topic_prefix, partitions, config)
    from processor.kafka.topics import check_topics, topic_specs  # noqa: PLC0415

    findings = run(check_topics(settings))
    if output is Form.JSON:
        show_json({"ok": not findings, "findings": findings})
    elif findings:
        _show_findings(findings)
    else:
        show(f"all {len(topic_specs(settings))} topics are as they must be")
    if findings:
        raise typer.Exit(NO)


def _users(metavar: str, about: str) -> object:
    return typer.Option(metavar=metavar, help=about)


@app.command()
@command
def acls(
    worker: Annotated[list[str] | None, _users("USER", "An account of workers.")] = None,
    client: Annotated[
        list[str] | None,
        _users("TENANT[:TOPIC]=USER", "An account that sends commands, and reads the outcomes or its reply topic."),
    ] = None,
    reader: Annotated[list[str] | None, _users("TENANT=USER", "An account that reads the feed.")] = None,
    operator: Annotated[list[str] | None, _users("USER", "An account that makes topics and looks at them.")] = None,
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Print the access rules that accounts need at the broker, and no more, as calls of Kafka's own tool.

    For the tenants, the consumer group and the reply topics of the settings. An administrator runs what is printed,
    with his login in `admin.properties`. Changes nothing by itself, and nothing when it is run twice.

    Example: tidemark topics acls --worker tidemark --client acme=shop --reader acme=reports
    """
    settings = load(brokers, None, topic_prefix, None, config)
    from processor.kafka.acls import client_acls, commands, operator_acls, reader_acls, worker_acls  # noqa: PLC0415

    found: list[Acl] = []
    for user in worker or []:
        found += worker_acls(settings, user)
    for given in client or []:
        tenant, topic, user = _account(settings, "--client", given)
        found += client_acls(settings, tenant, user, topic)
    for given in reader or []:
        tenant, _, user = _account(settings, "--reader", given)
        found += reader_acls(settings, tenant, user)
    for user in operator or []:
        found += operator_acls(settings, user)
    if not found:
        raise SettingsError("Name an account: --worker, --client, --reader or --operator.")
    if output is Form.JSON:
        show_json({"acls": sorted(set(found))})
    else:
        for line in commands(found, settings.brokers):
            show(line)


def _account(settings: "Settings", option: str, given: str) -> tuple[str, str | None, str]:
    """Tenant, reply topic and user."""
    match = re.fullmatch(r"(?P<tenant>[^:=]+)(:(?P<topic>[^:=]+))?=(?P<user>.+)", given)
    if match is None or (match["topic"] and option == "--reader"):
        raise SettingsError(f"{option} is {given!r}, but must be TENANT=USER.")
    return chosen_tenant(settings, match["tenant"]), match["topic"], match["user"]


@app.command()
@command
def wait(
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Give up after so long.", min=0)
    ] = 60.0,
    brokers: BrokersOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
) -> None:
    """Wait until others have made the topics, so that a worker can start; nothing is changed.

    What is wrong with them but does not keep a worker from starting is shown.

    Example: tidemark topics wait --timeout 300
    """
    settings = load(brokers, None, topic_prefix, partitions, config)
    from processor.kafka.topics import await_topics, topic_specs  # noqa: PLC0415

    findings = run(await_topics(settings, timeout_s))
    _show_findings(findings)
    show(f"all {len(topic_specs(settings))} topics are there")


def _show_findings(findings: "Sequence[Finding]") -> None:
    for finding in findings:
        show(f"{'wrong  ' if finding.fatal else 'warning'}  {finding.text}")
