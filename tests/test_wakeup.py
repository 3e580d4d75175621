"""How a remote learns of events: when it looks, and what a doorbell spares it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

import pytest
import trio
import trio.testing

from hyptracefs.events import compile_events
from hyptracefs.hypercalls import HOST_CPU, Traits
from hyptracefs.remote import Reader, Remote, Settings
from hyptracefs.ring_buffer import ALL_CPUS, DoorbellOp, EventSource, Hvc, hvc_call
from hyptracefs.wakeup import LONGEST_S, SHORTEST_S, Alarm, Wakeup, interval_s
from tests.support import (
    Calls,
    hypervisor,
    parse_lines,
    raises_errno,
    running_test_remote,
    selftests,
    start_with,
    texts,
    write_ids,
)

pytestmark = pytest.mark.jumping_clock

# What does not come in this time never comes.
NEVER_S = 60


class BellCalls(Calls):
    """Hypercalls of a hypervisor with a doorbell, and what it would ring."""

    def __init__(self, conduit: int, cpus: int) -> None:
        super().__init__(conduit, cpus, Traits(doorbell=True))
        self.hung: list[socket.socket] = []
        self.why_gone = ""
        self.gone = lambda: self.why_gone

    def hang_doorbell(self, socket: int) -> None:
        self._note("hang")
        super().hang_doorbell(socket)
        self.hung.append(_socket_of(os.dup(socket)))

    def arm_doorbell(self, cpu: int) -> None:
        self._note(f"arm({cpu})")
        super().arm_doorbell(cpu)

    def let_go(self) -> None:
        """What a hypervisor does that ends, or that does not want to ring any more."""
        assert hvc_call(self.conduit, HOST_CPU, Hvc.TRACING_DOORBELL, [DoorbellOp.REMOVE]) == 0
        self.hung.pop().close()

    @property
    def doorbell_log(self) -> list[str]:
        return [call for call in self.log if call.startswith(("hang", "arm"))]


def _socket_of(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


class Belled(NamedTuple):
    """A remote that traces `selftest`, and its clock, which stands still."""

    remote: Remote
    calls: BellCalls
    clock: trio.testing.MockClock

    async def jump(self, seconds: float) -> None:
        """Let so much time pass, and all happen that then does."""
        self.clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def settle(self) -> None:
        """Until whoever waits has been waiting for longer than till the first look."""
        await trio.testing.wait_all_tasks_blocked()
        await self.jump(SHORTEST_S * 1.01)


class _Attended(EventSource):
    """The test plays the pump."""

    @property
    def attended(self) -> bool:
        return True

    def tell(self, *, has_bell: bool = True) -> None:
        """Whoever wanted to be told, as the pump does; without a bell if that was let go of."""
        if not has_bell:
            self.c.events.bell_fd = -1
        os.eventfd_write(self.told_fd, 1)


@asynccontextmanager
async def belled(settings: Settings | None = None, *, pump: bool = False) -> AsyncIterator[Belled]:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    with hypervisor() as of:
        calls = BellCalls(of.conduit, of.cpus)
        events = compile_events(of.events, of.symbol_tables, of.format_tables)
        remote = Remote("hypervisor", calls, events, settings)
        if pump:
            remote.source = _Attended(remote._slot)
        async with trio.open_nursery() as nursery:
            await nursery.start(remote.run)
            await start_with(remote, "selftest")
            clock.autojump_threshold = float("inf")
            yield Belled(remote, calls, clock)
            nursery.cancel_scope.cancel()
        for each in calls.hung:
            each.close()


async def _read(reader: Reader, into: list[str]) -> None:
    while not (text := bytes(reader.try_read_text(1 << 16))):
        await reader.wait()
    into.extend(texts(parse_lines(text.decode())))


# --- when to look ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waited_s", "fixed_ms", "interval"),
    [
        (0.0, None, SHORTEST_S),
        (SHORTEST_S, None, SHORTEST_S),
        (0.64, None, 0.01),
        (6.4, None, LONGEST_S),
        (1e9, None, LONGEST_S),
        (0.0, 10, 0.01),
        (1e9, 10, 0.01),
    ],
)
async def test_next_look_comes_after_a_part_of_what_has_been_waited_for(
    waited_s: float, fixed_ms: int | None, interval: float
) -> None:
    assert interval_s(waited_s, fixed_ms) == pytest.approx(interval)


@pytest.mark.parametrize("gap_s", [0.001, 0.01, 0.1, 1.0, 10.0])
async def test_an_event_is_seen_late_by_a_64th_of_the_time_before_it(gap_s: float) -> None:
    async with running_test_remote() as made:
        await start_with(made.remote, "selftest")
        reader = await made.remote.open_reader()
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, reader, read)
            await trio.sleep(gap_s)
            write_ids(made.remote, [1])
            written_at = trio.current_time()
        late_s = trio.current_time() - written_at
        assert late_s <= max(gap_s / 64, SHORTEST_S) * 1.01
    assert read == selftests([1])


async def test_who_waits_long_is_looked_for_seldom() -> None:
    async with running_test_remote() as made:
        reader = await made.remote.open_reader()
        with trio.move_on_after(NEVER_S):
            await reader.wait()
        slow_looks = NEVER_S / LONGEST_S
        assert slow_looks * 0.9 < made.remote.statistics().looks < slow_looks + 600
        with trio.move_on_after(NEVER_S):  # who comes anew waits anew
            await reader.wait()
        assert made.remote.statistics().looks < 2 * (slow_looks + 600)
        looks = made.remote.statistics().looks
        await trio.sleep(NEVER_S)
        assert made.remote.statistics().looks <= looks + 1  # nobody waits


async def test_an_alarm_sleeps_no_less_than_it_should() -> None:
    alarm = Alarm()
    for seconds in (0.0, 0.0002, 0.005, 0.0001):
        began = time.monotonic()
        await alarm.sleep(seconds)
        assert time.monotonic() - began >= seconds
    with trio.CancelScope() as scope:
        scope.cancel()
        await alarm.sleep(NEVER_S)
    began = time.monotonic()
    await alarm.sleep(0.001)  # not until the one before has ended
    assert time.monotonic() - began < NEVER_S


async def test_an_alarm_that_cannot_be_set_says_why() -> None:
    alarm = Alarm()
    os.close(alarm._fd)
    alarm._fd = -1
    with raises_errno(errno.EBADF):
        await alarm.sleep(1)


# --- the doorbell ---------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", [ALL_CPUS, 1])
async def test_a_ring_wakes_while_the_clock_stands_still(cpu: int) -> None:
    async with belled() as made:
        reader = await made.remote.open_reader(cpu)
        for number in range(3):
            read: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, reader, read)
                await made.settle()
                assert made.remote.statistics().armed == number + 1
                write_ids(made.remote, [number], cpu=1)
            assert read == selftests([number])
        assert made.calls.doorbell_log == ["hang", *[f"arm({cpu})"] * 3]


async def test_a_watcher_is_told_while_the_clock_stands_still() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        told = trio.Event()
        reader.watch(told.set)
        await made.settle()
        write_ids(made.remote, [1])
        await told.wait()


async def test_what_came_before_it_was_armed_is_seen_by_looking() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, reader, read)
            await trio.testing.wait_all_tasks_blocked()
            write_ids(made.remote, [1])
            await made.settle()
        assert read == selftests([1])
        assert made.remote.statistics().armed == 0


async def test_what_comes_between_the_look_and_arming_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with belled() as made:
        arm = made.calls.arm_doorbell

        def arm_late(cpu: int) -> None:
            write_ids(made.remote, [1])
            arm(cpu)

        monkeypatch.setattr(made.calls, "arm_doorbell", arm_late)
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, await made.remote.open_reader(), read)
            await made.settle()
        assert read == selftests([1])


async def test_other_cpus_events_do_not_ring() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader(1)
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, reader, read)
            await made.settle()
            looks = made.remote.statistics().looks
            write_ids(made.remote, range(100), cpu=0)
            await trio.testing.wait_all_tasks_blocked()
            assert made.remote.statistics().looks == looks
            write_ids(made.remote, [7], cpu=1)
        assert read == selftests([7])


async def test_who_waits_for_another_cpu_has_it_armed_anew() -> None:
    async with belled() as made:
        read: tuple[list[str], list[str]] = ([], [])
        async with trio.open_nursery() as nursery:
            for cpu in range(2):
                nursery.start_soon(_read, await made.remote.open_reader(cpu), read[cpu])
                await made.settle()
            assert made.calls.doorbell_log == ["hang", "arm(0)", f"arm({ALL_CPUS})"]
            write_ids(made.remote, [1], cpu=1)
            await trio.testing.wait_all_tasks_blocked()
            assert read == ([], selftests([1]))
            await made.settle()
            write_ids(made.remote, [2], cpu=0)
        assert read[0] == selftests([2])


async def test_a_hypervisor_that_rings_for_ever_is_not_listened_to_for_ever() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await made.settle()
            [bell] = made.calls.hung
            bell.setblocking(False)
            for _ in range(200):
                bell.send(b"!")
                await trio.testing.wait_all_tasks_blocked()
            assert made.remote.statistics().armed == 1  # no time has passed
            for _ in range(100):
                await made.jump(0.01)
            # A look before it is armed again, which takes a 64th of the time since.
            assert made.remote.statistics().armed < 100
            assert made.remote.statistics().waiting == 1
            nursery.cancel_scope.cancel()


async def test_without_a_ring_it_looks_all_the_same_but_seldom() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await made.settle()
            for _ in range(10):
                await made.jump(LONGEST_S * 1.01)
            assert made.calls.doorbell_log == ["hang", f"arm({ALL_CPUS})"]
            assert 10 <= made.remote.statistics().looks <= 15
            nursery.cancel_scope.cancel()


# --- without it -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Settings(wakeup=Wakeup.POLL), Settings(poll_ms=10)])
async def test_it_is_not_hung_if_polling_is_asked_for(settings: Settings) -> None:
    async with belled(settings) as made:
        reader = await made.remote.open_reader()
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, reader, read)
            await made.jump(1)
            write_ids(made.remote, [1])
            await made.jump(1)
        assert (read, made.calls.doorbell_log) == (selftests([1]), [])


async def _reads_by_polling(made: Belled) -> None:
    read: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, await made.remote.open_reader(), read)
        await made.settle()
        write_ids(made.remote, [1])
        await made.jump(LONGEST_S)
    assert read == selftests([1])


async def test_refused_it_is_asked_for_once(caplog: pytest.LogCaptureFixture) -> None:
    async with belled() as made:
        made.calls.refused.add("hang")
        for _ in range(3):
            await _reads_by_polling(made)
        assert made.calls.doorbell_log == ["hang"]
    assert caplog.messages == ["hypervisor: no doorbell, polling instead: hang refused"]


async def test_a_hypervisor_that_is_gone_is_not_said_to_have_no_doorbell(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with belled() as made:

        def gone(socket: int) -> None:  # noqa: ARG001
            made.calls.why_gone = "it has been killed"
            raise OSError(errno.ENODEV, "it has been killed")

        made.calls.hang_doorbell = gone  # type: ignore[method-assign]
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await made.settle()
            nursery.cancel_scope.cancel()
    [message] = caplog.messages
    assert "the hypervisor is gone: it has been killed" in message


async def test_let_go_of_it_is_not_hung_again(caplog: pytest.LogCaptureFixture) -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await made.settle()
            made.calls.let_go()
            await made.settle()
            nursery.cancel_scope.cancel()
        await _reads_by_polling(made)
        assert made.calls.doorbell_log == ["hang", f"arm({ALL_CPUS})"]
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "polling instead" in record.getMessage()


async def test_what_the_pump_says_wakes_who_waits_in_python() -> None:
    async with belled(pump=True) as made:
        source = cast("_Attended", made.remote.source)
        assert (source.has_bell, made.calls.doorbell_log) == (True, ["hang"])
        read: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, await made.remote.open_reader(1), read)
            await trio.testing.wait_all_tasks_blocked()
            assert (source.c.events.wanted, source.c.events.wanted_cpu) == (True, 1)
            write_ids(made.remote, [1], cpu=1)
            source.tell()
        assert read == selftests([1])


async def test_a_doorbell_that_the_pump_finds_let_go_of_is_not_hung_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with belled(pump=True) as made:
        source = cast("_Attended", made.remote.source)
        for _ in range(2):
            source.tell(has_bell=False)
            await trio.testing.wait_all_tasks_blocked()
        await made.remote.stop_tracing()
        made.clock.autojump_threshold = 0
        await made.remote.start_tracing()
        assert (source.has_bell, made.calls.doorbell_log) == (False, ["hang"])
        assert made.remote.tracing_on
    assert caplog.messages == ["hypervisor: no doorbell, polling instead: it has been let go of"]


async def test_a_hypervisor_that_ends_while_it_is_armed_is_noticed_at_once() -> None:
    async with belled() as made:
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await made.settle()
            made.calls.why_gone = "it has been killed"
            made.calls.let_go()
            await trio.testing.wait_all_tasks_blocked()
            assert not made.remote.tracing_on
            assert made.remote.statistics().waiting == 1
            nursery.cancel_scope.cancel()
