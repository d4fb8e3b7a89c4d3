"""What accounts need at the broker, as Kafka's access rules. Where the authorizer is on, nobody may do more than this.

Kafka's `READ` and `WRITE` carry `DESCRIBE` with them, and since Kafka 2.8 the right to write is enough for an
idempotent producer.
"""

import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Literal

from msgspec import Struct

from processor.errors import SettingsError
from processor.names import TopicNames
from processor.settings import Settings, variable

Resource = Literal["topic", "group"]
Pattern = Literal["literal", "prefixed"]

_GLOB = frozenset("*?[")


class Acl(Struct, frozen=True, order=True):
    """One rule: `principal` (`User:…`) is allowed `operation` on what is called, or begins with, `name`."""

    principal: str
    resource: Resource
    name: str
    pattern: Pattern
    operation: str


def worker_acls(settings: Settings, user: str) -> list[Acl]:
    """A worker: reads commands and the end of its feed, writes what comes of them, and is in the group.

    Raises `SettingsError` where the pattern of a reply topic can't be said in Kafka's rules.
    """
    acls = own_acls(settings, user)
    for pattern in settings.reply_topics:
        acls += _reply_acls(pattern, user)
    return acls


def own_acls(settings: Settings, user: str) -> list[Acl]:
    """What a worker needs on the tenants' topics and the group, reply topics aside."""
    acls = _on("group", settings.group, user, "READ")
    for names in _names(settings):
        acls += _on("topic", names.commands, user, "READ", "DESCRIBE_CONFIGS")
        acls += _on("topic", names.events, user, "READ", "WRITE", "DESCRIBE_CONFIGS")
        for written in (names.results, names.conflicts, names.dead_letters):
            acls += _on("topic", written, user, "WRITE", "DESCRIBE_CONFIGS")
    return acls


def client_acls(settings: Settings, tenant: str, user: str, reply_topic: str | None = None) -> list[Acl]:
    """A client: writes a tenant's commands and reads their outcomes, on the standing topics or on one of its own.

    Raises `SettingsError` where no reply may go to that topic.
    """
    names = TopicNames.of(settings.topic_prefix, tenant)
    acls = _on("topic", names.commands, user, "WRITE")
    if reply_topic is None:
        return acls + _on("topic", names.results, user, "READ") + _on("topic", names.conflicts, user, "READ")
    if not settings.allows_reply_to(reply_topic):
        raise SettingsError(f"{variable('reply_topics')} does not allow {reply_topic!r}, so no reply would go there.")
    return acls + _on("topic", reply_topic, user, "READ") + _own_group(settings, user)


def reader_acls(settings: Settings, tenant: str, user: str) -> list[Acl]:
    """A reader of a tenant's feed, in no group or in the one that is called as the user."""
    names = TopicNames.of(settings.topic_prefix, tenant)
    return _on("topic", names.events, user, "READ") + _own_group(settings, user)


def operator_acls(settings: Settings, user: str) -> list[Acl]:
    """An operator: makes and checks the topics, looks at all of them, and mends a feed (`recover republish`)."""
    acls = _on("group", settings.group, user, "READ")
    for names in _names(settings):
        for topic in names.all():
            acls += _on("topic", topic, user, "CREATE", "DESCRIBE_CONFIGS", "READ")
        acls += _on("topic", names.events, user, "WRITE")
    return acls


def commands(acls: Iterable[Acl], brokers: Iterable[str]) -> Iterator[str]:
    """Lines for a shell that give the rights by Kafka's own tool, as an administrator whose login is in a file."""
    tool = ["kafka-acls.sh", "--bootstrap-server", ",".join(brokers), "--command-config", "admin.properties", "--add"]
    for (principal, resource, name, pattern), same in groupby(sorted(set(acls)), _subject):
        operations = [argument for acl in same for argument in ("--operation", acl.operation)]
        to = ["--allow-principal", principal, *operations, f"--{resource}", name, "--resource-pattern-type", pattern]
        yield shlex.join([*tool, *to])


def _subject(acl: Acl) -> tuple[str, str, str, str]:
    return acl.principal, acl.resource, acl.name, acl.pattern


def _on(resource: Resource, name: str, user: str, *operations: str, pattern: Pattern = "literal") -> list[Acl]:
    principal = f"User:{_name_of(user)}"
    return [Acl(principal, resource, name, pattern, operation) for operation in operations]


def _own_group(settings: Settings, user: str) -> list[Acl]:
    name = _name_of(user)
    if name == settings.group:
        raise SettingsError(f"A reader can't be called {name}: that is the workers' group, which only they may join.")
    return _on("group", name, user, "READ")


def _reply_acls(pattern: str, user: str) -> list[Acl]:
    start = pattern.removesuffix("*")
    if _GLOB & set(start) or not start:
        raise SettingsError(
            f"{variable('reply_topics')} has {pattern!r}, which Kafka's rules can't say: use names, and beginnings of "
            "names that end in *."
        )
    return _on("topic", start, user, "WRITE", pattern="literal" if start == pattern else "prefixed")


def _name_of(user: str) -> str:
    return user.removeprefix("User:")


def _names(settings: Settings) -> list[TopicNames]:
    return [TopicNames.of(settings.topic_prefix, tenant) for tenant in settings.tenants]
