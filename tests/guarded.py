"""A real broker that asks for a login over TLS and, where wanted, looks at access rules."""

import subprocess
from pathlib import Path

from tests.servers import Broker

MODULES = "org.apache.kafka.common.security"


class GuardedBroker(Broker):
    """Takes user `admin` with password `geheim`, and tokens without a signature, over TLS on localhost.

    With the authorizer, `admin` may do anything, and anybody else what an access rule allows.
    """

    def __init__(self, *, authorizer: bool = False) -> None:
        super().__init__()
        self._authorizer = authorizer

    def _prepare(self) -> None:
        self._certify()
        super()._prepare()
        text = self._config.read_text().replace("PLAINTEXT:PLAINTEXT,", "PLAINTEXT:SASL_SSL,")
        plain = 'username="admin" password="geheim" user_admin="geheim"'
        settings = {
            "advertised.listeners": f"PLAINTEXT://localhost:{self.port}",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.plaintext.plain.sasl.jaas.config": f"{MODULES}.plain.PlainLoginModule required {plain};",
            "listener.name.plaintext.scram-sha-512.sasl.jaas.config": f"{MODULES}.scram.ScramLoginModule required;",
            "listener.name.plaintext.oauthbearer.sasl.jaas.config": (
                f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="admin";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"{self.folder}/server.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": f"{self.certificate}",
        }
        if self._authorizer:
            settings |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Nameless is the broker itself at its controller's listener, which clients do not use.
                "super.users": "User:admin;User:ANONYMOUS",
            }
        self._config.write_text(text + "".join(f"{name}={value}\n" for name, value in settings.items()))

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def _certify(self) -> None:
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
        files = ["-keyout", "key.pem", "-out", self.certificate.name]
        subprocess.run([*command, *files], cwd=self.folder, check=True, capture_output=True)
        pem = (self.folder / "key.pem").read_text() + self.certificate.read_text()
        (self.folder / "server.pem").write_text(pem)
