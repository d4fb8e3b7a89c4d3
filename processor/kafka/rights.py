"""Whether this account may do at the broker what a worker does: told at the start, not when the first reply is due."""

from collections import defaultdict
from typing import Any, ClassVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion, NoError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from processor.errors import SettingsError
from processor.kafka.acls import own_acls
from processor.kafka.topics import ask, connected
from processor.settings import Settings

_BITS = {"READ": 1 << 3, "WRITE": 1 << 4}
_NOT_TOLD = -(2**31)
_GROUP = 0


class _Rights(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 8
    _PARTITION = (
        *(("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32)),
        *(("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32))),
    )
    _BROKER = (("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))
    _TOPIC = (
        *(("error_code", Int16), ("topic", String("utf-8")), ("is_internal", Boolean)),
        *(("partitions", Array(*_PARTITION)), ("authorized_operations", Int32)),
    )
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(*_BROKER)),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        ("topics", Array(*_TOPIC)),
        ("cluster_authorized_operations", Int32),
    )


class _AskedRights(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Rights
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _RightsRequest(Request[_AskedRights]):  # type: ignore[misc]
    """Metadata with what the asking account may do; aiokafka's own request is of a version before that."""

    API_KEY: ClassVar[int] = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_AskedRights]) -> _AskedRights:
        return request_struct_class(self._topics, False, False, True)


async def require_rights(settings: Settings) -> None:
    """Raise `SettingsError` unless the account may read and write the topics and be in the group as a worker does.

    A broker that can't tell is believed. Raises `BrokerUnreachable`.
    """
    needed: defaultdict[str, list[str]] = defaultdict(list)
    for acl in own_acls(settings, ""):
        if acl.resource == "topic" and acl.operation in _BITS:
            needed[acl.name].append(acl.operation)
    async with connected(settings) as client:
        missing = await _missing(client, needed) if needed else []
        if await _is_kept_out(client, settings.group):
            missing.append(f"READ the group {settings.group}")
    if missing:
        more = f", nor {len(missing) - 1} things more" if len(missing) > 1 else ""
        raise SettingsError(
            f"This account may not {missing[0]}{more}: `tidemark topics acls` prints the rules that a worker needs."
        )


async def _missing(client: AIOKafkaClient, needed: dict[str, list[str]]) -> list[str]:
    try:
        response: Any = await ask(client, _RightsRequest(list(needed)))
    except (IncompatibleBrokerVersion, NotImplementedError):
        # aiokafka raises either for a broker that does not tell rights: what is missing shows when it is asked for.
        return []
    rights = {topic[1]: topic[4] for topic in response.topics if for_code(topic[0]) is NoError}
    return [
        f"{operation} the topic {name}"
        for name, operations in needed.items()
        for operation in operations
        if (told := rights.get(name, _NOT_TOLD)) != _NOT_TOLD and not told & _BITS[operation]
    ]


async def _is_kept_out(client: AIOKafkaClient, group: str) -> bool:
    response = await ask(client, FindCoordinatorRequest(group, _GROUP))
    return for_code(response.error_code) is GroupAuthorizationFailedError
