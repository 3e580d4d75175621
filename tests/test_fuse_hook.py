"""What is asked of the hook into libfuse, with no mount; and what is said where it is not hit."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from hyptracefs import fuse_hook
from hyptracefs.fuse_hook import FuseHook, pumping

pytestmark = pytest.mark.jumping_clock


@contextmanager
def _interrupted_request(caller: int) -> Iterator[None]:
    """One that the kernel has taken back before its handler is called."""
    request = fuse_hook._hook.lib.fuse_hook_request
    request.interrupted, request.caller = True, caller
    try:
        yield
    finally:
        request.interrupted, request.caller = False, 0


async def test_a_request_that_is_taken_back_at_once_does_not_wait() -> None:
    with _interrupted_request(os.getpid()), FuseHook.interruptible() as scope:
        await trio.sleep(1000)
    assert scope.cancelled_caught
    assert trio.current_time() < 1000
    assert not fuse_hook._interrupted


async def test_a_request_whose_caller_lives_on_waits_all_the_same() -> None:
    with _interrupted_request(os.getpid()), FuseHook.killable() as scope:
        await trio.sleep(1)
    assert not scope.cancelled_caught


async def test_requests_without_an_interrupt_wait() -> None:
    with FuseHook.interruptible() as scope:
        await trio.sleep(1)
    assert not scope.cancelled_caught


# --- a hook that is hit by half of what it should be --------------------------------


class _Lib:
    """The hook, of which some answers are other ones."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def answer(*_arguments: object) -> object:
            self.asked.append(name)
            return self._answers.get(name)

        return answer


def _hooked(monkeypatch: pytest.MonkeyPatch, **answers: object) -> _Lib:
    lib = _Lib(**answers)
    monkeypatch.setattr(fuse_hook, "_hook", SimpleNamespace(lib=lib))
    return lib


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("requests", [True, False])
async def test_what_the_hook_does_not_see_is_said_with_what_that_means(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, opens: bool, requests: bool
) -> None:
    _hooked(
        monkeypatch,
        fuse_hook_was_hit=True,
        fuse_hook_sets_streams=opens,
        fuse_hook_has_pump=requests,
    )
    FuseHook.check()
    no_opens = "the hook into libfuse sees no open files: of two processes that share"
    no_requests = "the hook into libfuse sees no requests: reading is slower than it could be"
    expected = [no_opens] * (not opens) + [no_requests] * (not requests)
    assert len(caplog.records) == len(expected)
    for record, text in zip(caplog.records, expected, strict=True):
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith(text)


async def test_without_a_pump_the_loop_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = _hooked(monkeypatch, fuse_hook_has_pump=False)
    with pumping([1, 2]):
        await trio.sleep(1)
    assert lib.asked == ["fuse_hook_has_pump"]


async def test_a_pump_that_gets_no_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = _hooked(monkeypatch, fuse_hook_has_pump=True, fuse_hook_start=-errno.EAGAIN)
    with (
        pytest.raises(OSError, match="no thread for requests: Resource temporarily unavailable"),
        pumping([1, 2]),
    ):
        pytest.fail("it has begun")
    assert lib.asked[1:] == ["fuse_hook_add", "fuse_hook_add", "fuse_hook_start"]
