"""Which of these tests run when."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for by its marker."""
    for item in items:
        if item.get_closest_marker("image") and "image" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="builds an image, for minutes: make image-test"))
