"""A broker that looks at access rules, with accounts that have what `tidemark topics acls` says and no more."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from typer.testing import CliRunner

from processor.cli import app
from tests.guarded import GuardedBroker
from tests.security.accounts import ACCOUNTS, PARTITIONS, PASSWORD, Accounts
from tests.servers import CannotRun

_TIMEOUT_S = 30


@pytest.fixture(scope="session")
def guarded() -> Iterator[GuardedBroker]:
    """A broker with the authorizer on, over TLS; nobody but `admin` may do anything yet."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    try:
        broker = GuardedBroker(authorizer=True)
    except CannotRun as reason:
        pytest.skip(str(reason))
    with broker:
        yield broker


@pytest.fixture(scope="session")
def admin(guarded: GuardedBroker) -> AdminClient:
    """The broker's administrator, who has made the accounts, without any right."""
    new: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode())
        for name in ACCOUNTS
    ]
    admin = _admin_of(guarded)
    for done in admin.alter_user_scram_credentials(new).values():
        done.result(_TIMEOUT_S)
    return admin


@pytest.fixture
def accounts(guarded: GuardedBroker, admin: AdminClient, topic_prefix: str, tmp_path: Path) -> Accounts:
    """The accounts with their rights on topics of this test's own, which the operator's has made."""
    address = f"localhost:{guarded.port}"
    accounts = Accounts(topic_prefix, address, guarded.certificate, f"sqlite:///{tmp_path}/tidemark.db")
    for acl in admin.create_acls([_binding(acl) for acl in _printed(accounts)]).values():
        acl.result(_TIMEOUT_S)
    made = CliRunner().invoke(app, ["topics", "create"], env=accounts.environment("operator"))
    assert made.exit_code == 0, made.output
    # A reply topic is its client's affair.
    for topic in admin.create_topics([NewTopic(accounts.replies, PARTITIONS, 1)]).values():
        topic.result(_TIMEOUT_S)
    return accounts


def _printed(accounts: Accounts) -> list[dict[str, str]]:
    arguments = [
        *("topics", "acls", "--output", "json", "--worker", "worker", "--operator", "operator"),
        *("--client", "default=shop", "--client", f"acme:{accounts.replies}=acme", "--reader", "acme=reports"),
    ]
    printed = CliRunner().invoke(app, arguments, env=accounts.environment("operator"))
    assert printed.exit_code == 0, printed.output
    acls: list[dict[str, str]] = json.loads(printed.stdout)["acls"]
    return acls


def _admin_of(broker: GuardedBroker) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": f"localhost:{broker.port}",
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(broker.certificate),
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "geheim",
        }
    )


def _binding(acl: dict[str, str]) -> AclBinding:
    return AclBinding(
        ResourceType[acl["resource"].upper()],
        acl["name"],
        ResourcePatternType[acl["pattern"].upper()],
        acl["principal"],
        "*",
        AclOperation[acl["operation"]],
        AclPermissionType.ALLOW,
    )
