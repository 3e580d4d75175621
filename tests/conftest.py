"""Fixtures: remotes of an idle hypervisor with two CPUs."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import settings

from hyptracefs.remote import Remote
from hyptracefs.tree import Tree, views_of
from tests.support import Running, run_jumping, running, running_test_remote

# No test may fail because the machine is busy, nor because of what it happened to try this
# time; HYPOTHESIS_PROFILE=long tries more, and something else each time.
settings.register_profile("hyptracefs", deadline=None, derandomize=True, database=None)
settings.register_profile("long", deadline=None, derandomize=False, max_examples=10_000)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "hyptracefs")
settings.load_profile(_PROFILE)

# A test that hangs is ended after this long.
_HANGS_S = 3600 if _PROFILE == "long" else 120


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "jumping_clock: an async test that waits for no sleep")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("jumping_clock"):
            # Before the mark of pytest-trio's mode, which names trio.run.
            item.add_marker(pytest.mark.trio(run=run_jumping), append=False)


def _hangs(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise TimeoutError(f"the test has not ended after {_HANGS_S} s")


@pytest.fixture(autouse=True)
def _ended_if_it_hangs() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(_HANGS_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
async def idle() -> AsyncIterator[Running]:
    async with running("idle") as made:
        yield made


@pytest.fixture
def remote(idle: Running) -> Remote:
    return idle.remote


@pytest.fixture
async def test_remote() -> AsyncIterator[Remote]:
    async with running_test_remote() as made:
        yield made.remote


@pytest.fixture
def tree(remote: Remote, test_remote: Remote) -> Tree:
    return Tree(views_of(remote, test_remote))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that anybody may look into; those of pytest are its user's."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
