import asyncio
import base64
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from processor.errors import BrokerUnreachable, SettingsError
from processor.kafka.connection import client_options, reach_broker
from processor.settings import load_settings
from tests.faults.proxy import Proxy
from tests.servers import Kafka, free_port

LOGIN = {"kafka_sasl_username": "user", "kafka_sasl_password": "geheim"}
OAUTH = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}


def options(**overrides: Any) -> dict[str, Any]:
    return client_options(load_settings(**overrides))


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two self-signed certificates, `one` and `other`, for localhost, and `locked`, whose key has a
    password."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("certificates")
    for name, encryption in {"one": ["-nodes"], "other": ["-nodes"], "locked": ["-passout", "pass:geheim"]}.items():
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", *encryption, *subject, *files)
    (folder / "nothing.pem").write_text("nothing\n")
    return folder


# --- what clients get


def test_without_security_there_are_addresses_and_a_name() -> None:
    found = options(brokers="a:1,b:2", group="g")

    assert found.pop("request_timeout_ms") > 0
    assert found == {"bootstrap_servers": ["a:1", "b:2"], "client_id": "g", "security_protocol": "PLAINTEXT"}


def test_a_worker_with_a_name_of_its_own_shows_it() -> None:
    assert options(group_instance_id="worker-1")["client_id"] == "worker-1"


async def test_every_aiokafka_client_takes_the_options() -> None:
    for more in (LOGIN | {"kafka_sasl_mechanism": "SCRAM-SHA-512"}, OAUTH | {"kafka_oauth_token": "t"}):
        found = options(**{"kafka_security_protocol": "SASL_SSL", **more})
        for client in (AIOKafkaConsumer(**found), AIOKafkaProducer(**found), AIOKafkaClient(**found)):
            await (client.close() if isinstance(client, AIOKafkaClient) else client.stop())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_login_by_password(mechanism: str) -> None:
    found = options(kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism=mechanism, **LOGIN)

    assert found["security_protocol"] == "SASL_PLAINTEXT"
    assert found["sasl_mechanism"] == mechanism
    assert found["sasl_plain_username"] == "user"
    assert found["sasl_plain_password"] == "geheim"
    assert "ssl_context" not in found


# --- encryption


def test_without_files_the_system_is_trusted() -> None:
    context = options(kafka_security_protocol="SSL")["ssl_context"]

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_name_in_the_certificate_may_be_left_unchecked() -> None:
    context = options(kafka_security_protocol="SSL", kafka_ssl_check_hostname=False)["ssl_context"]

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_a_key_with_a_password(certificates: Path) -> None:
    files = {"kafka_ssl_certfile": certificates / "locked.pem", "kafka_ssl_keyfile": certificates / "locked.key"}

    options(kafka_security_protocol="SSL", kafka_ssl_key_password="geheim", **files)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"cafile": "no.pem"}, ["KAFKA_SSL_CAFILE: can't read .*no.pem: No such file or directory"]),
        ({"cafile": "."}, ["KAFKA_SSL_CAFILE: can't read .*: Is a directory"]),
        ({"cafile": "nothing.pem"}, ["KAFKA_SSL_CAFILE: .*nothing.pem holds no PEM certificate"]),
        ({"certfile": "no.pem", "keyfile": "no.key"}, ["KAFKA_SSL_CERTFILE: can't read", "KAFKA_SSL_KEYFILE: can't"]),
        ({"certfile": "one.pem", "keyfile": "other.key"}, ["do not belong together"]),
        ({"certfile": "one.pem", "keyfile": "nothing.pem"}, ["can't be used"]),
        ({"certfile": "locked.pem", "keyfile": "locked.key"}, ["KAFKA_SSL_KEY_PASSWORD right"]),
        ({"certfile": "locked.pem", "keyfile": "locked.key", "key_password": "x"}, ["KAFKA_SSL_KEY_PASSWORD right"]),
    ],
)
def test_files_that_can_not_be_used_are_told(certificates: Path, files: dict[str, str], named: list[str]) -> None:
    given = {
        f"kafka_ssl_{name}": value if name == "key_password" else certificates / value for name, value in files.items()
    }

    with pytest.raises(SettingsError, match=".*\n.*".join(named)):
        options(kafka_security_protocol="SSL", **given)


# --- tokens


async def test_a_token_that_does_not_change() -> None:
    extensions = "logicalCluster=lkc-1,identityPoolId=pool=1"
    provider = options(**OAUTH, kafka_oauth_token="t", kafka_oauth_extensions=extensions)["sasl_oauth_token_provider"]

    assert await provider.token() == "t"
    assert provider.extensions() == {"logicalCluster": "lkc-1", "identityPoolId": "pool=1"}


async def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    provider = options(**OAUTH, kafka_oauth_token_file=file)["sasl_oauth_token_provider"]

    with pytest.raises(AuthenticationFailedError, match="TIDEMARK_KAFKA_OAUTH_TOKEN_FILE: can't read"):
        await provider.token()
    for token in ("first", "second"):
        file.write_text(token + "\n")
        assert await provider.token() == token


