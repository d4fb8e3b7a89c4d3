from collections.abc import Callable

from processor.messages import Command, Decoded, Limits

class Decoder:
    def __init__(
        self,
        parse: Callable[[bytes], Command],
        in_full: Callable[[bytes | None, bytes | None, Limits], Decoded],
    ) -> None: ...
    def __call__(self, key: bytes | None, value: bytes | None, limits: Limits, /) -> Decoded: ...
