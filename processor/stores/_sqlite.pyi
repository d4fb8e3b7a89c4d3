from typing import Any

from processor.messages import Plan

def event_values(tenant: int, plan: Plan) -> list[Any]: ...
