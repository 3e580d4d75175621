"""What docs/ says that shows something is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("promises.md", "ends.md")


def named(pattern: str) -> list[str]:
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
    return sorted(set(re.findall(pattern, text)))


@pytest.mark.parametrize("name", named(r"`(tests/\w+\.py(?:::\w+)?)`"))
def test_a_test_of_python_that_shows_something_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8") if function else True
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("name", named(r"`(test_\w+)`"))
def test_a_test_of_c_that_shows_something_is_there(name: str) -> None:
    assert list(ROOT.glob(f"*/tests/{name}.c"))


@pytest.mark.parametrize("name", named(r"`((?:scripts|ringbuf_c/model)/[\w-]+)"))
def test_a_program_that_shows_something_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
