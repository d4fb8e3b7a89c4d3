"""A worker that can't start: one line that says what is wrong and what to do, an exit code, no trace, no secret."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from processor.stores.migrate import upgrade
from tests.guarded import GuardedBroker
from tests.security.accounts import PARTITIONS, PASSWORD, Accounts
from tests.security.roles import Roles
from tests.servers import Postgres, free_port

SECRET = "hunter2-streng-geheim"


def started(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a worker until it gives up; its exit code and what it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    done = subprocess.run(
        [sys.executable, "-m", "processor.cli", *(arguments or ("worker",))],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def refused(environment: dict[str, str], code: int) -> str:
    """The one line that a worker says after its log."""
    found, said = started(environment)
    lines = said.splitlines()
    assert found == code, said
    assert [line for line in lines if line.startswith("tidemark: ")] == lines[-1:], said
    return lines[-1].removeprefix("tidemark: ")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TIDEMARK_PARTITIONS": "many"}, "TIDEMARK_PARTITIONS is 'many', but must be a whole number"),
        ({"TIDEMARK_BROKER": "b:1"}, "TIDEMARK_BROKER: no such setting; did you mean TIDEMARK_BROKERS?"),
        ({"TIDEMARK_STORE": f"mysql://u:{SECRET}@h/d"}, "TIDEMARK_STORE must be memory:, sqlite:///PATH or postgresql"),
        (
            {"TIDEMARK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "TIDEMARK_KAFKA_SASL_MECHANISM": "PLAIN",
             "TIDEMARK_KAFKA_SASL_USERNAME": "u"},
            "TIDEMARK_KAFKA_SASL_PASSWORD is missing; TIDEMARK_KAFKA_SASL_MECHANISM=PLAIN needs it",
        ),
        ({"TIDEMARK_KAFKA_SASL_PASSWORD": SECRET}, "TIDEMARK_KAFKA_SASL_PASSWORD is not used with"),
        ({"TIDEMARK_SECRETS_DIR": "/nowhere"}, "TIDEMARK_SECRETS_DIR: can't read /nowhere: No such file"),
        (
            {"TIDEMARK_KAFKA_SECURITY_PROTOCOL": "SSL", "TIDEMARK_KAFKA_SSL_CAFILE": "/nowhere.pem"},
            "TIDEMARK_KAFKA_SSL_CAFILE: can't read /nowhere.pem: No such file",
        ),
    ],
)  # fmt: skip
def test_wrong_settings(wrong: dict[str, str], said: str) -> None:
    assert said in refused(wrong, 2)


# --- the broker


def test_a_broker_that_is_not_there_is_waited_for(accounts: Accounts) -> None:
    away = accounts.environment("worker") | {"TIDEMARK_BROKERS": f"127.0.0.1:{free_port()}"}
    began = time.monotonic()

    assert "No broker answered in 2 s: " in refused(away | {"TIDEMARK_STARTUP_TIMEOUT_S": "2"}, 3)
    # It does not come back at once to be started anew.
    assert time.monotonic() - began > 1.5


def test_a_wrong_password(accounts: Accounts) -> None:
    said = refused(accounts.environment("worker", SECRET), 3)

    assert "Authentication failed: localhost:" in said and "invalid credentials" in said


@pytest.mark.parametrize(("issued", "expires"), [(-7200, -3600), (3600, 7200)])
def test_a_token_out_of_its_time(accounts: Accounts, issued: int, expires: int) -> None:
    now = time.time()
    parts = ({"alg": "none"}, {"sub": "worker", "iat": now + issued, "exp": now + expires})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    environment = accounts.environment("worker") | {
        "TIDEMARK_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "TIDEMARK_KAFKA_OAUTH_TOKEN": ".".join([*texts, ""]),
    }
    del environment["TIDEMARK_KAFKA_SASL_USERNAME"], environment["TIDEMARK_KAFKA_SASL_PASSWORD"]

    assert "the broker did not accept the token" in refused(environment, 3)


class ExpiredBroker(GuardedBroker):
    """Its certificate is out of date."""

    def _certify(self) -> None:
        request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem"]
        authority = "[a]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\n"
        (self.folder / "ca.cnf").write_text(f"{authority}commonName=supplied\n")
        (self.folder / "index").touch()
        (self.folder / "serial").write_text("01\n")
        signing = ["ca", "-batch", "-config", "ca.cnf", "-name", "a", "-selfsign", "-keyfile", "key.pem", "-notext"]
        past = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]
        for command in ([*request, "-out", "r.pem"], [*signing, *past, "-in", "r.pem", "-out", "certificate.pem"]):
            subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True)
        pem = (self.folder / "key.pem").read_text() + self.certificate.read_text()
        (self.folder / "server.pem").write_text(pem)


def test_an_expired_certificate(accounts: Accounts) -> None:
    with ExpiredBroker() as broker:
        environment = accounts.environment("worker") | {
            "TIDEMARK_BROKERS": f"localhost:{broker.port}",
            "TIDEMARK_KAFKA_SSL_CAFILE": str(broker.certificate),
        }
        assert "certificate verify failed: certificate has expired" in refused(environment, 3)


def test_an_account_without_any_right(accounts: Accounts) -> None:
    said = refused(accounts.environment("stranger"), 2)

    assert "topic authorization failed" in said
    assert "tidemark topics acls" in said


@pytest.mark.parametrize(
    ("resource", "operation", "said"),
    [
        (ResourceType.GROUP, AclOperation.READ, "READ the group"),
        (ResourceType.TOPIC, AclOperation.WRITE, "WRITE the topic"),
        (ResourceType.TOPIC, AclOperation.READ, "READ the topic"),
    ],
)
def test_a_worker_that_lacks_a_right(
    accounts: Accounts, admin: AdminClient, resource: ResourceType, operation: AclOperation, said: str
) -> None:
    name = accounts.group if resource is ResourceType.GROUP else accounts.acme.events
    taken = AclBindingFilter(
        resource, name, ResourcePatternType.LITERAL, "User:worker", "*", operation, AclPermissionType.ALLOW
    )
    for done in admin.delete_acls([taken]).values():
        assert len(done.result(10)) == 1

    line = refused(accounts.environment("worker"), 2)
    assert name in line and said in line and "tidemark topics acls" in line


# --- the store


@pytest.fixture
def guarded_postgres() -> Iterator[str]:
    """A PostgreSQL server that wants a password; the URL of a store in it, without one."""
    with Postgres(fsync=False) as server:
        upgrade(server.url(), partitions=PARTITIONS)
        asyncio.run(Roles(server.url()).execute(f"ALTER ROLE tidemark PASSWORD '{PASSWORD}'"))
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.restart()
        yield f"127.0.0.1:{server.port}/postgres"


def test_a_store_that_does_not_let_in(accounts: Accounts, guarded_postgres: str) -> None:
    environment = accounts.environment("worker")
    database = guarded_postgres.rpartition("/")[0] + "/other"
    for login, place, said in (
        (f"tidemark:{SECRET}", guarded_postgres, "password authentication failed"),
        (f"tidemark:{PASSWORD}", database, 'database "other" does not exist'),
        (f"tidemark:{PASSWORD}", f"127.0.0.1:{free_port()}/postgres", "Connect"),
    ):
        line = refused(environment | {"TIDEMARK_STORE": f"postgresql://{login}@{place}"}, 3)
        assert f"PostgreSQL at {place}: " in line and said in line


async def test_a_schema_newer_than_the_code(accounts: Accounts, postgres_url: str) -> None:
    upgrade(postgres_url, partitions=PARTITIONS)
    await Roles(postgres_url).execute("UPDATE alembic_version SET version_num = '9999'")

    line = await asyncio.to_thread(refused, accounts.environment("worker") | {"TIDEMARK_STORE": postgres_url}, 2)
    assert "schema 9999 is newer than this version" in line and "use the version that made it" in line
