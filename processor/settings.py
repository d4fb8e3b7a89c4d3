"""The settings: environment variables, secret files, one TOML file, and the command line's options.

What is given more closely wins: an option over an environment variable, that over a secret file, that over the TOML
file, that over the default. `load_settings` is the way in; `Settings` itself looks at nothing but its arguments.
"""

import difflib
import itertools
import os
import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from processor.errors import SettingsError
from processor.messages import COMMON_BYTES, Limits, Rules
from processor.names import DEFAULT_TENANT, TENANT_NAME, TopicNames, is_ours

PREFIX = "TIDEMARK_"
HIDDEN = "***"

_IGNORED = re.compile(r"TIDEMARK_(TEST_.*|BENCH_.*|HISTORY)")
# Kubernetes and Docker tell a container of services by such variables; one that is called tidemark is no typo.
_SERVICE_LINK = re.compile(r"TIDEMARK_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_LONGEST_TOPIC_NAME = 249


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _matching(pattern: str) -> AfterValidator:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(pattern)
        return value

    return AfterValidator(check)


def _checked_address(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError("host:port")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("0")
    return value


def _field(
    default: Any, description: str, *, allowed: str = "", least: int | None = None, most: int | None = None
) -> Any:
    """A setting; `allowed` says what its type and bounds can't say, and completes "must be …"."""
    return Field(default, description=description, ge=least, le=most, json_schema_extra={"allowed": allowed})


Address = Annotated[str, AfterValidator(_checked_address)]
Tenant = Annotated[str, _matching(TENANT_NAME.pattern)]
Pattern = Annotated[str, _matching(r"[A-Za-z0-9._*?\[\]!-]+")]
Extension = Annotated[str, _matching(r"[A-Za-z]+=[\x20-\x7e]+")]
StoreUrl = Annotated[str, _matching(r"memory:|(sqlite|rocksdb):///.+|postgresql://.+")]
HttpUrl = Annotated[str, _matching(r"https?://\S+")]
TopicPrefix = Annotated[str, _matching(r"[A-Za-z0-9._-]*")]
Items = BeforeValidator(_split)


class Settings(BaseSettings):
    """Every setting, checked one by one; what they must be together, `load_settings` checks.

    Made directly, it takes its arguments and the defaults only. Its text and `effective` hide secrets; `store` itself
    is the whole URL, password included.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    brokers: Annotated[list[Address], NoDecode, Items, Field(min_length=1)] = _field(
        ["localhost:9092"],
        "Kafka brokers to ask first; the others are learned from them.",
        allowed="host:port, several separated by commas",
    )
    store: StoreUrl = _field(
        "sqlite:///./tidemark.db",
        "Where events are kept.",
        allowed="memory:, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    tenants: Annotated[list[Tenant], NoDecode, Items, Field(min_length=1)] = _field(
        [DEFAULT_TENANT],
        "Tenants that this worker serves. Each has topics, positions and chains of its own; the topics of `default` "
        "carry no name, those of `acme` are `tidemark.acme.commands` and so on.",
        allowed="names of a-z, 0-9 and -, separated by commas",
    )
    topic_prefix: TopicPrefix = _field(
        "tidemark.", "What the names of all topics begin with.", allowed="letters, digits, ., _ and -"
    )
    partitions: int = _field(
        32, "Partitions of each topic and of the store. Fixed once they are made.", least=1, most=4_096
    )
    reply_topics: Annotated[list[Pattern], NoDecode, Items] = _field(
        [],
        "Topics that a command may name for its reply, as glob patterns (`*`, `?`, `[a-c]`). Other topics are never "
        "written to, whatever a command says.",
        allowed="topic names or glob patterns, separated by commas",
    )
    group: str = _field("tidemark", "Consumer group of the workers; workers of one store share it.")
    group_instance_id: str | None = _field(
        None,
        "A name for this worker that outlives it (static membership): after a restart within the session time-out it "
        "has its partitions back without a rebalance. Different for every worker.",
    )
    http: Address = _field(
        "127.0.0.1:8089",
        "Address of health, metrics and the read API. `0.0.0.0:8089` for every interface.",
        allowed="host:port",
    )
    config: Path | None = _field(None, "TOML file with settings; its keys are the names below in lower case.")
    secrets_dir: Path | None = _field(
        None, "Directory with one file per secret setting, each called as its environment variable."
    )

    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _field(
        "PLAINTEXT", "How to talk to the brokers: encrypted (`SSL`), with a login (`SASL`), both or neither."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = _field(
        None, "How to log in at the brokers; needed with `SASL_PLAINTEXT` and `SASL_SSL`."
    )
    kafka_sasl_username: str | None = _field(None, "User name, for `PLAIN` and `SCRAM`.")
    kafka_sasl_password: SecretStr | None = _field(None, "Password, for `PLAIN` and `SCRAM`.")
    kafka_oauth_token: SecretStr | None = _field(None, "A token that does not change, for `OAUTHBEARER`.")
    kafka_oauth_token_file: Path | None = _field(
        None, "File with the token, for `OAUTHBEARER`; read again for every connection, so that others may renew it."
    )
    kafka_oauth_endpoint: HttpUrl | None = _field(
        None,
        "Where to ask for a token by client credentials, for `OAUTHBEARER`.",
        allowed="a URL that begins with https:// or http://",
    )
    kafka_oauth_client_id: str | None = _field(None, "Client id at the token endpoint.")
    kafka_oauth_client_secret: SecretStr | None = _field(None, "Client secret at the token endpoint.")
    kafka_oauth_scope: str | None = _field(None, "Scope to ask for at the token endpoint.")
    kafka_oauth_extensions: Annotated[list[Extension], NoDecode, Items] = _field(
        [],
        "SASL extensions that go with the token, such as `logicalCluster=lkc-1,identityPoolId=pool-1`.",
        allowed="name=value, several separated by commas",
    )
    kafka_ssl_cafile: Path | None = _field(
        None, "PEM file with the certificate authorities to trust; the system's where left out."
    )
    kafka_ssl_certfile: Path | None = _field(None, "PEM file with this client's certificate (mutual TLS).")
    kafka_ssl_keyfile: Path | None = _field(None, "PEM file with the certificate's private key.")
    kafka_ssl_key_password: SecretStr | None = _field(None, "Password of the private key, where it has one.")
    kafka_ssl_check_hostname: bool = _field(
        True, "Whether a broker's certificate must carry the name that it was reached by."
    )

    max_record_bytes: int = _field(
        1_000_000, "Most bytes of a command record's key and value together.", least=1_024, most=64_000_000
    )
    max_events: int = _field(1_000, "Most events in one command.", least=1, most=100_000)
    max_depth: int = _field(64, "Most levels of JSON arrays and objects within each other.", least=3, most=512)
    max_name_bytes: int = _field(
        255,
        "Most bytes of a stream's name, an event's type, a command, correlation or causation id.",
        least=1,
        most=1_024,
    )
    refusal_retention_s: int = _field(
        604_800,
        "For how many seconds, by the records' timestamps, a refused command is answered the same again by its id.",
        least=0,
        most=3_153_600_000,
    )

    batch_size: int = _field(
        4_096,
        f"Most commands in one cycle, all partitions together; large ones count as one for each {COMMON_BYTES} bytes.",
        least=1,
        most=100_000,
    )
    linger_ms: int = _field(
        0, "Milliseconds that a cycle waits for more commands; 0 goes at once.", least=0, most=1_000
    )
    durability: Literal["full", "relaxed"] = _field(
        "full",
        "Whether a reply waits until its events survive a power cut (`full`), or only a crash of the process "
        "(`relaxed`).",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = _field(
        "none", "How the worker compresses the events and replies that it publishes."
    )
    publish_backlog: int = _field(
        10_000,
        "Most events and replies of one partition that wait for the broker's acknowledgement before the next "
        f"commands of that partition are decided; large ones count as one for each {COMMON_BYTES} bytes.",
        least=1,
        most=1_000_000,
    )
    fetch_partition_bytes: int = _field(
        262_144, "Most bytes fetched from one partition at a time.", least=1_024, most=64_000_000
    )
    session_timeout_ms: int = _field(
        30_000,
        "After how many milliseconds without a sign of life the group gives a worker's partitions to others.",
        least=6_000,
        most=1_800_000,
    )
    startup_timeout_s: int = _field(
        30, "For how many seconds a command waits for the brokers before it gives up.", least=1, most=3_600
    )
    stall_timeout_s: int = _field(
        60,
        "After how many seconds without a turn of its event loop a worker ends itself, so that another takes over; 0 "
        "for never.",
        least=0,
        most=3_600,
    )
    replication_factor: Annotated[int, AfterValidator(_not_zero)] = _field(
        -1,
        "Copies of each topic that `tidemark topics create` asks for; -1 leaves it to the brokers "
        "(`default.replication.factor`). In production 3.",
        allowed="-1 or a whole number from 1 to 100",
        least=-1,
        most=100,
    )

    hot_streams: int = _field(
        5,
        "How many of the hottest streams `/metrics` and `/status` name, of those with 1% of the worker's commands or "
        "more; 0 where streams' names are not for everyone who reads metrics.",
        least=0,
        most=50,
    )
    trace_one_in: int = _field(
        0,
        "One in so many commands is traced, or where its client sent a `traceparent`, the next that has none; 0 for "
        "none. Traces need an `OTEL_EXPORTER_OTLP_ENDPOINT`.",
        least=0,
        most=1_000_000,
    )

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = _field(
        "info", "How much is logged, on standard error."
    )
    log_format: Literal["text", "json"] = _field("text", "Lines for people, or one JSON object a line.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 — the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: where the other values come from depends on them (`load_settings`)."""
        return (init_settings,)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from effective(self).items()

    @property
    def http_host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.http.rpartition(":")[0].strip("[]")

    @property
    def http_port(self) -> int:
        """0 for any port that is free."""
        return int(self.http.rpartition(":")[2])

    @property
    def limits(self) -> Limits:
        """What a command may measure."""
        return Limits(self.max_record_bytes, self.max_events, self.max_depth, self.max_name_bytes)

    @property
    def rules(self) -> Rules:
        """What takes part in decisions."""
        return Rules(self.partitions, self.refusal_retention_s * 1000)

    def allows_reply_to(self, topic: str) -> bool:
        """Whether a command may name this topic for its reply: on the list, and never one of Tidemark's own."""
        allowed = any(fnmatchcase(topic, pattern) for pattern in self.reply_topics)
        return allowed and not is_ours(self.topic_prefix, topic)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def effective(settings: Settings) -> dict[str, Any]:
    """Field name to value, ready for JSON, secrets hidden."""
    return {name: _shown(getattr(settings, name)) for name in Settings.model_fields}


def allowed_values(name: str) -> str:
    """What a field may be, in words that follow "must be"; empty where any text will do."""
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra["allowed"]:
        return str(extra["allowed"])
    if field.annotation is bool:
        return "true or false"
    choices = _choices(field.annotation)
    if choices:
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    return _range(field)


def load_settings(**overrides: Any) -> Settings:
    """The settings in force. `overrides` are fields by name; those that are None count as not given.

    Raises `SettingsError`, whose text has one line for every setting that is wrong.
    """
    options = {name: value for name, value in overrides.items() if value is not None}
    if unknown := options.keys() - Settings.model_fields.keys():
        raise TypeError(f"No such settings: {', '.join(sorted(unknown))}")
    problems: list[str] = []
    environment = EnvSettingsSource(Settings)()
    file = _from_file({**environment, **options}.get("config"), problems)
    secrets = _from_secrets({**file, **environment, **options}.get("secrets_dir"), problems)
    settings, wrong = _checked({**file, **secrets, **environment, **options})
    problems += [*_unknown_variables(os.environ), *wrong.values()]
    problems += [clash.text for clash in _clashes(settings) if not clash.fields & wrong.keys()]
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


# --- where values come from


def _from_file(path: str | Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{variable('config')}: can't read {path}: {_reason(error)}.")
        return {}
    names = Settings.model_fields.keys() - {"config"}
    problems += [f"{path}: unknown key {key!r}{_nearest(key, names)}" for key in values if key not in names]
    return {key: value for key, value in values.items() if key in names}


def _from_secrets(path: str | Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    known = {variable(name) for name in Settings.model_fields}
    try:
        names = [entry.name.upper() for entry in Path(path).iterdir()]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = SecretsSettingsSource(Settings, path)()
    except (OSError, TypeError, ValueError) as error:
        problems.append(f"{variable('secrets_dir')}: can't read {path}: {_reason(error)}.")
        return {}
    problems += [f"{variable('secrets_dir')}: {warning.message}" for warning in caught]
    unknown = [name for name in names if name.startswith(PREFIX) and name not in known]
    problems += [f"{path}: unknown file {name}{_nearest(name, known)}" for name in unknown]
    return values


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = {variable(name) for name in Settings.model_fields}
    for given, value in environment.items():
        name = given.upper()
        if not name.startswith(PREFIX) or name in known or _IGNORED.fullmatch(name):
            continue
        if _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and "://" in value):
            continue
        yield f"{given}: no such setting{_nearest(name, known)}"


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else "."


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).rstrip(".")


# --- what is wrong with them


def _checked(values: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
    """The settings, with defaults in place of wrong ones, and for each of these what is wrong."""
    try:
        return Settings(**values), {}
    except ValidationError as error:
        wrong = {str(detail["loc"][0]): detail.get("input") for detail in error.errors()}
    right = {name: value for name, value in values.items() if name not in wrong}
    return Settings(**right), {name: _complaint(name, value) for name, value in wrong.items()}


def _complaint(name: str, value: Any) -> str:
    must_be = allowed_values(name) or "text"
    if _is_secret(name):
        return f"{variable(name)} must be {must_be}."
    return f"{variable(name)} is {str(value)[:100]!r}, but must be {must_be}."


class _Clash(NamedTuple):
    """Fields that don't go together; told only where none of them is wrong on its own."""

    text: str
    fields: set[str]


def _clashes(settings: Settings) -> Iterator[_Clash]:
    yield from _unused(settings)
    yield from _missing(settings)
    yield from _bad_tenants(settings)
    yield from _bad_reply_topics(settings)


_TLS = ["kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile", "kafka_ssl_key_password"]
_LOGIN = ["kafka_sasl_username", "kafka_sasl_password"]
_TOKEN = ["kafka_oauth_token", "kafka_oauth_token_file", "kafka_oauth_endpoint"]
_CLIENT = ["kafka_oauth_client_id", "kafka_oauth_client_secret"]
_OAUTH = [*_TOKEN, *_CLIENT, "kafka_oauth_scope", "kafka_oauth_extensions"]


def _unused(settings: Settings) -> Iterator[_Clash]:
    """A password or certificate that is silently not used is worse than none."""
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    by_protocol = [] if protocol.endswith("SSL") else list(_TLS)
    by_mechanism = []
    if not protocol.startswith("SASL"):
        by_protocol += ["kafka_sasl_mechanism", *_LOGIN, *_OAUTH]
    elif mechanism is not None:
        by_mechanism = _LOGIN if mechanism == "OAUTHBEARER" else _OAUTH
    for names, decider in ((by_protocol, "kafka_security_protocol"), (by_mechanism, "kafka_sasl_mechanism")):
        for name in names:
            if getattr(settings, name):
                yield _Clash(f"{variable(name)} is not used with {_assigned(settings, decider)}.", {name, decider})


def _missing(settings: Settings) -> Iterator[_Clash]:
    for name, decider, reason in _needs(settings):
        if not getattr(settings, name):
            yield _Clash(f"{variable(name)} is missing; {reason} needs it.", {name, decider})
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        given = [variable(name) for name in _TOKEN if getattr(settings, name)]
        if len(given) != 1:
            choices = f"{', '.join(variable(name) for name in _TOKEN[:-1])} or {variable(_TOKEN[-1])}"
            text = (
                f"{_assigned(settings, 'kafka_sasl_mechanism')} needs exactly one of {choices}; {len(given)} are set."
            )
            yield _Clash(text, {"kafka_sasl_mechanism", *_TOKEN})


def _needs(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The field that is needed, the field that needs it, and that in words."""
    mechanism = settings.kafka_sasl_mechanism
    if settings.kafka_security_protocol.startswith("SASL"):
        yield "kafka_sasl_mechanism", "kafka_security_protocol", _assigned(settings, "kafka_security_protocol")
    if mechanism is not None and mechanism != "OAUTHBEARER":
        yield from ((name, "kafka_sasl_mechanism", _assigned(settings, "kafka_sasl_mechanism")) for name in _LOGIN)
    pairs = [(name, "kafka_oauth_endpoint") for name in _CLIENT]
    pairs += [(_TLS[1], _TLS[2]), (_TLS[2], _TLS[1]), (_TLS[2], _TLS[3])]
    yield from ((name, decider, variable(decider)) for name, decider in pairs if getattr(settings, decider))


def _bad_tenants(settings: Settings) -> Iterator[_Clash]:
    twice = sorted({tenant for tenant in settings.tenants if settings.tenants.count(tenant) > 1})
    if twice:
        yield _Clash(f"{variable('tenants')} has {', '.join(twice)} more than once.", {"tenants"})
    longest = max(_own_topics(settings), key=len)
    if len(longest) > _LONGEST_TOPIC_NAME:
        text = (
            f"{variable('topic_prefix')} and {variable('tenants')} make a topic name of {len(longest)} characters; "
            f"Kafka allows {_LONGEST_TOPIC_NAME}."
        )
        yield _Clash(text, {"topic_prefix", "tenants"})


def _bad_reply_topics(settings: Settings) -> Iterator[_Clash]:
    for pattern in settings.reply_topics:
        forbidden = (topic for topic in [*_own_topics(settings), "__consumer_offsets"] if fnmatchcase(topic, pattern))
        for topic in itertools.islice(forbidden, 1):
            text = f"{variable('reply_topics')} has {pattern!r}, which matches {topic}; no reply may be written there."
            yield _Clash(text, {"reply_topics", "topic_prefix", "tenants"})


def _own_topics(settings: Settings) -> list[str]:
    return [topic for tenant in settings.tenants for topic in TopicNames.of(settings.topic_prefix, tenant).all()]


def _assigned(settings: Settings, name: str) -> str:
    return f"{variable(name)}={getattr(settings, name)}"


# --- words


def _choices(annotation: Any) -> list[str]:
    """The words of a Literal, however it is wrapped."""
    if isinstance(annotation, str):
        return [annotation]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _range(field: FieldInfo) -> str:
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    most = next((bound.le for bound in field.metadata if hasattr(bound, "le")), None)
    return "" if least is None else f"a whole number from {least} to {most}"


def _is_secret(name: str) -> bool:
    annotation = Settings.model_fields[name].annotation
    return name in {"store", "kafka_oauth_endpoint"} or SecretStr in get_args(annotation)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    """Hides too much rather than too little where a password holds what it should not, such as an @ or a slash."""
    url = re.sub(r"(://[^:/@?]*:).*@", rf"\g<1>{HIDDEN}@", url)
    return re.sub(r"(?i)([?&][a-z]*(?:password|secret|token)=)[^&]*", rf"\g<1>{HIDDEN}", url)
