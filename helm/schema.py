"""Writes the worker's settings into the chart's `values.schema.json`: `python helm/schema.py`."""

import json
from pathlib import Path
from typing import Any

from processor.settings import Settings

PAGE = Path(__file__).parent / "tidemark" / "values.schema.json"

# What the chart has values of its own for, or sets itself.
_OWN = {"brokers", "store", "group_instance_id", "http", "config", "secrets_dir", "replication_factor"}


def schema(text: str) -> str:
    """The schema with the settings written anew; the rest stays as it is."""
    whole = json.loads(text)
    whole["properties"]["settings"]["properties"] = {
        name: _plain(value)
        for name, value in Settings.model_json_schema(mode="validation")["properties"].items()
        if name not in _OWN and not name.startswith("kafka_")
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Without what JSON Schema does not know, and without null: a setting is left out instead."""
    kept = {name: value for name, value in found.items() if name not in {"default", "title", "allowed"}}
    if "anyOf" in kept:
        (one,) = (option for option in kept.pop("anyOf") if option.get("type") != "null")
        kept = one | kept
    return kept


if __name__ == "__main__":
    PAGE.write_text(schema(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
