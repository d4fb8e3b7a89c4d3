from processor.stores.migrate import head
from tests.world import World


def test_a_store_is_made_and_then_is_there(apart: World) -> None:
    before = apart.run("migrate", "status", "--output", "json")
    assert before.exit_code == 1
    assert '"schema":null' in before.stdout
    assert apart.json("migrate", "up") == {"before": None, "after": head(), "partitions": 4}
    assert apart.json("migrate", "status") == {"ok": True, "schema": head(), "needed": head()}
    assert "nothing to do" in apart.run("migrate", "up").stdout


def test_what_to_do_is_said(apart: World) -> None:
    assert "run `tidemark migrate up`" in apart.run("migrate", "status").stdout


def test_a_store_in_memory_has_no_schema(apart: World) -> None:
    for name in ("up", "status"):
        assert apart.run("migrate", name, "--store", "memory:").exit_code == 2
