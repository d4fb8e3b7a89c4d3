"""How to talk to the brokers: the arguments that every aiokafka client takes, and the first contact."""

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiokafka.conn
import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from pydantic import SecretStr

from processor.errors import BrokerUnreachable, SettingsError
from processor.settings import Settings, variable

# aiokafka gives up on a join when this has passed, so it is above the time that a rebalance may take.
_REQUEST_TIMEOUT_MS = 40_000
_TOKEN_TIMEOUT_S = 10
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_LOGIN_ERRORS = (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    ssl.SSLCertVerificationError,
)


class _Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """One that is broken where uvloop says that its transport is closed.

    aiokafka expects an `OSError`: this would end the task that fetches, or the one that looks for leaders, for good.
    https://github.com/aio-libs/aiokafka/issues/1038
    """

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Raises `KafkaConnectionError`."""
        try:
            return super().send(request, expect_response)
        except KafkaError:
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


# Of all clients: there is no other way to it.
aiokafka.conn.AIOKafkaConnection = _Connection


def client_options(settings: Settings) -> dict[str, Any]:
    """What aiokafka's consumer, producer and admin client all take: addresses, encryption, login, time-outs.

    Made anew for every client, as a source of tokens belongs to one event loop. Raises `SettingsError` where a
    certificate or key can't be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.brokers),
        "client_id": settings.group_instance_id or settings.group,
        "request_timeout_ms": _REQUEST_TIMEOUT_MS,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        options |= _login(settings)
    return options


async def reach_broker(settings: Settings) -> None:
    """Wait until one of the brokers answers and takes the login.

    Raises `BrokerUnreachable`: when `startup_timeout_s` have passed, and at once where the login or a certificate is
    refused.
    """
    options = client_options(settings)
    addresses = options.pop("bootstrap_servers")
    deadline = time.monotonic() + settings.startup_timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        with quiet():
            answers = await asyncio.gather(*(_try_broker(address, options, deadline) for address in addresses))
        failures = {address: error for address, error in zip(addresses, answers, strict=True) if error is not None}
        if len(failures) < len(addresses):
            return
        refused = {address: error for address, error in failures.items() if isinstance(error, _LOGIN_ERRORS)}
        if refused:
            raise BrokerUnreachable(f"Authentication failed: {_told(refused)}.")
        if time.monotonic() + pause_s > deadline:
            raise BrokerUnreachable(f"No broker answered in {settings.startup_timeout_s} s: {_told(failures)}.")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@contextmanager
def quiet() -> Iterator[None]:
    """Without aiokafka's own log lines: what fails is raised, and a broker that is down beside others is no failure."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def in_words(error: type[BaseException]) -> str:
    """An error's name in words: TopicAuthorizationFailedError is "topic authorization failed"."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in error.__name__)
    return words.strip().removesuffix(" error")


async def _try_broker(address: str, options: dict[str, Any], deadline: float) -> Exception | None:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(max(deadline - time.monotonic(), _FIRST_PAUSE_S)):
            connection = await create_conn(host.strip("[]"), int(port), **options)
            try:
                await _prove(connection, options)
            finally:
                await connection.close(reason=CloseReason.SHUTDOWN)
    except (OSError, KafkaError) as error:
        return error
    return None


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, also while its broker is away.

    Where a fetch pauses between two tries, aiokafka's cancelling of it comes out of its `stop`, as if the caller were
    cancelled, and the connections stay open.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if caller is None or caller.cancelling():
            raise
        await consumer._client.close()  # noqa: SLF001  # there is no other way to it


async def _prove(connection: AIOKafkaConnection, options: dict[str, Any]) -> None:
    """Ask for something that needs the login.

    A broker tells of a refused token in a way that aiokafka takes for acceptance; then it answers one request with
    nothing, and closes the connection.
    """
    try:
        answered = bool((await connection.send(MetadataRequest([]))).brokers)
    except KafkaConnectionError:
        answered = False
    if not answered and options.get("sasl_mechanism") == "OAUTHBEARER":
        raise AuthenticationFailedError("the broker did not accept the token")
    if not answered:
        raise KafkaConnectionError("closed")


def _told(failures: dict[str, Exception]) -> str:
    return "; ".join(f"{address}: {_reason(error)}" for address, error in failures.items())


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionError | ssl.SSLError) or type(error) is KafkaConnectionError:
        return f"connection closed (is {variable('kafka_security_protocol')} right?)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = error.args[0] if error.args else None
    return text.rstrip(".") if isinstance(text, str) and text else in_words(type(error))


# --- encryption


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    problems = list(_unreadable(settings))
    if problems:
        raise SettingsError("\n".join(problems))
    context = _trust(settings.kafka_ssl_cafile)
    context.check_hostname = settings.kafka_ssl_check_hostname
    if settings.kafka_ssl_certfile is not None and settings.kafka_ssl_keyfile is not None:
        _identify(context, settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile, settings.kafka_ssl_key_password)
    return context


