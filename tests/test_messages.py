"""What `docs/contract.md` says in words and numbers is what the messages have."""

import re
from pathlib import Path
from typing import get_args

from msgspec import structs

from processor.messages import Command, Limits, Log, NewEvent, Reason, Rules
from processor.settings import variable

CONTRACT = Path(__file__).parents[1].joinpath("docs", "contract.md").read_text(encoding="utf-8")
DECISION = CONTRACT.partition("\n## Decision\n")[2].partition("\n## ")[0]


def test_the_contracts_decision_table_has_every_reason() -> None:
    rows = re.findall(r"^\| \d+ \|(.*)\|(.*)\|(.*)\|$", DECISION, re.MULTILINE)
    assert len(rows) == 12
    assert tuple(reason.strip(" `") for *_, reason in rows if "`" in reason) == get_args(Reason)


def test_the_contracts_limits_are_the_defaults() -> None:
    shown = dict(re.findall(r"\| `(TIDEMARK_MAX_\w+)` \| ([\d,]+) \|", CONTRACT))
    limits = structs.asdict(Limits())
    assert {name: int(number.replace(",", "")) for name, number in shown.items()} == {
        variable(f"max_{name}"): value for name, value in limits.items()
    }
    assert f"{Rules(32).retention_ms // 86_400_000} days" in DECISION


def test_the_contract_has_every_field_of_a_command() -> None:
    shown = set(re.findall(r"`([a-z_]+|events\[\]\.[a-z_]+)`", CONTRACT))
    assert shown >= {field.name for field in structs.fields(Command)}
    assert shown >= {f"events[].{field.name}" for field in structs.fields(NewEvent)}


def test_a_log_is_shown_by_tenant_and_partition() -> None:
    assert str(Log("acme", 7)) == "acme/7"