class TokenEndpoint:
    """A server that hands out tokens `t1`, `t2`, … for client id `me` and secret `gehéim`."""

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = None
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        self.forms.append(dict(await request.post()))
        if request.headers["Authorization"] != f"Basic {base64.b64encode('me:gehéim'.encode()).decode()}":
            return web.Response(status=401)
        answer = self.answer or {"access_token": f"t{len(self.forms)}", "expires_in": 3600}
        return web.Response(body=json.dumps(answer), status=self.status)

    def provider(self, **overrides: Any) -> Any:
        given = {"kafka_oauth_endpoint": self.url, "kafka_oauth_client_id": "me", "kafka_oauth_client_secret": "gehéim"}
        return options(**{**OAUTH, **given, **overrides})["sasl_oauth_token_provider"]


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    app = web.Application()
    app.router.add_post("/token", endpoint.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    endpoint.url = f"http://127.0.0.1:{port}/token"
    yield endpoint
    await runner.cleanup()


async def test_a_token_by_client_credentials_is_asked_for_once(endpoint: TokenEndpoint) -> None:
    provider = endpoint.provider(kafka_oauth_scope="kafka")

    assert await asyncio.gather(*(provider.token() for _ in range(3))) == ["t1", "t1", "t1"]
    assert endpoint.forms == [{"grant_type": "client_credentials", "scope": "kafka"}]


async def test_a_token_is_renewed_before_it_expires(endpoint: TokenEndpoint) -> None:
    endpoint.answer = {"access_token": "t", "expires_in": 0.1}
    provider = endpoint.provider()

    await provider.token()
    await asyncio.sleep(0.09)
    await provider.token()

    assert len(endpoint.forms) == 2


async def test_a_refused_client_is_no_matter_of_trying_again(endpoint: TokenEndpoint) -> None:
    with pytest.raises(AuthenticationFailedError, match="answered 401"):
        await endpoint.provider(kafka_oauth_client_secret="wrong").token()


async def test_an_answer_without_a_token_is_told(endpoint: TokenEndpoint) -> None:
    endpoint.answer = {"token": "t"}

    with pytest.raises(AuthenticationFailedError, match="access_token"):
        await endpoint.provider().token()


async def test_an_endpoint_that_fails_is_asked_again_later(endpoint: TokenEndpoint) -> None:
    provider = endpoint.provider()
    endpoint.status = 503
    with pytest.raises(KafkaConnectionError, match="answered 503"):
        await provider.token()
    endpoint.status = 200

    assert await provider.token() == "t2"


async def test_an_endpoint_that_is_not_there_is_told() -> None:
    endpoint = TokenEndpoint()
    endpoint.url = f"http://127.0.0.1:{free_port()}/token"

    with pytest.raises(KafkaConnectionError, match="can't be reached"):
        await endpoint.provider().token()


# --- the first contact


async def test_a_broker_is_reached_beside_one_that_is_down(kafka: Kafka) -> None:
    await reach_broker(load_settings(brokers=f"127.0.0.1:{free_port()},{kafka.bootstrap}"))


async def test_a_broker_that_is_down_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(BrokerUnreachable, match=rf"No broker answered in 1 s: {address}: connection refused\."):
        await reach_broker(load_settings(brokers=address, startup_timeout_s=1))


@asynccontextmanager
async def silent_server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for connection in connections:
            connection.close()
        server.close()


async def test_a_broker_that_says_nothing_is_given_up() -> None:
    async with silent_server() as port:
        with pytest.raises(BrokerUnreachable, match="no answer"):
            await reach_broker(load_settings(brokers=f"127.0.0.1:{port}", startup_timeout_s=1))


@pytest.mark.parametrize(
    ("host", "trusted", "named"),
    [("localhost", "other.pem", "self.signed certificate"), ("127.0.0.1", "one.pem", "IP address mismatch")],
)
async def test_a_certificate_that_is_not_trusted_is_told_at_once(
    certificates: Path, host: str, trusted: str, named: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "one.pem", certificates / "one.key")
    async with silent_server(context) as port:
        given = {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": certificates / trusted}
        with pytest.raises(BrokerUnreachable, match=f"Authentication failed: .* certificate verify failed: .*{named}"):
            await reach_broker(load_settings(brokers=f"{host}:{port}", **given))


# --- a connection that breaks


async def send_in_each_turn(connection: AIOKafkaConnection) -> None:
    """So also in the one between the transport's end and aiokafka's notice of it. Ends with what goes wrong."""
    answers = []
    try:
        while True:
            answers.append(connection.send(MetadataRequest([])))
            await asyncio.sleep(0)
    finally:
        await asyncio.gather(*answers, return_exceptions=True)


def test_a_connection_that_is_closed_already_is_broken(real_kafka: Kafka) -> None:
    """Of uvloop, which a worker runs on, that is an error that aiokafka does not expect."""
    uvloop = pytest.importorskip("uvloop")

    async def cut_some() -> None:
        async with Proxy(int(real_kafka.bootstrap.rpartition(":")[2])) as proxy:
            for _ in range(10):
                sending = asyncio.create_task(send_in_each_turn(await create_conn("127.0.0.1", proxy.port)))
                await asyncio.sleep(0)
                proxy.cut()
                with pytest.raises(KafkaConnectionError):
                    await sending

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(cut_some())
