from collections.abc import Sequence

from processor.messages import Plan

def copied(plans: Sequence[tuple[int, Plan]]) -> bytes: ...
