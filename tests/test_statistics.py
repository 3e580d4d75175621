"""The file `statistics`: what the hypervisor has counted, and what the host sees of it."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyptracefs.events import compile_events
from hyptracefs.files import Place
from hyptracefs.hypercalls import Hypercalls
from hyptracefs.hypervisor_statistics import decode_statistics
from hyptracefs.remote import Remote
from hyptracefs.sources import SocketSource
from hyptracefs.statistics_file import STATISTICS, show_statistics
from hyptracefs.tree import Tree
from tests.mounts import Model, can_mount, modelled, mounted, until
from tests.support import (
    EVENTS,
    Running,
    all_text,
    open_file,
    raises_errno,
    read_file,
    running,
    start_with,
    write_file,
    write_ids,
)

Values = dict[str, int]


def parse(text: str) -> dict[str, Values]:
    """Numbers by name, by what each line is about; lines of one number are put together."""
    lines: dict[str, Values] = {}
    for line in text.splitlines():
        words = line.split()
        if words[0] == "#" or words[:2] == ["hypervisor", "state"]:
            continue
        what = 2 - len(words) % 2
        values = dict(zip(words[what::2], map(int, words[what + 1 :: 2]), strict=True))
        lines.setdefault(" ".join(words[:what]), {}).update(values)
    return lines


def shown(remote: Remote) -> dict[str, Values]:
    return parse(show_statistics(Place(remote)))


# --- the hypervisor's part -----------------------------------------------------------------


_NOTHING_WRITTEN = "written 0 overrun 0 dropped 0 ever_written 0 ever_overrun 0 ever_dropped 0"
_NOTHING_SEEN = (
    "entries 0 overrun 0 read 0 unread 0 lost 0 skipped 0 filtered 0 abandoned 0 unreported 0 "
    "broken_pages 0 pages_lost 0 pages_touched 0 dropped 0 swap_error 0"
)


async def test_text_is_lines_of_names_and_numbers(tree: Tree, remote: Remote) -> None:
    await start_with(remote)
    assert (await read_file(tree, "statistics")).splitlines() == [
        "hypervisor state present",
        "hypervisor unknown_calls 0",
        "hypervisor refused_messages 0",
        "hypervisor hosts 0",
        "hypervisor refused_hosts 0",
        "hypervisor pages_shared 13",
        "hypervisor most_pages_shared 13",
        "hypercall tracing_load calls 1 errors 0",
        "hypercall tracing_unload calls 0 errors 0",
        "hypercall tracing_enable calls 1 errors 0",
        "hypercall tracing_swap_reader calls 0 errors 0",
        "hypercall tracing_reset calls 0 errors 0",
        "hypercall tracing_update_clock calls 1 errors 0",
        "hypercall tracing_enable_event calls 0 errors 0",
        "hypercall tracing_write_event calls 0 errors 0",
        "hypercall tracing_statistics calls 0 errors 0",
        "hypercall tracing_swap_readers calls 0 errors 0",
        "hypercall tracing_doorbell calls 0 errors 0",
        *(f"hypervisor cpu{cpu} {_NOTHING_WRITTEN}" for cpu in range(2)),
        "host loaded 1",
        "host tracing_on 1",
        "host readers 0",
        "host waiting 0",
        "host watching 0",
        "host looks 0",
        "host armed 0",
        *(f"host cpu{cpu} {_NOTHING_SEEN}" for cpu in range(2)),
    ]


async def test_errors_are_counted_by_name(idle: Running) -> None:
    for cpu in (2, 3):
        with raises_errno(errno.EINVAL):
            idle.calls.reset(cpu)
    with raises_errno(errno.ENODEV):
        idle.calls.reset(0)
    assert shown(idle.remote)["hypercall tracing_reset"] == {
        "calls": 3,
        "errors": 3,
        "EINVAL": 2,
        "ENODEV": 1,
    }


async def test_what_is_counted_outlasts_resets_and_loads(remote: Remote, tree: Tree) -> None:
    await start_with(remote, "selftest")
    for again in range(3):
        write_ids(remote, range(10), cpu=1)
        counted = shown(remote)["hypervisor cpu1"]
        assert (counted["written"], counted["ever_written"]) == (10, 10 * (again + 1))
        await write_file(tree, "trace", b"")
        assert shown(remote)["hypervisor cpu1"]["written"] == 0
        await remote.stop_tracing()
        await remote.start_tracing()
    assert shown(remote)["hypervisor"]["pages_shared"] == 13
    await remote.stop_tracing()
    statistics = shown(remote)
    assert statistics["hypervisor"]["pages_shared"] == 0
    assert statistics["hypervisor cpu1"]["ever_written"] == 30
    assert statistics["host"]["loaded"] == 0
    assert "host cpu1" not in statistics


async def test_both_sides_have_counted_the_same_after_a_storm() -> None:
    async with running("storm:max:all", cpus=2, poll_ms=1) as made:
        remote = made.remote
        await remote.set_size(64)
        reader = await remote.open_reader()
        await start_with(remote, *EVENTS)
        while min(stats.overrun for stats in remote.statistics().cpus) < 10_000:
            await reader.wait()
            reader.try_read_text(1 << 20)
        await remote.stop_tracing()
        statistics = shown(remote)
        for cpu in range(2):
            ours, theirs = statistics[f"host cpu{cpu}"], statistics[f"hypervisor cpu{cpu}"]
            assert theirs["written"] == ours["entries"] > 10_000
            assert theirs["overrun"] == ours["overrun"]
            assert theirs["dropped"] == ours["dropped"]
            assert theirs["written"] == ours["read"] + theirs["overrun"] + ours["unread"]
        all_text(reader)
        statistics = shown(remote)
        for cpu in range(2):
            ours, theirs = statistics[f"host cpu{cpu}"], statistics[f"hypervisor cpu{cpu}"]
            assert ours["read"] + theirs["overrun"] == theirs["written"]
        swaps = statistics["hypercall tracing_swap_readers"]
        assert swaps["calls"] - swaps["errors"] > 0
        reader.close()


async def test_counting_goes_on_while_a_storm_writes() -> None:
    async with running("storm:max", cpus=2) as made:
        await start_with(made.remote, "hyp_enter", "hyp_exit")
        before = 0
        for _ in range(50):
            written = shown(made.remote)["hypervisor cpu1"]["written"]
            assert written >= before
            before = written
        assert before > 0


async def test_length_is_no_hypercall_and_is_enough() -> None:
    """A text of many CPUs, all of its numbers as long as they can be."""
    for cpus in (1, 2, 64, 1024):
        place = Place(_FakeRemote(cpus))  # type: ignore[arg-type]
        assert (await STATISTICS.length(place)) % 4096 == 0
        assert (await STATISTICS.length(place)) >= cpus * 512


class _FakeRemote:
    def __init__(self, cpus: int) -> None:
        self.cpus = cpus


async def test_file_can_be_read_in_pieces_and_not_written(tree: Tree) -> None:
    file = await open_file(tree, "statistics", os.O_RDONLY)
    pieces = b""
    while piece := bytes(await file.read(100, len(pieces), nonblock=False)):
        pieces += piece
    assert "host" in parse(pieces.decode())
    with raises_errno(errno.EINVAL):
        await file.write(b"0", os.getpid())


# --- what comes back is not trusted --------------------------------------------------------

_U32, _U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_RESULTS = st.lists(st.tuples(_U32, _U32, _U64), max_size=50)
_CPUS = st.lists(st.tuples(*[_U64] * 6), max_size=5)


def encode(
    results: list[tuple[int, int, int]], cpus: list[tuple[int, ...]], head: tuple[int, ...]
) -> bytes:
    body = b"".join(struct.pack("<IIQ", *result) for result in results)
    body += b"".join(struct.pack("<6Q", *cpu) for cpu in cpus)
    return struct.pack("<4I6Q", 64 + len(body), len(results), len(cpus), 0, *head) + body


class _Answers:
    """A remote whose hypervisor says anything."""

    def __init__(self, of: Remote, message: bytes, cpus: int) -> None:
        self.statistics = of.statistics
        self._message, self._cpus = message, cpus

    def hypervisor_statistics(self) -> object:
        return decode_statistics(self._message, self._cpus)


async def test_numbers_that_nobody_knows_are_shown_as_numbers(remote: Remote) -> None:
    message = encode([(3, 0, 5), (3, 4711, 2), (3, 4711, 1), (77, 0, 2**64 - 1)], [], (0,) * 6)
    lines = parse(show_statistics(Place(_Answers(remote, message, 0))))  # type: ignore[arg-type]
    swap = {"calls": 8, "errors": 3, "errno_4711": 3}
    assert lines["hypercall tracing_swap_reader"] == swap
    assert lines["hypercall 77"] == {"calls": 2**64 - 1, "errors": 0}


@given(_RESULTS, _CPUS, st.tuples(*[_U64] * 6))
def test_whatever_is_counted_is_decoded(
    results: list[tuple[int, int, int]], cpus: list[tuple[int, ...]], head: tuple[int, ...]
) -> None:
    decoded = decode_statistics(encode(results, cpus, head), len(cpus))
    assert [tuple(cpu) for cpu in decoded.cpus] == cpus
    assert (decoded.unknown_calls, decoded.most_pages_shared) == (head[0], head[5])
    expected: Counter[tuple[int, int]] = Counter()
    for call, error, count in results:
        expected[call, error] += count
    assert expected == Counter(
        {(call, error): n for call, by in decoded.results.items() for error, n in by.items()}
    )


@given(_RESULTS, _CPUS, st.integers(0, 5), st.binary(max_size=200), st.integers(0, 300))
def test_whatever_is_sent_makes_sense_or_is_refused(
    results: list[tuple[int, int, int]],
    cpus: list[tuple[int, ...]],
    there: int,
    garbage: bytes,
    at: int,
) -> None:
    message = bytearray(encode(results, cpus, (0,) * 6))
    message[at : at + len(garbage)] = garbage
    with suppress(OSError):  # of the errno that it has
        assert len(decode_statistics(bytes(message), there).cpus) == there


@pytest.mark.parametrize("size", [0, 63, 65, 111])
def test_what_is_not_as_long_as_it_says_is_refused(size: int) -> None:
    message = encode([], [(0,) * 6], (0,) * 6)
    with raises_errno(errno.EPROTO):
        decode_statistics(message[:size].ljust(size, b"\0"), 1)


# --- over a socket, without a mount --------------------------------------------------------


@contextmanager
def _attached(model: Model) -> Iterator[Remote]:
    attached = SocketSource(model.path).attach()
    introduction = attached.introduction
    events = compile_events(introduction.events, introduction.symbol_tables)
    calls = Hypercalls(attached.conduit.address, 2, attached.conduit.gone)
    try:
        yield Remote("hypervisor", calls, events)
    finally:
        attached.close()


def test_over_a_socket_it_is_the_same(tmp_path: Path) -> None:
    with modelled(tmp_path / "s", "--cpus=2", "--workload=idle") as model:
        for hosts in (1, 2):
            with _attached(model) as remote:
                statistics = shown(remote)
                assert statistics["hypervisor"]["hosts"] == hosts
                assert statistics["hypercall tracing_statistics"]["calls"] == 2 * (hosts - 1)
                assert statistics["hypervisor cpu1"]["ever_written"] == 0
                assert statistics["host"]["loaded"] == 0
                assert shown(remote)["hypercall tracing_statistics"]["calls"] == 2 * hosts - 1


def test_when_the_hypervisor_is_gone_the_host_still_speaks(tmp_path: Path) -> None:
    with modelled(tmp_path / "s", "--cpus=2", "--workload=idle") as model, _attached(model) as it:
        model.kill()
        lines = show_statistics(Place(it)).splitlines()
        assert lines[0] == "hypervisor state gone"
        assert lines[1] == "# hypervisor: it has ended"
        assert lines[2:] == [
            f"host {name} 0" for name in ("loaded", "tracing_on", "readers", "waiting", "watching")
        ]


# --- in a mount ----------------------------------------------------------------------------


@pytest.mark.mount
@pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")
def test_in_a_mount_with_the_tools_that_there_are(tmp_path: Path) -> None:
    with (
        modelled(tmp_path / "hyp.sock", "--cpus=2", "--workload=storm:20000") as model,
        mounted(tmp_path, source=model.source) as mount,
    ):
        mount.trace()
        until(lambda: parse(mount.read("statistics"))["hypervisor cpu1"]["overrun"], "losses")
        mount.write("tracing_on", "0")
        path = mount.top / "statistics"
        assert path.stat().st_mode & 0o777 == 0o440
        for command in (["cat"], ["busybox", "cat"], ["tail", "-n", "+1"], ["sed", "-n", "p"]):
            text = subprocess.run([*command, path], check=True, capture_output=True).stdout
            statistics = parse(text.decode("ascii"))
            for cpu in range(2):
                theirs, ours = statistics[f"hypervisor cpu{cpu}"], statistics[f"host cpu{cpu}"]
                assert theirs["written"] == ours["entries"] > 0
                assert theirs["overrun"] == ours["overrun"]
        model.kill()
        after = mount.read("statistics")
        assert after.startswith("hypervisor state gone\n")
        assert parse(after)["host cpu1"]["entries"] == ours["entries"]
