from collections.abc import Sequence
from typing import Any

from processor.messages import Plan

def event_lists(plans: Sequence[tuple[int, Plan]], most: int) -> list[list[Any]]: ...
