"""The names of a tenant's topics. They are a promise to clients and to the broker's access rules."""

import re

from msgspec import Struct, structs

DEFAULT_TENANT = "default"
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KIND = r"(commands|results|conflicts|events|dead-letters)"


class TopicNames(Struct, frozen=True):
    """The topics of one tenant; all have the same number of partitions."""

    commands: str
    results: str
    conflicts: str
    events: str
    dead_letters: str

    @classmethod
    def of(cls, prefix: str, tenant: str) -> "TopicNames":
        """The default tenant's topics carry no name, any other tenant's do: `tidemark.acme.commands`.

        No two tenants share a topic, as a tenant's name has no dot.
        """
        start = prefix if tenant == DEFAULT_TENANT else f"{prefix}{tenant}."
        return cls(f"{start}commands", f"{start}results", f"{start}conflicts", f"{start}events", f"{start}dead-letters")

    def all(self) -> tuple[str, ...]:
        """The five names, in the order of the fields."""
        return structs.astuple(self)


def is_ours(prefix: str, topic: str) -> bool:
    """Whether a topic is one that some tenant has or could have, configured here or not."""
    rest = topic.removeprefix(prefix)
    own = re.fullmatch(rf"({TENANT_NAME.pattern}\.)?{_KIND}", rest) is not None
    return own and topic.startswith(prefix)
