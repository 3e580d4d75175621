"""How a recording ends, and who waits for it; no mount."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from hyptrace import apart as apart_module
from hyptrace.apart import Apart, HangsError, Inside, Pulse, answer
from hyptrace.recorder import Recorder, ending_of
from hyptrace.tracing import Tracing
from tests.mounts import PATIENCE_S, until

# --- what ends it -----------------------------------------------------------------------------


def test_a_signal_while_the_command_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has just been found to have ended: nobody may wait for it again."""
    real = os.waitpid

    def interrupted(pid: int, options: int) -> tuple[int, int]:
        found = real(pid, options)
        if found[0]:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(os, "waitpid", interrupted)
    with ending_of(["true"]) as ending:
        ending.go()
        until(lambda: ending.due, "the command to end")
        ending.look()
        assert ending.status() == 0


def test_a_signal_that_nobody_looks_at_yet_is_passed_on() -> None:
    with ending_of(["sleep", "1000"]) as ending:
        ending.go()
        signal.raise_signal(signal.SIGTERM)
        assert not ending.due
        assert ending.status() == 128 + signal.SIGTERM


def test_a_command_that_a_signal_ends_before_it_may_run() -> None:
    with ending_of(["sleep", "1000"]) as ending:
        signal.raise_signal(signal.SIGHUP)
        ending.look()
        until(lambda: ending.due, "the command to end")
        ending.go()
        assert ending.status() == 128 + signal.SIGHUP


# --- what is read -------------------------------------------------------------------------------


class _Endless(Tracing):
    """Pipes that always have more: as if somebody had switched tracing on again."""

    @property
    def size_kb(self) -> int:
        return 7

    def raw_pipe(self, cpu: int) -> Path:  # noqa: ARG002
        return Path("/dev/zero")


class _Nowhere:
    def write(self, cpu: int, pages: memoryview) -> None:
        """Forget them."""

    def pack(self, cpu: int, pages: memoryview) -> int:  # noqa: ARG002
        """Likewise."""
        return len(pages)


def endless_recorder() -> Recorder:
    writer: Any = _Nowhere()
    return Recorder(_Endless(Path("/nowhere")), [0, 1], writer, Pulse())


def test_the_end_does_not_wait_for_a_writer_that_goes_on() -> None:
    made = endless_recorder()
    made.drain()
    assert made.bytes >= 2 * 7 * 1024
    made.close()


def test_it_stops_while_there_is_more() -> None:
    made = endless_recorder()
    stop, stopped = os.pipe()
    os.close(stopped)
    made.run(stop, lambda: None)
    assert made.bytes
    made.close()
    os.close(stop)


def test_nothing_is_written_where_a_mount_was(tmp_path: Path) -> None:
    tracing = Tracing(tmp_path)
    with pytest.raises(FileNotFoundError):
        tracing.trace(on=False)
    with pytest.raises(FileNotFoundError):
        tracing.forget()
    assert list(tmp_path.iterdir()) == []


# --- in a process of its own -------------------------------------------------------------------


def refuse(_: Pulse) -> None:
    raise click.UsageError("not like this")


def test_what_it_returns_or_raises_arrives() -> None:
    assert answer(lambda _: {"a": 1}) == {"a": 1}
    with pytest.raises(click.UsageError, match="not like this"):
        answer(refuse)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        answer(lambda _: Path("/nowhere").stat())


def test_of_an_error_that_cannot_be_sent_its_text_is() -> None:
    class LocalError(Exception):
        pass

    def fail(_: Pulse) -> None:
        raise LocalError("why")

    with pytest.raises(RuntimeError, match="why"):
        answer(fail)


def hang(pulse: Pulse) -> None:
    signal.alarm(60)  # if nobody gives it up
    waits, _nobody_writes = os.pipe()
    with pulse:
        os.read(waits, 1)


def test_who_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "PATIENCE_S", 0.1)
    with pytest.raises(HangsError, match="does not answer"):
        answer(hang)


def slow(pulse: Pulse) -> str:
    for _ in range(30):
        with pulse:
            time.sleep(0.01)
    return "there"


def test_who_is_slow_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls, and all together longer than one may take."""
    monkeypatch.setattr(apart_module, "_LOOK_S", 0.01)
    monkeypatch.setattr(apart_module, "PATIENCE_S", PATIENCE_S)
    assert answer(slow) == "there"


def wait_outside(inside: Inside) -> None:
    inside.say("outside")
    os.read(inside.stop, 1)


def test_who_waits_outside_of_the_mount_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "PATIENCE_S", 0)
    made = Apart(wait_outside)
    assert made.hear() == ("outside", None)
    made.check()
    made.stop()
    assert made.hear() == ("returned", None)
    made.end()


def die(_: Inside) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_who_is_killed_says_nothing() -> None:
    made = Apart(die)
    with pytest.raises(EOFError):
        made.hear()
    made.end()


def survive(_: Inside) -> str:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.raise_signal(number)
    return "here"


def test_signals_are_for_who_waits() -> None:
    made = Apart(survive)
    assert made.hear() == ("returned", "here")
    made.end()


def test_it_keeps_nobody_waiting_for_what_is_said() -> None:
    """One that hangs must not hold the end of a pipeline."""
    made = Apart(lambda _: [str(Path(f"/proc/self/fd/{file}").readlink()) for file in range(3)])
    assert made.hear() == ("returned", [os.devnull] * 3)
    made.end()


def test_it_is_told_when_nobody_waits_any_more() -> None:
    told, tell = os.pipe()

    def wait(inside: Inside) -> None:
        poll = select.poll()
        poll.register(inside.stop, select.POLLIN)
        poll.poll()
        os.write(tell, b"!")

    if os.fork() == 0:
        with suppress(BaseException):
            Apart(wait)
        os._exit(0)
    assert os.read(told, 1) == b"!"
    os.wait()
    os.close(told)
    os.close(tell)