def _unreadable(settings: Settings) -> Iterator[str]:
    for name in ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"):
        path: Path | None = getattr(settings, name)
        if path is None:
            continue
        try:
            path.read_bytes()
        except OSError as error:
            yield f"{variable(name)}: can't read {path}: {_reason(error)}."


def _trust(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=cafile)
    except ssl.SSLError as error:
        raise SettingsError(f"{variable('kafka_ssl_cafile')}: {cafile} holds no PEM certificate.") from error


def _identify(context: ssl.SSLContext, certfile: Path, keyfile: Path, password: SecretStr | None) -> None:
    files = f"{variable('kafka_ssl_certfile')} {certfile} and {variable('kafka_ssl_keyfile')} {keyfile}"
    try:
        # Always a function: without one, OpenSSL asks for the password at the terminal.
        context.load_cert_chain(certfile, keyfile, lambda: password.get_secret_value() if password else "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{files} do not belong together.") from error
        hint = f"PEM files, and {variable('kafka_ssl_key_password')} right"
        raise SettingsError(f"{files} can't be used: are they {hint}? ({error.reason or error})") from error


# --- login


def _login(settings: Settings) -> dict[str, Any]:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _tokens(settings)}
    return {
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": _plain(settings.kafka_sasl_password),
    }


def _tokens(settings: Settings) -> AbstractTokenProvider:
    extensions = dict(extension.split("=", 1) for extension in settings.kafka_oauth_extensions)
    if settings.kafka_oauth_token_file is not None:
        return _FileToken(settings.kafka_oauth_token_file, extensions)
    if settings.kafka_oauth_endpoint is not None:
        return _ClientCredentials(settings, extensions)
    return _StaticToken(_plain(settings.kafka_oauth_token), extensions)


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, extensions: dict[str, str]) -> None:
        self._extensions = extensions

    def extensions(self) -> dict[str, str]:
        return self._extensions


class _StaticToken(_Tokens):
    def __init__(self, token: str, extensions: dict[str, str]) -> None:
        super().__init__(extensions)
        self._token = token

    async def token(self) -> str:
        return self._token


class _FileToken(_Tokens):
    """Reads the file for every connection, so that a sidecar or the kubelet may renew it."""

    def __init__(self, path: Path, extensions: dict[str, str]) -> None:
        super().__init__(extensions)
        self._path = path

    async def token(self) -> str:
        try:
            return (await asyncio.to_thread(self._path.read_text)).strip()
        except (OSError, ValueError) as error:
            name = variable("kafka_oauth_token_file")
            raise AuthenticationFailedError(f"{name}: can't read {self._path}: {_reason(error)}") from error


class _Grant(msgspec.Struct):
    access_token: str
    expires_in: float = 300.0


class _NoTokenError(KafkaConnectionError):  # type: ignore[misc]
    """The token endpoint does not answer now; trying again may help."""


class _ClientCredentials(_Tokens):
    """Asks the token endpoint (RFC 6749, 4.4), and keeps the token for four fifths of its life."""

    def __init__(self, settings: Settings, extensions: dict[str, str]) -> None:
        super().__init__(extensions)
        self._endpoint = settings.kafka_oauth_endpoint or ""
        self._client_id = settings.kafka_oauth_client_id or ""
        self._client_secret = _plain(settings.kafka_oauth_client_secret)
        self._form = {"grant_type": "client_credentials"}
        if settings.kafka_oauth_scope:
            self._form["scope"] = settings.kafka_oauth_scope
        self._token = ""
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        async with self._lock:
            if time.monotonic() >= self._good_until:
                asked_at = time.monotonic()
                grant = await self._ask()
                self._token = grant.access_token
                self._good_until = asked_at + 0.8 * grant.expires_in
            return self._token

    async def _ask(self) -> _Grant:
        # Imported here: few deployments need it, and every start of the command would pay for it.
        import aiohttp  # noqa: PLC0415

        timeout = aiohttp.ClientTimeout(total=_TOKEN_TIMEOUT_S)
        # Not form-encoded first, as RFC 6749 has it: Kafka's Java client doesn't, and providers expect what it sends.
        login = base64.b64encode(f"{self._client_id}:{self._client_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Accept": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(self._endpoint, data=self._form, headers=headers) as response,
            ):
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or in_words(type(error))
            raise _NoTokenError(f"the token endpoint can't be reached: {reason}") from error
        if status >= 500:
            raise _NoTokenError(f"the token endpoint answered {status}")
        if status != 200:
            raise AuthenticationFailedError(f"the token endpoint answered {status}")
        try:
            return msgspec.json.decode(body, type=_Grant)
        except msgspec.DecodeError as error:
            raise AuthenticationFailedError(f"the token endpoint's answer is not a grant: {error}") from error
