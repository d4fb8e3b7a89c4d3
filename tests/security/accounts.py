"""Who takes part: the accounts at the broker, and what each says of itself."""

from pathlib import Path
from typing import Any

from processor.names import TopicNames
from processor.settings import Settings

PASSWORD = "streng-geheim"
PARTITIONS = 2
ACCOUNTS = ("worker", "operator", "shop", "acme", "reports", "stranger")


class Accounts:
    """The accounts of one broker. `shop` sends commands of tenant default, `acme` and `reports` belong to acme."""

    def __init__(self, prefix: str, brokers: str, certificate: Path, store: str) -> None:
        self.default, self.acme = TopicNames.of(prefix, "default"), TopicNames.of(prefix, "acme")
        self.replies = f"replies-{prefix}acme"
        self.group = f"{prefix}workers"
        self._prefix = prefix
        self._brokers = brokers
        self._certificate = certificate
        self._store = store

    def environment(self, account: str, password: str = PASSWORD) -> dict[str, str]:
        return {
            "TIDEMARK_BROKERS": self._brokers,
            "TIDEMARK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "TIDEMARK_KAFKA_SSL_CAFILE": str(self._certificate),
            "TIDEMARK_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "TIDEMARK_KAFKA_SASL_USERNAME": account,
            "TIDEMARK_KAFKA_SASL_PASSWORD": password,
            "TIDEMARK_STORE": self._store,
            "TIDEMARK_TENANTS": "default,acme",
            "TIDEMARK_TOPIC_PREFIX": self._prefix,
            "TIDEMARK_GROUP": self.group,
            "TIDEMARK_PARTITIONS": str(PARTITIONS),
            "TIDEMARK_REPLY_TOPICS": f"replies-{self._prefix}*",
            "TIDEMARK_STARTUP_TIMEOUT_S": "10",
            "TIDEMARK_SESSION_TIMEOUT_MS": "6000",
            "TIDEMARK_HTTP": "127.0.0.1:0",
        }

    def settings(self, account: str) -> Settings:
        values: dict[str, Any] = {
            name.removeprefix("TIDEMARK_").lower(): value for name, value in self.environment(account).items()
        }
        return Settings(**values)

    def librdkafka(self, account: str) -> dict[str, Any]:
        """The same for confluent-kafka's clients."""
        return {
            "bootstrap.servers": self._brokers,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self._certificate),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": account,
            "sasl.password": PASSWORD,
        }
