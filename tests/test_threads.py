"""Work in a thread: its own errors, and a thread that there is not."""

from __future__ import annotations

import errno
import threading

import pytest
import trio
import trio.testing

from hyptracefs.threads import in_thread
from tests.support import raises_errno


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [RuntimeError("its own"), OSError(errno.EIO, "its own")])
async def test_what_the_work_raises_is_raised_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match="its own") as raised:
        await in_thread(_fail, error)
    assert raised.value is error


async def test_no_thread_to_be_had_is_enomem_and_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("trio._threads.start_thread_soon", refuse)
    done: list[int] = []
    with raises_errno(errno.ENOMEM):
        await in_thread(done.append, 1)
    assert not done


async def test_it_is_done_to_its_end_whoever_cancels() -> None:
    go_on = threading.Event()
    done: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, lambda: done.append(go_on.wait(10)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        go_on.set()
    assert done == [True]
