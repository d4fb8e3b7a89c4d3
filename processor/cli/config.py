"""`tidemark config`."""

from processor.cli.frame import (
    BrokersOption,
    ConfigOption,
    Form,
    OutputOption,
    PartitionsOption,
    PrefixOption,
    StoreOption,
    command,
    load,
    page,
    show_json,
    table,
)


@command
def config(
    brokers: BrokersOption = None,
    store: StoreOption = None,
    topic_prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    output: OutputOption = Form.TEXT,
) -> None:
    """Print the settings in force, secrets hidden: options over the environment over files over defaults.

    Exit code 2, and every mistake named, where some are wrong.

    Example: tidemark config --output json | jq .store
    """
    settings = load(brokers, store, topic_prefix, partitions, config)
    from processor.settings import effective, variable  # noqa: PLC0415

    values = effective(settings)
    if output is Form.JSON:
        show_json(values)
    else:
        table(page(), [{"setting": variable(name), "value": _told(value)} for name, value in values.items()])


def _told(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
