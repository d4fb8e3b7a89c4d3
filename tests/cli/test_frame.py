import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from processor.cli import app
from processor.cli.frame import chosen_tenant, command
from processor.errors import BrokerUnreachable, SettingsError
from processor.settings import Settings
from tests.world import World


def commands() -> Iterator[tuple[str, str]]:
    """Name and help of every command, subcommands included."""
    group = typer.main.get_command(app)
    for name, one in group.commands.items():  # type: ignore[attr-defined]
        for sub, two in getattr(one, "commands", {"": one}).items():
            yield f"{name} {sub}".strip(), f"{two.help}\n{two.epilog or one.epilog}"


def test_every_command_of_the_contract_is_there() -> None:
    assert {name for name, _ in commands()} >= {
        *("config", "demo", "doctor", "migrate status", "migrate up", "read", "send", "stats", "streams"),
        *("tail", "topics check", "topics create", "verify", "worker"),
    }


@pytest.mark.parametrize(("name", "text"), list(commands()))
def test_every_command_has_an_example_and_its_exit_codes(name: str, text: str) -> None:
    assert f"Example: tidemark {name}" in text
    assert "Exit codes: 0 done" in text


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    program = (
        "import sys, processor.cli; "
        "print(sorted({'aiokafka', 'faust', 'sqlalchemy', 'pydantic', 'structlog'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_a_fault_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def fails() -> None:
        raise BrokerUnreachable("No broker answered.")

    with pytest.raises(typer.Exit) as ended:
        fails()
    assert ended.value.exit_code == 3
    assert capsys.readouterr() == ("", "tidemark: No broker answered.\n")


def test_an_interruption_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @command
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        interrupted()
    assert ended.value.exit_code == 130
    assert capsys.readouterr() == ("", "")


def test_nobody_reading_on_is_no_fault(apart: World) -> None:
    process = apart.start("config")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_wrong_settings_are_all_named(apart: World) -> None:
    result = apart.run("stats", TIDEMARK_STORE="nowhere", TIDEMARK_PARTITIONS="0")
    assert result.exit_code == 2
    assert "TIDEMARK_STORE" in result.stderr
    assert "TIDEMARK_PARTITIONS" in result.stderr
    assert "Traceback" not in result.output


def test_an_option_wins_over_the_environment(apart: World) -> None:
    shown = apart.json("config", "--topic-prefix", "mine.", "--brokers", "a:1,b:2", "--partitions", "7")
    assert (shown["topic_prefix"], shown["brokers"], shown["partitions"]) == ("mine.", ["a:1", "b:2"], 7)


def test_a_tenant_must_be_configured() -> None:
    settings = Settings(tenants=["acme", "umbrella"])
    assert chosen_tenant(settings, None) == "acme"
    assert chosen_tenant(settings, "umbrella") == "umbrella"
    with pytest.raises(SettingsError, match="'nobody'"):
        chosen_tenant(settings, "nobody")


def test_an_unknown_option_is_wrong_usage(apart: World) -> None:
    assert apart.run("stats", "--nonsense").exit_code == 2
