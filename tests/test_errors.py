"""The tree of errors is all there is, and each says what it was given."""

import inspect
import re

import pytest

from processor import errors
from processor.messages import Command

CLASSES = [it for it in vars(errors).values() if inspect.isclass(it) and it.__module__ == errors.__name__]
ERRORS = {it.__name__: it for it in CLASSES if issubclass(it, errors.TidemarkError)}


def test_all_is_what_is_defined_and_all_have_one_root() -> None:
    assert errors.__all__ == sorted(it.__name__ for it in CLASSES)
    assert len(ERRORS) == len(CLASSES)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    parents: dict[str, str] = {}
    codes: dict[str, int] = {}
    above = {0: "TidemarkError"}
    for lead, name, rest in re.findall(r"^([│ ]*[├└]── )(\w+)(.*)$", inspect.getdoc(errors) or "", re.MULTILINE):
        depth = len(lead) // 4
        above[depth] = name
        parents[name] = above[depth - 1]
        code = re.search(r"exit code (\d+)", rest)
        codes[name] = int(code[1]) if code else ERRORS[parents[name]].exit_code
    below_root = {name: it for name, it in ERRORS.items() if name != "TidemarkError"}
    assert parents == {name: it.__mro__[1].__name__ for name, it in below_root.items()}
    assert codes == {name: it.exit_code for name, it in below_root.items()}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_has_the_root_says_what_it_was_given_and_ends_with_a_known_code(name: str) -> None:
    more = [Command("order-42", [])] if name == "OutcomeUnknown" else []
    error = ERRORS[name]("the broker at localhost:9092 does not answer", *more)
    assert str(error) == "the broker at localhost:9092 does not answer"
    assert error.exit_code in {1, 2, 3}


def test_all_unreachable_errors_end_with_the_same_code() -> None:
    assert {it.exit_code for it in ERRORS.values() if issubclass(it, errors.Unreachable)} == {3}
