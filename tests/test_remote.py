"""A remote's life cycle, and its readers, with a real hypervisor that stands still."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from hyptracefs import remote as remote_module
from hyptracefs.clock import Conversion, Snapshot
from hyptracefs.remote import MAX_SIZE_KB, Reader, Remote
from hyptracefs.ring_buffer import ALL_CPUS, PAGE_SIZE, Memory, Pipe
from tests.support import (
    Calls,
    LostLine,
    Running,
    all_text,
    assert_conserved,
    event_named,
    hypervisor,
    make_remote,
    parse_lines,
    raises_errno,
    running,
    selftests,
    start_with,
    texts,
    write_ids,
)

pytestmark = pytest.mark.jumping_clock

TOO_MANY_PAGES_KB = 2**53
TOO_MUCH_MEMORY_KB = 2**32

_TENTH_NS = 100_000_000


# --- load and unload ------------------------------------------------------------------------


async def test_remote_begins_unloaded_with_the_default_size(remote: Remote) -> None:
    assert (remote.loaded, remote.tracing_on, remote.size_kb) == (False, False, 7)
    assert remote.statistics().cpus == ()


async def test_reader_loads_and_the_last_close_unloads(remote: Remote) -> None:
    first, second = await remote.open_reader(), await remote.open_reader(0)
    assert (remote.loaded, remote.statistics().readers) == (True, 2)
    first.close()
    assert remote.loaded
    second.close()
    assert (remote.loaded, remote.statistics().readers) == (False, 0)


async def test_tracing_loads_and_stopping_with_nothing_recorded_unloads(remote: Remote) -> None:
    await remote.start_tracing()
    assert (remote.loaded, remote.tracing_on) == (True, True)
    await remote.stop_tracing()
    assert (remote.loaded, remote.tracing_on) == (False, False)


async def test_reader_keeps_the_buffer_loaded_when_tracing_stops(remote: Remote) -> None:
    await remote.start_tracing()
    reader = await remote.open_reader()
    await remote.stop_tracing()
    assert remote.loaded
    reader.close()
    assert not remote.loaded


async def test_tracing_keeps_the_buffer_loaded_when_readers_close(remote: Remote) -> None:
    await remote.start_tracing()
    (await remote.open_reader()).close()
    assert remote.loaded


async def test_unread_events_keep_the_buffer_loaded_until_read_and_closed(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, range(3))
    await remote.stop_tracing()
    assert remote.loaded

    (await remote.open_reader()).close()  # closed, and not read
    assert remote.loaded
    reader = await remote.open_reader()
    assert texts(parse_lines(all_text(reader))) == selftests(range(3))
    assert remote.loaded  # read, and not closed
    reader.close()
    assert not remote.loaded


async def test_switching_on_or_off_twice_asks_the_hypervisor_once(idle: Running) -> None:
    for _ in range(2):
        await idle.remote.start_tracing()
    for _ in range(2):
        await idle.remote.stop_tracing()
    assert idle.calls.log == ["load", "enable(1)", "enable(0)", "unload"]


async def test_two_concurrent_starts_load_and_enable_once(idle: Running) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.remote.start_tracing)
        nursery.start_soon(idle.remote.start_tracing)
    assert idle.calls.log == ["load", "enable(1)"]
    assert idle.remote.tracing_on


async def test_stop_during_a_start_is_carried_out_after_it(idle: Running) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.remote.start_tracing)
        while not idle.remote.loaded:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(idle.remote.stop_tracing)
    assert idle.calls.log == ["load", "enable(1)", "enable(0)", "unload"]


async def test_last_reader_that_closes_while_a_start_calibrates_unloads_nothing(
    idle: Running,
) -> None:
    reader = await idle.remote.open_reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.remote.start_tracing)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert not idle.remote.tracing_on
        reader.close()
    assert idle.calls.log == ["load", "enable(1)"]
    assert (idle.remote.loaded, idle.remote.tracing_on) == (True, True)


async def test_start_that_is_cancelled_while_it_calibrates_unloads(idle: Running) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.remote.start_tracing)
        while not idle.remote.loaded:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert idle.calls.log == ["load", "unload"]
    assert (idle.remote.loaded, idle.remote.tracing_on) == (False, False)


@pytest.mark.parametrize("refused", ["load", "enable(1)"])
async def test_start_that_the_hypervisor_refuses_leaves_nothing_behind(
    idle: Running, refused: str
) -> None:
    idle.calls.refused.add(refused)
    with raises_errno(errno.EIO):
        await idle.remote.start_tracing()
    assert (idle.remote.loaded, idle.remote.tracing_on) == (False, False)

    idle.calls.refused.clear()
    await start_with(idle.remote, "selftest")
    write_ids(idle.remote, [1])
    assert idle.remote.statistics().cpus[0].unread == 1


async def test_stop_that_the_hypervisor_refuses_leaves_tracing_on(idle: Running) -> None:
    await idle.remote.start_tracing()
    idle.calls.refused.add("enable(0)")
    with raises_errno(errno.EIO):
        await idle.remote.stop_tracing()
    assert (idle.remote.loaded, idle.remote.tracing_on) == (True, True)


async def test_refused_load_leaves_no_reader(idle: Running) -> None:
    idle.calls.refused.add("load")
    with raises_errno(errno.EIO):
        await idle.remote.open_reader()
    assert (idle.remote.loaded, idle.remote.statistics().readers) == (False, 0)


async def test_cancelled_run_stops_and_unloads() -> None:
    async with running() as made:
        await start_with(made.remote, "selftest")
        await made.remote.open_reader()
        write_ids(made.remote, [1])
        made.scope.cancel()
    assert made.calls.log[-1] == "unload"
    assert (made.remote.loaded, made.remote.tracing_on) == (False, False)


def _buffers() -> int:
    """How many files of buffers this process has open."""
    return sum(map(_is_buffer, Path("/proc/self/fd").iterdir()))


def _is_buffer(fd: Path) -> bool:
    try:
        return str(fd.readlink()).startswith("/memfd:hyptracefs")
    except FileNotFoundError:  # a thread has closed it meanwhile
        return False


@pytest.mark.parametrize("at_once", [False, True])
async def test_unloaded_buffer_is_given_back(at_once: bool) -> None:
    before = _buffers()
    async with running() as made:
        reader = await made.remote.open_reader()
        assert _buffers() > before
        reader.close()
        while not at_once and _buffers() > before:
            await trio.lowlevel.checkpoint()
    assert _buffers() == before


async def _until_it_allocates(
    remote: Remote, go_on: threading.Event, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """Start tracing, up to where the buffer is allocated, in a thread, when it may `go_on`."""
    allocating = threading.Event()

    def allocate(size: int, behind: bytes) -> Memory:
        allocating.set()
        go_on.wait(10)
        return Memory(size, behind)

    monkeypatch.setattr(remote_module, "Memory", allocate)
    nursery.start_soon(remote.start_tracing)
    await trio.to_thread.run_sync(allocating.wait, 10)


async def test_what_is_loaded_while_all_ends_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before, go_on = _buffers(), threading.Event()
    async with running() as made, trio.open_nursery() as nursery:
        await _until_it_allocates(made.remote, go_on, monkeypatch, nursery)
        made.scope.cancel()
        nursery.cancel_scope.cancel()
        await _shut_down(made)
        go_on.set()
    assert made.calls.log == ["load", "unload"]
    assert (made.remote.loaded, _buffers()) == (False, before)


async def _shut_down(made: Running) -> None:
    """Wait, whoever cancels, until its run() has ended."""
    with trio.CancelScope(shield=True):
        while made.remote._nursery is not None:  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_start_that_is_overtaken_by_the_end_fails_and_leaves_nothing() -> None:
    with hypervisor() as of:
        calls = Calls(of.conduit, of.cpus)
        remote = make_remote(of, calls)

        async def start() -> None:
            with raises_errno(errno.EINVAL):  # the hypervisor has no buffer any more
                await remote.start_tracing()

        async with trio.open_nursery() as starter, trio.open_nursery() as life:
            await life.start(remote.run)
            starter.start_soon(start)
            while not remote.loaded:
                await trio.lowlevel.checkpoint()
            life.cancel_scope.cancel()
    assert calls.log == ["load", "unload", "enable(1)"]
    assert (remote.loaded, remote.tracing_on) == (False, False)


async def test_reader_that_outlives_all_is_closed_without_a_buffer() -> None:
    async with running() as made:
        reader = await made.remote.open_reader()
        made.scope.cancel()
        await _shut_down(made)
    assert made.remote.statistics().readers == 1
    reader.close()
    assert made.remote.statistics().readers == 0
    assert made.calls.log == ["load", "unload"]


async def test_a_buffer_that_is_not_loaded_is_enodev(remote: Remote) -> None:
    with pytest.raises(OSError, match="hypervisor: the buffer is not loaded") as raised:
        assert remote.buffer
    assert raised.value.errno == errno.ENODEV


async def test_buffer_that_is_not_taken_back_stays(idle: Running) -> None:
    reader = await idle.remote.open_reader()
    idle.calls.refused.add("unload")
    with pytest.raises(OSError, match="unload refused"):
        reader.close()
    assert (idle.remote.loaded, idle.remote.statistics().readers) == (True, 0)
    idle.calls.refused.clear()
    (await idle.remote.open_reader()).close()
    assert not idle.remote.loaded


# --- a hypervisor that is gone ------------------------------------------------------------------


def _ends(calls: Calls) -> None:
    """From now on it answers nothing."""
    calls.gone = lambda: "it has been killed"
    calls.refused.update(("load", "unload", "enable(0)", "enable(1)"))


async def test_without_another_hypervisor_nothing_is_loaded(
    idle: Running, caplog: pytest.LogCaptureFixture
) -> None:
    _ends(idle.calls)
    for use in (idle.remote.open_reader, idle.remote.start_tracing):
        with raises_errno(errno.ENODEV):
            await use()
    gone, *refused = caplog.messages
    assert gone.startswith("hypervisor: the hypervisor is gone: it has been killed; what it has")
    assert refused == ["hypervisor: there is no other hypervisor"] * 2
    assert not idle.remote.loaded


async def test_a_reader_attaches_to_the_next_one_that_traces_the_same() -> None:
    with hypervisor() as another:
        calls = Calls(another.conduit, another.cpus)
        async with running() as made:
            event = event_named(made.remote, "selftest")
            made.remote.enable_event(event, on=True)
            made.remote._attach = lambda: calls
            _ends(made.calls)
            reader = await made.remote.open_reader()
            assert calls.log == [f"enable_event({event.id})", "load"]
            assert "load" not in made.calls.log
            await made.remote.start_tracing()
            write_ids(made.remote, [4])
            assert texts(parse_lines(all_text(reader))) == ["selftest id=4"]
            reader.close()


async def test_stop_of_one_that_ends_meanwhile_is_a_stop(idle: Running) -> None:
    await idle.remote.start_tracing()

    def end(on: bool) -> None:
        _ends(idle.calls)
        raise OSError(errno.ENODEV, f"enable({on:d}): it is gone")

    idle.calls.enable = end  # type: ignore[method-assign]
    await idle.remote.stop_tracing()
    assert (idle.remote.loaded, idle.remote.tracing_on) == (False, False)


# --- the clock ----------------------------------------------------------------------------------


def _counter(monkeypatch: pytest.MonkeyPatch, *, stands_still_for: int) -> None:
    """One that does not move on during the first snapshots."""
    numbers = count()

    def snapshot(_counter: int) -> Snapshot:
        number = next(numbers)
        boot = (1 + number) * _TENTH_NS
        return Snapshot(boot, max(0, number - stands_still_for) * _TENTH_NS)

    monkeypatch.setattr(remote_module, "clock_snapshot", snapshot)


async def test_a_counter_that_stands_still_is_waited_for_and_then_given_up(
    idle: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    _counter(monkeypatch, stands_still_for=100)
    with pytest.raises(OSError, match="hypervisor: the counter of its clock stands still") as why:
        await idle.remote.start_tracing()
    assert why.value.errno == errno.EIO
    assert (idle.remote.loaded, idle.remote.tracing_on) == (False, False)
    assert "enable(1)" not in idle.calls.log


async def test_a_counter_that_begins_to_count_is_waited_for(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    _counter(monkeypatch, stands_still_for=3)
    before = trio.current_time()
    await remote.start_tracing()
    assert trio.current_time() - before == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "update refused"), "clock: [Errno 5] update refused"),
        (MemoryError(), "clock: out of memory"),
    ],
)
async def test_a_clock_that_cannot_be_corrected_is_said_and_goes_on(
    idle: Running,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: str,
) -> None:
    await idle.remote.start_tracing()
    update, told = idle.calls.update_clock, trio.Event()

    def update_again(to: Conversion) -> None:
        update(to)
        told.set()

    def fail_once(to: Conversion) -> None:  # noqa: ARG001
        monkeypatch.setattr(idle.calls, "update_clock", update_again)
        raise error

    monkeypatch.setattr(idle.calls, "update_clock", fail_once)
    await told.wait()
    assert caplog.messages == [f"hypervisor: {said}"]
    assert idle.remote.tracing_on


async def test_a_clock_of_which_the_hypervisor_is_gone_ends(
    idle: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await idle.remote.start_tracing()
    updates = []

    def end(to: Conversion) -> None:
        updates.append(to)
        _ends(idle.calls)
        raise OSError(errno.ENODEV, "it is gone")

    monkeypatch.setattr(idle.calls, "update_clock", end)
    await trio.sleep(10)
    assert len(updates) == 1
    assert not idle.remote.tracing_on
    assert [message.split(":")[1] for message in caplog.messages] == [" the hypervisor is gone"]


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size_kb", [1, 7, 4096, MAX_SIZE_KB])
async def test_any_size_that_can_be_counted_is_accepted(remote: Remote, size_kb: int) -> None:
    await remote.set_size(size_kb)
    assert remote.size_kb == size_kb


@pytest.mark.parametrize("size_kb", [0, MAX_SIZE_KB + 1, 2**64 - 1])
async def test_size_that_cannot_be_is_einval_and_changes_nothing(
    remote: Remote, size_kb: int
) -> None:
    with raises_errno(errno.EINVAL):
        await remote.set_size(size_kb)
    assert remote.size_kb == 7


@pytest.mark.parametrize(
    ("size_kb", "number"), [(7, errno.EBUSY), (8, errno.EBUSY), (0, errno.EINVAL)]
)
async def test_size_is_fixed_while_loaded(remote: Remote, size_kb: int, number: int) -> None:
    reader = await remote.open_reader()
    with raises_errno(number):
        await remote.set_size(size_kb)
    reader.close()
    await remote.set_size(8)
    assert remote.size_kb == 8


async def test_size_is_fixed_while_loading(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    allocating, go_on = threading.Event(), threading.Event()

    def allocate(size: int, behind: bytes) -> Memory:
        allocating.set()
        go_on.wait(10)
        return Memory(size, behind)

    monkeypatch.setattr(remote_module, "Memory", allocate)

    async def resize() -> None:
        with raises_errno(errno.EBUSY):
            await remote.set_size(64)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remote.start_tracing)
        await trio.to_thread.run_sync(allocating.wait, 10)
        nursery.start_soon(resize)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert remote.size_kb == 7


async def test_buffers_over_the_limit_are_enomem_and_smaller_ones_load() -> None:
    pages = 2 * (1 + 5 + 4)  # of two CPUs, each with a meta page, and with spares
    async with running(max_bytes=pages * PAGE_SIZE) as made:
        remote = made.remote
        await remote.set_size(17)
        with pytest.raises(OSError, match="max_buffer_mb allows") as raised:
            await remote.start_tracing()
        assert raised.value.errno == errno.ENOMEM
        assert (remote.loaded, remote.tracing_on) == (False, False)
        await remote.set_size(15)
        await remote.start_tracing()
        assert remote.loaded


@pytest.mark.parametrize(
    ("size_kb", "number"),
    [(TOO_MANY_PAGES_KB, errno.E2BIG), (2**40, errno.E2BIG), (TOO_MUCH_MEMORY_KB, errno.ENOMEM)],
)
@pytest.mark.parametrize("use", [Remote.start_tracing, Remote.open_reader])
async def test_size_that_cannot_be_loaded_is_an_error_of_its_use(
    remote: Remote, use: Callable[[Remote], Awaitable[object]], size_kb: int, number: int
) -> None:
    await remote.set_size(size_kb)
    with raises_errno(number):
        await use(remote)
    assert (remote.loaded, remote.tracing_on) == (False, False)
    assert remote.statistics().readers == 0

    await start_with(remote, "selftest", size_kb=7)
    write_ids(remote, [1])
    assert remote.statistics().cpus[0].unread == 1


@pytest.mark.parametrize(("size_kb", "kept"), [(7, 2 * 170), (8, 3 * 170), (16, 5 * 170)])
async def test_size_decides_how_many_events_are_kept(
    remote: Remote, size_kb: int, kept: int
) -> None:
    await start_with(remote, "selftest", size_kb=size_kb)
    write_ids(remote, range(kept))
    stats = remote.statistics().cpus[0]
    assert (stats.unread, stats.overrun) == (kept, 0)
    remote.write_event(0, 0)
    stats = remote.statistics().cpus[0]
    assert (stats.unread, stats.overrun) == (kept + 1 - 170, 170)


# --- events ---------------------------------------------------------------------------------


async def test_only_a_changed_event_is_asked_for(idle: Running) -> None:
    event = event_named(idle.remote, "selftest")
    for on in (False, True, True, False, False):
        idle.remote.enable_event(event, on)
        assert idle.remote.event_enabled(event) is on
    assert idle.calls.log == [f"enable_event({event.id})"] * 2


async def test_refused_event_keeps_its_state(idle: Running) -> None:
    event = event_named(idle.remote, "selftest")
    idle.calls.refused.add(f"enable_event({event.id})")
    with raises_errno(errno.EIO):
        idle.remote.enable_event(event, on=True)
    assert not idle.remote.event_enabled(event)


async def test_enabled_events_outlast_unload_and_load(remote: Remote) -> None:
    await start_with(remote, "selftest")
    await remote.stop_tracing()
    assert not remote.loaded
    await remote.start_tracing()
    write_ids(remote, [5])
    reader = await remote.open_reader()
    assert texts(parse_lines(all_text(reader))) == ["selftest id=5"]


@pytest.mark.parametrize(("enabled", "tracing"), [(False, True), (True, False), (False, False)])
async def test_event_that_is_off_or_not_traced_is_not_written(
    remote: Remote, enabled: bool, tracing: bool
) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader()
    remote.enable_event(event_named(remote, "selftest"), enabled)
    if not tracing:
        await remote.stop_tracing()
    write_ids(remote, range(5))
    assert all_text(reader) == ""


async def test_event_written_while_unloaded_is_no_error(remote: Remote) -> None:
    write_ids(remote, [1])
    assert not remote.loaded


@pytest.mark.parametrize("number", [0, 42, 2**63, 2**64 - 1])
async def test_selftest_prints_its_id_unsigned(remote: Remote, number: int) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [number])
    reader = await remote.open_reader()
    assert texts(parse_lines(all_text(reader))) == [f"selftest id={number}"]


async def test_hypercalls_are_traced_as_entries_and_exits(remote: Remote) -> None:
    reader = await remote.open_reader(1)
    await start_with(remote, "hyp_enter", "hyp_exit", "selftest")
    write_ids(remote, [9], cpu=1)
    assert texts(parse_lines(all_text(reader))) == [
        "hyp_enter reason=hvc vcpu=0",
        "selftest id=9",
        "hyp_exit reason=eret_host vcpu=0",
    ]


# --- reading --------------------------------------------------------------------------------


async def test_selftest_ids_read_back_in_order_with_times_that_never_decrease(
    remote: Remote,
) -> None:
    await start_with(remote, "selftest", size_kb=64)
    write_ids(remote, range(2_000))
    reader = await remote.open_reader()
    lines = parse_lines(all_text(reader, 4096))
    assert texts(lines) == selftests(range(2_000))
    times = [line.usec for line in lines if not isinstance(line, LostLine)]
    assert times == sorted(times)


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
async def test_text_is_the_same_in_pieces_of_any_size(remote: Remote, size: int) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, range(20))
    reader = await remote.open_reader()
    assert texts(parse_lines(all_text(reader, size))) == selftests(range(20))


@pytest.mark.parametrize("written", [341, 816, 5_000])
async def test_lost_line_says_how_many_ids_are_missing(remote: Remote, written: int) -> None:
    await start_with(remote, "selftest", size_kb=7)
    write_ids(remote, range(written))
    reader = await remote.open_reader()
    lost, *read = parse_lines(all_text(reader))
    assert isinstance(lost, LostLine)
    assert texts(read) == selftests(range(lost.lost, written))
    assert remote.statistics().cpus[0].overrun == lost.lost
    assert_conserved(remote)


async def test_816_events_in_7_kib_lose_510(remote: Remote) -> None:
    # SPEC H.3
    await start_with(remote, "selftest", size_kb=7)
    write_ids(remote, range(816))
    stats = remote.statistics().cpus[0]
    assert (stats.entries, stats.overrun, stats.unread) == (816, 510, 306)
    assert (stats.pages_lost, stats.pages_touched) == (3, 4)


async def test_reader_of_one_cpu_sees_no_other(remote: Remote) -> None:
    await start_with(remote, "selftest")
    for cpu in range(2):
        write_ids(remote, [cpu, cpu + 10], cpu=cpu)
    for cpu in range(2):
        reader = await remote.open_reader(cpu)
        lines = parse_lines(all_text(reader))
        assert texts(lines) == selftests([cpu, cpu + 10])
        assert {line.cpu for line in lines} == {cpu}


async def test_reader_of_all_cpus_merges_them_by_time(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=64)
    for number in range(1_000):
        write_ids(remote, [number], cpu=number * number % 3 % 2)
    reader = await remote.open_reader()
    lines = parse_lines(all_text(reader))
    assert texts(lines) == selftests(range(1_000))
    assert {line.cpu for line in lines} == {0, 1}


async def test_several_readers_share_the_events_without_doubles(remote: Remote) -> None:
    await start_with(remote, "selftest")
    readers = [await remote.open_reader(cpu) for cpu in (ALL_CPUS, 0, ALL_CPUS, 0)]
    shares = []
    for number in range(40):
        write_ids(remote, [number])
        shares += texts(parse_lines(all_text(readers[number % len(readers)])))
    assert shares == selftests(range(40))
    assert all(all_text(reader) == "" for reader in readers)


async def test_statistics_conserve_events_at_every_step(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=7)
    reader = await remote.open_reader()
    for number in range(2_000):
        write_ids(remote, [number], cpu=number % 3 // 2)
        if number % 300 == 299:
            assert reader.try_read_text(500)
        assert_conserved(remote)
    all_text(reader)
    assert_conserved(remote)
    assert sum(stats.entries for stats in remote.statistics().cpus) == 2_000


async def _read_line(reader: Reader, into: list[str]) -> None:
    while not (text := bytes(reader.try_read_text(1 << 16))):
        await reader.wait()
    into.append(text.decode())


@pytest.mark.parametrize("cpu", [ALL_CPUS, 1])
async def test_blocked_reader_wakes_when_an_event_comes(remote: Remote, cpu: int) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader(cpu)
    read: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_line, reader, read)
        await trio.testing.wait_all_tasks_blocked()
        assert remote.statistics().waiting == 1
        write_ids(remote, [77], cpu=1)
    assert texts(parse_lines(read[0])) == ["selftest id=77"]
    assert remote.statistics().waiting == 0


async def test_stopping_wakes_readers_without_waiting_for_the_next_poll() -> None:
    async with running(poll_ms=10_000) as made:
        await start_with(made.remote, "selftest")
        reader = await made.remote.open_reader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await trio.testing.wait_all_tasks_blocked()
            write_ids(made.remote, [1])
            assert made.remote.statistics().waiting == 1
            await made.remote.stop_tracing()
            assert made.remote.statistics().waiting == 0


async def test_watcher_is_told_once_of_events_of_its_cpu(remote: Remote) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader(1)
    told = trio.Event()
    assert not reader.readable()
    reader.watch(told.set)
    assert remote.statistics().watching == 1
    write_ids(remote, [1], cpu=0)
    write_ids(remote, [2], cpu=1)
    await told.wait()
    assert reader.readable()
    assert remote.statistics().watching == 0


async def test_rest_of_a_line_is_readable(remote: Remote) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader()
    write_ids(remote, [1])
    reader.try_read_text(1)
    assert reader.readable()
    reader.try_read_text(1000)
    assert not reader.readable()


async def _close_with_half_a_line(remote: Remote) -> None:
    reader = await remote.open_reader()
    assert len(reader.try_read_text(10)) == 10
    reader.close()


async def test_who_reads_next_is_told_what_a_closed_reader_was_owed(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1, 2])
    await _close_with_half_a_line(remote)
    stats = remote.statistics().cpus[0]
    assert (stats.read, stats.abandoned, stats.unreported) == (1, 1, 1)
    assert_conserved(remote)
    reader = await remote.open_reader()
    lost, event = parse_lines(all_text(reader))
    assert lost == LostLine(0, 1)
    assert texts([event]) == ["selftest id=2"]
    stats = remote.statistics().cpus[0]
    assert (stats.read, stats.abandoned, stats.unreported) == (2, 1, 0)
    reader.close()


async def test_a_page_of_which_a_part_was_read_is_lost_as_a_whole(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, range(5))
    reader = await remote.open_reader(0)
    assert len(reader.try_read_raw(PAGE_SIZE - 1)) == PAGE_SIZE - 1
    reader.close()
    assert remote.statistics().cpus[0].abandoned == 5


async def test_what_is_owed_of_before_a_reset_is_no_loss(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    reader = await remote.open_reader()
    first = bytes(reader.try_read_text(10))
    remote.reset(1)
    remote.reset(0)
    write_ids(remote, [2])
    reader.close()
    stats = remote.statistics().cpus[0]
    assert (stats.entries, stats.abandoned, stats.unreported) == (1, 0, 0)
    assert first


async def test_reset_of_another_cpu_leaves_what_is_owed(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    reader = await remote.open_reader()
    reader.try_read_text(10)
    remote.reset(1)
    reader.close()
    assert remote.statistics().cpus[0].abandoned == 1


async def test_closed_reader_is_told_nothing(remote: Remote) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader()
    reader.watch(pytest.fail)
    reader.close()
    assert remote.statistics().watching == 0


async def test_event_of_another_cpu_wakes_nobody(remote: Remote) -> None:
    await start_with(remote, "selftest")
    other, everything = await remote.open_reader(0), await remote.open_reader()
    read: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.wait)
        async with trio.open_nursery() as inner:
            inner.start_soon(_read_line, everything, read)
            await trio.testing.wait_all_tasks_blocked()
            assert remote.statistics().waiting == 2
            write_ids(remote, [1], cpu=1)
        assert remote.statistics().waiting == 1
        nursery.cancel_scope.cancel()
    assert texts(parse_lines(read[0])) == ["selftest id=1"]
    assert remote.statistics().waiting == 0


async def test_cancelled_wait_is_forgotten_and_later_waits_wake(remote: Remote) -> None:
    await start_with(remote, "selftest")
    reader = await remote.open_reader()
    for number in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.wait)
            await trio.testing.wait_all_tasks_blocked()
            assert remote.statistics().waiting == 1
            nursery.cancel_scope.cancel()
        assert remote.statistics().waiting == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_line, reader, [])
            await trio.testing.wait_all_tasks_blocked()
            write_ids(remote, [number])


async def test_reading_without_a_buffer_gives_nothing(remote: Remote) -> None:
    reader = await remote.open_reader()
    reader.close()
    assert not remote.loaded
    assert not reader.try_read_text(100)
    assert not reader.try_read_raw(4096)
    assert not reader.readable()


class _DyingPipe:
    """Has nothing, until it is known that the hypervisor is gone."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def read_cached(self, size: int, offset: int) -> bytes:
        if not self._calls.gone():
            _ends(self._calls)
            raise BlockingIOError
        return bytes(size + offset)


