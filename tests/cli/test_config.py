from tests.world import World


def test_secrets_are_hidden(apart: World) -> None:
    store = "postgresql://tidemark:hunter2@localhost/tidemark"
    assert "hunter2" not in apart.run("config", "--store", store).output
    assert apart.json("config", "--store", store)["store"] == "postgresql://tidemark:***@localhost/tidemark"


def test_the_settings_for_a_person(apart: World, topic_prefix: str) -> None:
    lines = [line.split() for line in apart.run("config").stdout.splitlines()]
    assert ["TIDEMARK_TOPIC_PREFIX", topic_prefix] in lines
    assert ["TIDEMARK_KAFKA_SSL_CHECK_HOSTNAME", "true"] in lines
