import os
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.messages import Limits, Rules
from processor.names import TENANT_NAME, TopicNames, is_ours
from processor.settings import Settings, allowed_values, effective, load_settings, variable

DOCS = Path(__file__).parent.parent / "docs"
TENANTS = st.from_regex(TENANT_NAME, fullmatch=True)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
        monkeypatch.delenv(name)


def problems(**overrides: Any) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load_settings(**overrides)
    return str(raised.value).splitlines()


# --- values


def test_the_defaults_are_the_contracts() -> None:
    settings = load_settings()

    assert settings.brokers == ["localhost:9092"]
    assert settings.store == "sqlite:///./tidemark.db"
    assert settings.topic_prefix == "tidemark."
    assert settings.partitions == 32
    assert settings.reply_topics == []
    assert settings.group == "tidemark"
    assert settings.http == "127.0.0.1:8089"


def test_limits_and_rules_are_those_of_the_core() -> None:
    settings = load_settings()

    assert settings.limits == Limits()
    assert settings.rules == Rules(partitions=32)


def test_values_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_BROKERS", "a:1, b:2")
    monkeypatch.setenv("TIDEMARK_TENANTS", "default,acme")
    monkeypatch.setenv("TIDEMARK_PARTITIONS", "8")
    monkeypatch.setenv("TIDEMARK_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("TIDEMARK_KAFKA_SSL_CHECK_HOSTNAME", "false")

    settings = load_settings()

    assert settings.brokers == ["a:1", "b:2"]
    assert settings.tenants == ["default", "acme"]
    assert settings.partitions == 8
    assert settings.log_level == "warning"
    assert settings.kafka_ssl_check_hostname is False


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_PARTITIONS", "")

    assert load_settings().partitions == 32


def test_what_is_given_more_closely_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tidemark.toml").write_text(
        f'group = "file"\nlinger_ms = 1\nhttp = "h:1"\nbatch_size = 1\nsecrets_dir = "{tmp_path}"\n'
    )
    for name, value in {"GROUP": "secret", "LINGER_MS": "2", "HTTP": "h:2"}.items():
        (tmp_path / f"TIDEMARK_{name}").write_text(value + "\n")
    monkeypatch.setenv("TIDEMARK_GROUP", "environment")
    monkeypatch.setenv("TIDEMARK_LINGER_MS", "3")
    monkeypatch.setenv("TIDEMARK_CONFIG", str(tmp_path / "tidemark.toml"))

    settings = load_settings(group="option", partitions=None)

    assert (settings.group, settings.linger_ms, settings.http, settings.batch_size) == ("option", 3, "h:2", 1)
    assert settings.partitions == 32


def test_the_file_may_be_named_by_an_option(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('tenants = ["a", "b"]\n')

    assert load_settings(config=tmp_path / "x.toml").tenants == ["a", "b"]


def test_secrets_are_read_where_kubernetes_mounts_them(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "TIDEMARK_STORE").write_text("postgresql://u:p@h/d\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "TIDEMARK_STORE").symlink_to("..data/TIDEMARK_STORE")

    assert load_settings(secrets_dir=tmp_path).store == "postgresql://u:p@h/d"


@pytest.mark.parametrize(
    ("http", "host", "port"), [("127.0.0.1:8089", "127.0.0.1", 8089), ("[::1]:0", "::1", 0), ("host:80", "host", 80)]
)
def test_the_http_address_is_taken_apart(http: str, host: str, port: int) -> None:
    settings = load_settings(http=http)

    assert (settings.http_host, settings.http_port) == (host, port)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().partitions = 1


def test_an_option_that_does_not_exist_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="patitions"):
        load_settings(patitions=1)


# --- what is wrong


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_PARTITIONS", "many")
    monkeypatch.setenv("TIDEMARK_DURABILITY", "some")
    monkeypatch.setenv("TIDEMARK_KAFKA_SASL_USERNAME", "u")
    monkeypatch.setenv("TIDEMARK_PARTITION", "3")

    assert problems(tenants="a,a", linger_ms=-1) == [
        "TIDEMARK_PARTITION: no such setting; did you mean TIDEMARK_PARTITIONS?",
        "TIDEMARK_PARTITIONS is 'many', but must be a whole number from 1 to 4096.",
        "TIDEMARK_LINGER_MS is '-1', but must be a whole number from 0 to 1000.",
        "TIDEMARK_DURABILITY is 'some', but must be full or relaxed.",
        "TIDEMARK_KAFKA_SASL_USERNAME is not used with TIDEMARK_KAFKA_SECURITY_PROTOCOL=PLAINTEXT.",
        "TIDEMARK_TENANTS has a more than once.",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("brokers", "host"),
        ("brokers", "host:99999"),
        ("brokers", ","),
        ("brokers", "kafka://host:1"),
        ("store", "mysql://h/d"),
        ("store", "sqlite:tidemark.db"),
        ("tenants", "Acme"),
        ("tenants", "a.b"),
        ("tenants", ","),
        ("topic_prefix", "a/"),
        ("reply_topics", "a b"),
        ("http", "8089"),
        ("kafka_security_protocol", "TLS"),
        ("kafka_sasl_mechanism", "GSSAPI"),
        ("kafka_oauth_endpoint", "ftp://h"),
        ("kafka_oauth_extensions", "lkc-1"),
        ("replication_factor", "0"),
        ("compression", "brotli"),
        ("log_format", "xml"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})

    assert problem.startswith(variable(name))
    assert problem.endswith(f"must be {allowed_values(name)}.")


def test_a_wrong_secret_is_not_repeated() -> None:
    (problem,) = problems(store="mysql://user:geheim@host/db")

    assert "geheim" not in problem


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "KAFKA_SASL_MECHANISM is missing"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "KAFKA_SASL_MECHANISM is not used"),
        ({"kafka_ssl_cafile": "ca.pem"}, "KAFKA_SSL_CAFILE is not used"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_certfile": "c"}, "KAFKA_SSL_KEYFILE is missing"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": "k"}, "KAFKA_SSL_CERTFILE is missing"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_key_password": "p"}, "KAFKA_SSL_KEYFILE is missing"),
        ({"topic_prefix": "p" * 240}, "make a topic name of 252 characters"),
        ({"reply_topics": "*"}, "matches tidemark.commands"),
        ({"reply_topics": "replies,tidemark.event?"}, "'tidemark.event?', which matches tidemark.events"),
        ({"reply_topics": "*.acme.*", "tenants": "acme"}, "matches tidemark.acme.commands"),
        ({"reply_topics": "__*"}, "matches __consumer_offsets"),
    ],
)
def test_a_contradiction_is_told(given: dict[str, str], named: str) -> None:
    assert any(named in problem for problem in problems(**given))