async def test_pages_of_a_hypervisor_that_dies_while_it_is_asked_are_given_at_once(
    idle: Running,
) -> None:
    await idle.remote.start_tracing()
    reader = await idle.remote.open_reader()
    pipe = cast("Pipe", _DyingPipe(idle.calls))
    assert reader.try_read_cached(pipe, 2, 3) == bytes(5)
    assert not idle.remote.tracing_on
    reader.close()


@pytest.mark.parametrize("closes", [True, False])
async def test_who_is_being_ended_is_waited_for_but_not_for_ever(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setattr(remote_module, "is_ending", lambda caller: caller == 77)
    other, reader = [await remote.open_reader(caller=caller) for caller in (1, 77)]
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remote.ending_readers_close)
        await trio.sleep(0.5)
        assert nursery.child_tasks
        if closes:
            reader.close()
    assert trio.current_time() - before == pytest.approx(0.5 if closes else 1, abs=0.01)
    if not closes:
        reader.close()
    other.close()


# --- reset ----------------------------------------------------------------------------------


async def test_reset_forgets_events_and_losses_and_tracing_goes_on(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=7)
    reader = await remote.open_reader()
    write_ids(remote, range(1_000))
    assert len(reader.try_read_text(100)) > 0
    remote.reset()
    write_ids(remote, range(5))
    stats = remote.statistics().cpus[0]
    assert (stats.entries, stats.overrun, stats.read, stats.unread) == (5, 0, 0, 5)
    fresh = await remote.open_reader()
    assert texts(parse_lines(all_text(fresh))) == selftests(range(5))


async def test_reset_stays_loaded_while_tracing(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    remote.reset()
    assert remote.loaded
    await remote.stop_tracing()
    assert not remote.loaded


async def test_reset_unloads_when_unread_events_were_all_that_was_in_the_way(
    remote: Remote,
) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    await remote.stop_tracing()
    assert remote.loaded
    remote.reset()
    assert not remote.loaded
    await remote.set_size(64)


async def test_reset_of_one_cpu_leaves_the_others(remote: Remote) -> None:
    await start_with(remote, "selftest")
    for cpu in range(2):
        write_ids(remote, [cpu], cpu=cpu)
    remote.reset(0)
    reader = await remote.open_reader()
    assert texts(parse_lines(all_text(reader))) == ["selftest id=1"]


async def test_reset_while_unloaded_does_nothing(idle: Running) -> None:
    idle.remote.reset()
    assert idle.calls.log == []
