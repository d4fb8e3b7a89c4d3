"""Fetch sessions (KIP-227): the broker remembers what a consumer asks for, and a request names only what has changed.

aiokafka has none. It names every partition in every request, and takes an answer for each apart: for a few records over
32 partitions, that is a fifth of what the worker does.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.fetch import FetchRequest

_Place = tuple[str, int]
_Asked = dict[_Place, tuple[int, ...]]
_SINCE_VERSION = 7
_LAST_EPOCH = 2**31 - 1


class _Session(NamedTuple):
    """What the next request to a broker goes on from: with epoch 0, it begins a session, in place of the one named.

    `asked` is what the broker knows: by topic and partition, what a request says of it.
    """

    number: int
    epoch: int
    asked: _Asked

    def anew(self) -> "_Session":
        """With nothing that the broker would have to know."""
        return _Session(self.number, 0, {})

    def following(self, number: int, asked: _Asked) -> "_Session":
        """After an answer."""
        return _Session(number, self.epoch % _LAST_EPOCH + 1, asked)


class _Request(FetchRequest):  # type: ignore[misc]  # aiokafka has no types
    """A fetch request that names what is not as the session has it. With a broker that has no sessions it is as it was.

    `asked`, once it is built, is what the session has then.
    """

    def __init__(self, whole: FetchRequest, session: _Session) -> None:
        self.asked: _Asked = {}
        self._whole = whole
        self._session = session

    def build(self, request_struct_class: Any) -> Any:
        built = self._whole.build(request_struct_class)
        if request_struct_class.API_VERSION < _SINCE_VERSION:
            return built
        number, epoch, before = self._session
        self.asked = {(topic, entry[0]): entry for topic, entries in built.topics for entry in entries}
        built.session_id, built.session_epoch = number, epoch
        built.topics = _by_topic((place[0], entry) for place, entry in self.asked.items() if before.get(place) != entry)
        built.forgotten_topics_data = _by_topic(place for place in before if place not in self.asked)
        return built


class FetchSessions:
    """aiokafka's client as its fetcher uses it, with a session for each broker."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self.cluster = client.cluster
        self._client = client
        self._sessions: dict[int, _Session] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        """Send a request; raises aiokafka's errors.

        Of one whose answer is not received, nobody knows whether the session has moved: the next begins another one.
        """
        if not isinstance(request, FetchRequest):
            return await self._client.send(node_id, request)
        session = self._sessions.get(node_id, _Session(0, 0, {}))
        response, error_code = await self._send_in(session, node_id, request)
        if error_code:
            # The broker has forgotten the session, as it does when it starts anew or others need the room.
            response, error_code = await self._send_in(session.anew(), node_id, request)
        if error_code:
            raise for_code(error_code)(f"a fetch session can't be begun at broker {node_id}")
        return response

    async def _send_in(self, session: _Session, node_id: int, whole: FetchRequest) -> tuple[Any, int]:
        """The response, and its error code: 0, or why the session can't go on."""
        request = _Request(whole, session)
        self._sessions[node_id] = session.anew()
        response = await self._client.send(node_id, request)
        if response.API_VERSION < _SINCE_VERSION:
            return response, 0
        # A broker that has no room for a session answers without one, under the number 0.
        if not response.error_code and response.session_id:
            self._sessions[node_id] = session.following(response.session_id, request.asked)
        return response, response.error_code


def _by_topic(entries: Iterable[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    topics: dict[str, list[Any]] = {}
    for topic, entry in entries:
        topics.setdefault(topic, []).append(entry)
    return list(topics.items())