LOGIN = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "SCRAM-SHA-512"}
OAUTH = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (LOGIN, ["USERNAME is missing", "PASSWORD is missing"]),
        (LOGIN | {"kafka_sasl_username": "u"}, ["PASSWORD is missing"]),
        (
            LOGIN | {"kafka_sasl_username": "u", "kafka_sasl_password": "p", "kafka_oauth_token": "t"},
            ["KAFKA_OAUTH_TOKEN is not used with TIDEMARK_KAFKA_SASL_MECHANISM=SCRAM-SHA-512"],
        ),
        (OAUTH, ["needs exactly one of .*; 0 are set"]),
        (OAUTH | {"kafka_oauth_token": "t", "kafka_oauth_token_file": "f"}, ["2 are set"]),
        (OAUTH | {"kafka_oauth_endpoint": "https://h"}, ["CLIENT_ID is missing", "CLIENT_SECRET is missing"]),
        (OAUTH | {"kafka_oauth_token": "t", "kafka_sasl_password": "p"}, ["SASL_PASSWORD is not used"]),
    ],
)
def test_a_login_that_can_not_work_is_told(given: dict[str, str], named: list[str]) -> None:
    found = problems(**given)

    assert len(found) == len(named)
    assert all(re.search(pattern, problem) for pattern, problem in zip(named, found, strict=True))


def test_a_contradiction_with_a_wrong_setting_is_not_told_twice() -> None:
    assert len(problems(kafka_security_protocol="SASL", kafka_sasl_mechanism="PLAIN")) == 3
    assert len(problems(kafka_sasl_mechanism="GSSAPI", kafka_security_protocol="SASL_SSL")) == 1


@pytest.mark.parametrize("name", ["TIDEMARK_TEST_KAFKA", "TIDEMARK_HISTORY", "TIDEMARK_BENCH_EVENTS"])
def test_variables_of_tests_and_benchmarks_are_no_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")

    load_settings()


