"""The chart's schema knows the worker's settings."""

import json
import runpy
from pathlib import Path

HELM = Path(__file__).parents[2] / "helm"


def test_the_settings_are_those_of_the_worker() -> None:
    text = (HELM / "tidemark" / "values.schema.json").read_text(encoding="utf-8")

    assert runpy.run_path(str(HELM / "schema.py"))["schema"](text) == text


def test_no_object_of_ours_takes_unknown_keys() -> None:
    schema = json.loads((HELM / "tidemark" / "values.schema.json").read_text(encoding="utf-8"))

    def open_ones(part: dict[str, object], at: str) -> list[str]:
        properties = part.get("properties")
        if not isinstance(properties, dict):
            return []
        here = [] if part.get("additionalProperties") is False else [at]
        return here + [found for name, inner in properties.items() for found in open_ones(inner, f"{at}.{name}")]

    assert open_ones(schema, "values") == []
