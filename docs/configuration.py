"""Writes the tables of `configuration.md` from the settings themselves: `python docs/configuration.py`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processor.kafka.topics import TopicSpec, topic_specs
from processor.settings import Settings, allowed_values, variable

PAGE = Path(__file__).with_suffix(".md")

# The first setting of each section; the settings stand in the order in which they are declared.
SECTIONS = {
    "brokers": "What everyone sets",
    "kafka_security_protocol": "Encryption and login",
    "max_record_bytes": "Limits and rules",
    "batch_size": "Speed and durability",
    "hot_streams": "Telemetry and logs",
}


def page(text: str) -> str:
    """The page with its tables written anew; the rest stays as it is."""
    text = _replace(text, "settings", "\n".join(_settings_tables()))
    return _replace(text, "topics", "\n".join(_topics_table()))


def _replace(text: str, name: str, table: str) -> str:
    pattern = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n{match[2]}", text, flags=re.DOTALL)


def _settings_tables() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            yield from (f"### {SECTIONS[name]}", "", "| variable | default | allowed | |", "|---|---|---|---|")
        allowed = _cell(allowed_values(name)) or _plain_kind(name)
        yield f"| `{variable(name)}` | {_default(field.default)} | {allowed} | {_cell(field.description or '')} |"
        if _is_last_of_section(name):
            yield ""


def _is_last_of_section(name: str) -> bool:
    names = list(Settings.model_fields)
    following = names[names.index(name) + 1 :]
    return not following or following[0] in SECTIONS


def _plain_kind(name: str) -> str:
    return "a path" if "Path" in str(Settings.model_fields[name].annotation) else "text"


def _default(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return f"`{','.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _topics_table() -> Iterator[str]:
    specs = topic_specs(Settings())
    names = list(dict.fromkeys(name for spec in specs for name in spec.configs))
    yield f"| | {' | '.join(f'`{spec.name}`' for spec in specs)} |"
    yield f"|---|{'---|' * len(specs)}"
    for name in names:
        yield f"| `{name}` | {' | '.join(_config(spec, name) for spec in specs)} |"
    yield ""


def _config(spec: TopicSpec, name: str) -> str:
    return spec.configs.get(name, "")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