def test_variables_by_which_kubernetes_links_services_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_PORT", "tcp://10.0.0.1:8089")
    monkeypatch.setenv("TIDEMARK_PORT_8089_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("TIDEMARK_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TIDEMARK_WORKER_SERVICE_PORT_HTTP", "8089")
    load_settings()

    monkeypatch.setenv("TIDEMARK_PORT", "8089")
    (problem,) = problems()
    assert problem.startswith("TIDEMARK_PORT: no such setting")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("brokrs = []", "unknown key 'brokrs'; did you mean brokers?"),
        ('config = "x"', "unknown key 'config'"),
        ("[kafka]\nx = 1", "unknown key 'kafka'"),
        ("brokers =", "can't read"),
        ('partitions = "x"', "TIDEMARK_PARTITIONS is 'x'"),
        ("partitions = [1]", "TIDEMARK_PARTITIONS is '[1]'"),
        ("tenants = [1]", "TIDEMARK_TENANTS is '1'"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "x.toml").write_text(content)

    (problem,) = problems(config=tmp_path / "x.toml")

    assert named in problem


def test_a_file_or_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert problems(config=tmp_path / "no.toml", secrets_dir=tmp_path / "no") == [
        f"TIDEMARK_CONFIG: can't read {tmp_path}/no.toml: No such file or directory.",
        f"TIDEMARK_SECRETS_DIR: can't read {tmp_path}/no: No such file or directory.",
    ]


def test_a_directory_that_is_no_path_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("secrets_dir = 5")

    assert any("TIDEMARK_SECRETS_DIR is '5'" in problem for problem in problems(config=tmp_path / "x.toml"))


def test_a_secret_that_would_be_passed_over_is_told(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "TIDEMARK_STOER").write_text("memory:")
    (secrets / "TIDEMARK_GROUP").mkdir()

    found = problems(secrets_dir=secrets)

    assert any("unknown file TIDEMARK_STOER; did you mean TIDEMARK_STORE?" in problem for problem in found)
    assert any("TIDEMARK_GROUP" in problem for problem in found)


# --- what is shown


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("postgresql://u:geheim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:ge@he/im@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=geheim&sslmode=require", "postgresql://u@h/d?password=***&sslmode=require"),
        ("postgresql://h/d?user=u&sslpassword=geheim", "postgresql://h/d?user=u&sslpassword=***"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_the_password_of_the_store_is_hidden(store: str, shown: str) -> None:
    settings = load_settings(store=store)

    assert settings.store == store
    assert effective(settings)["store"] == shown
    assert "geheim" not in repr(settings) + str(settings)


def test_secrets_are_hidden() -> None:
    settings = load_settings(**LOGIN, kafka_sasl_username="u", kafka_sasl_password="geheim")

    assert effective(settings)["kafka_sasl_password"] == "***"
    assert effective(settings)["kafka_oauth_token"] is None
    assert "geheim" not in repr(settings)


def test_every_setting_is_shown_and_explained() -> None:
    assert list(effective(load_settings())) == list(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


# --- topics


def test_the_default_tenants_topics_carry_no_name() -> None:
    assert TopicNames.of("tidemark.", "default").all() == (
        "tidemark.commands",
        "tidemark.results",
        "tidemark.conflicts",
        "tidemark.events",
        "tidemark.dead-letters",
    )
    assert TopicNames.of("tidemark.", "acme").dead_letters == "tidemark.acme.dead-letters"


@given(TENANTS, TENANTS)
def test_no_two_tenants_share_a_topic(one: str, other: str) -> None:
    shared = set(TopicNames.of("t.", one).all()) & set(TopicNames.of("t.", other).all())

    assert bool(shared) == (one == other)


@given(TENANTS)
def test_a_topic_of_any_tenant_is_ours(tenant: str) -> None:
    assert all(is_ours("t.", topic) for topic in TopicNames.of("t.", tenant).all())


@pytest.mark.parametrize(
    "topic", ["commands", "t.replies", "t.a.b.commands", "t.A.commands", "xt.commands", "t..events"]
)
def test_other_topics_are_not_ours(topic: str) -> None:
    assert not is_ours("t.", topic)


def test_replies_go_to_the_topics_on_the_list_only() -> None:
    settings = load_settings(reply_topics="replies.*,tidemark.o*,billing")

    assert all(settings.allows_reply_to(topic) for topic in ("replies.a", "billing", "tidemark.out"))
    assert not any(settings.allows_reply_to(topic) for topic in ("Billing", "replies", "tidemark.other.commands"))


# --- the documentation


def test_the_page_shows_the_settings_as_they_are() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")

    assert runpy.run_path(str(DOCS / "configuration.py"))["page"](text) == text


def _examples(language: str) -> list[str]:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("example", _examples("sh"))
def test_the_examples_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, example: str) -> None:
    words = shlex.split(example)
    variables = dict(word.split("=", 1) for word in words if word.startswith("TIDEMARK_"))
    (tmp_path / "x.toml").touch()
    here = {"TIDEMARK_CONFIG": str(tmp_path / "x.toml"), "TIDEMARK_SECRETS_DIR": str(tmp_path)}
    for name, value in variables.items():
        monkeypatch.setenv(name, here.get(name, value))

    assert variables
    load_settings()


@pytest.mark.parametrize("example", _examples("toml"))
def test_the_file_of_the_example_is_right(tmp_path: Path, example: str) -> None:
    (tmp_path / "x.toml").write_text(example)

    assert load_settings(config=tmp_path / "x.toml").log_format == "json"
