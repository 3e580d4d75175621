"""The mount, with the tools that people use on it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.mounts import (
    PATIENCE_S,
    Mount,
    blocks_in_read,
    can_mount,
    is_replay,
    mounted,
    parse,
    recorded,
    until,
)

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

PAGE = 4096


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, "cpus=2") as mount:
        yield mount


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        yield mount


# --- the session of the README -----------------------------------------------------------


def test_trace_pipe_of_a_cpu_is_the_recording_again_and_again(mount: Mount) -> None:
    mount.trace()
    lines = parse(mount.cat_for(2, "per_cpu/cpu1/trace_pipe").decode())
    assert {line.cpu for line in lines} == {1}
    assert len(lines) > 2 * len(recorded())  # and so no LOST line: parse() knows none
    assert is_replay([line.what for line in lines], recorded())
    assert all(a.usec <= b.usec for a, b in pairwise(lines))


def test_trace_pipe_merges_the_cpus_by_time(mount: Mount) -> None:
    mount.trace()
    lines = parse(mount.cat_for(1, "trace_pipe").decode())
    assert {line.cpu for line in lines} == {0, 1}
    for cpu in (0, 1):
        assert all(a.usec <= b.usec for a, b in pairwise(line for line in lines if line.cpu == cpu))
    # An event that is committed late, on a busy machine, comes after some of another CPU.
    late = sum(a.usec > b.usec for a, b in pairwise(lines))
    assert late < len(lines) / 10
    assert is_replay([line.what for line in lines if line.cpu == 1], recorded())


def test_hypercalls_of_the_host_alternate_on_their_cpu(mount: Mount) -> None:
    mount.trace()
    lines = parse(mount.cat_for(1, "per_cpu/cpu0/trace_pipe").decode())
    # The first is the end of the call that switched tracing on.
    assert lines[0].what == "hyp_exit reason=eret_host vcpu=0"
    pairs = [line.what for line in lines[1:]]
    assert set(pairs[0::2]) == {"hyp_enter reason=hvc vcpu=0"}
    assert set(pairs[1::2]) == {"hyp_exit reason=eret_host vcpu=0"}


def test_a_slow_reader_of_a_small_buffer_is_told_what_it_lost(mount: Mount) -> None:
    mount.trace(size_kb=7)
    reader = os.open(mount.top / "per_cpu/cpu1/trace_pipe", os.O_RDONLY)
    try:
        os.read(reader, 4096)
        parts: list[bytes] = []
        while b"LOST" not in b"".join(parts[-2:]):
            parts.append(os.read(reader, 4096))
            threading.Event().wait(0.2)  # the slow reader
    finally:
        os.close(reader)
    assert re.search(rb"^CPU:1 \[LOST \d+ EVENTS\]$", b"".join(parts), re.MULTILINE)


def test_raw_pages_are_pages(mount: Mount) -> None:
    mount.trace()
    raw = mount.cat_for(1, "per_cpu/cpu1/trace_pipe_raw")
    assert raw
    assert len(raw) % PAGE == 0
    stamps = []
    for at in range(0, len(raw), PAGE):
        stamp, commit = struct.unpack_from("<QQ", raw, at)
        header, length, event_id = struct.unpack_from("<IIH", raw, at + 16)
        assert 0 < commit <= PAGE - 16
        assert (header, length) == (0, 12)  # data, delta 0; 8 bytes of payload
        assert event_id in (6, 7)  # hyp_enter, hyp_exit
        stamps.append(stamp)
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("name", ["trace_pipe_raw", "per_cpu/cpu1/trace_pipe_raw"])
def test_a_read_of_pages_gives_whole_pages(mount: Mount, name: str) -> None:
    mount.trace()
    with (mount.top / name).open("rb", buffering=0) as raw:
        assert len(raw.read(PAGE)) == PAGE
        assert len(raw.read(10 * PAGE + 100)) % PAGE == 0
        halves = raw.read(PAGE // 2) + raw.read(PAGE)
        assert len(halves) == PAGE


# --- readers end at once --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_reader_is_gone_and_the_buffer_unloaded_right_after(
    idle: Mount, number: signal.Signals
) -> None:
    for _ in range(100):
        reader = idle.blocked_cat("trace_pipe")
        assert idle.read("buffer_size_kb") == "7 (loaded)\n"
        reader.send_signal(number)
        reader.wait(timeout=PATIENCE_S)
        assert idle.read("buffer_size_kb") == "7 (unloaded)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_reader_counts_no_more_once_it_is_killed(idle: Mount, number: signal.Signals) -> None:
    for _ in range(30):
        reader = idle.blocked_cat("trace_pipe")
        reader.send_signal(number)  # and nobody waits for it to end
        assert idle.read("buffer_size_kb") == "7 (unloaded)\n"
        reader.wait(timeout=PATIENCE_S)


def test_many_blocked_readers_do_not_block_the_rest(idle: Mount) -> None:
    readers = [idle.cat("trace_pipe") for _ in range(150)]
    for reader in readers:
        until(partial(blocks_in_read, reader.pid), "150 readers to block")
    assert idle.read("tracing_on") == "0\n"
    for reader in readers:
        reader.kill()
    for reader in readers:
        reader.wait(timeout=PATIENCE_S)
    assert idle.read("buffer_size_kb") == "7 (unloaded)\n"


def test_a_stopped_reader_goes_on(idle: Mount) -> None:
    idle.write("events/hypervisor/selftest/enable", "1")
    reader = subprocess.Popen(
        ["cat", str(idle.top / "trace_pipe")], stdout=subprocess.PIPE, bufsize=0
    )
    assert reader.stdout is not None
    until(lambda: blocks_in_read(reader.pid), "cat to block")
    reader.send_signal(signal.SIGSTOP)
    reader.send_signal(signal.SIGCONT)
    idle.write("tracing_on", "1")
    idle.write("selftest_event", "1")
    assert reader.stdout.readline().endswith(b": selftest id=1\n")
    reader.kill()
    reader.wait()
    reader.stdout.close()


def _has_armed(mount: Mount, times: int) -> bool:
    [armed] = re.findall(r"host armed (\d+)", mount.read("statistics"))
    return int(armed) >= times


@pytest.mark.parametrize("wakeup", ["doorbell", "poll"])
def test_a_blocked_cat_wakes(tmp_path: Path, wakeup: str) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle", f"wakeup={wakeup}") as mount:
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        reader = subprocess.Popen(
            ["cat", str(mount.top / "trace_pipe")], stdout=subprocess.PIPE, bufsize=0
        )
        assert reader.stdout is not None
        for number in range(1, 20):
            until(lambda: blocks_in_read(reader.pid), "cat to block")
            if wakeup == "doorbell":
                until(partial(_has_armed, mount, number), "the doorbell to be armed")
            mount.write("selftest_event", "1")
            assert reader.stdout.readline().endswith(b": selftest id=%d\n" % number)
        reader.kill()
        reader.wait()
        reader.stdout.close()
        assert _has_armed(mount, 1) == (wakeup == "doorbell")


def test_nonblocking_is_seen_at_each_read(idle: Mount) -> None:
    pipe = os.open(idle.top / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            os.read(pipe, 100)
    finally:
        os.close(pipe)
    pipe = os.open(idle.top / "trace_pipe_raw", os.O_RDONLY)
    try:
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK)
        with pytest.raises(BlockingIOError):
            os.read(pipe, PAGE)
    finally:
        os.close(pipe)


def test_a_stopped_hypervisor_does_not_catch_up_in_a_burst(mount: Mount) -> None:
    mount.trace()
    reader = subprocess.Popen(
        ["cat", str(mount.top / "per_cpu/cpu1/trace_pipe")], stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    first = reader.stdout.readline()
    os.kill(mount.model(), signal.SIGSTOP)
    threading.Event().wait(1)  # three turns of the replay
    os.kill(mount.model(), signal.SIGCONT)
    lines = first + b"".join(reader.stdout.readline() for _ in range(len(recorded())))
    reader.kill()
    reader.communicate()
    assert is_replay([line.what for line in parse(lines.decode())], recorded())


def _wait_with_select(fd: int) -> bool:
    return bool(select.select([fd], [], [], PATIENCE_S)[0])


def _wait_with_poll(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(PATIENCE_S * 1000))


def _wait_with_epoll(fd: int, flags: int = 0) -> bool:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN | flags)
        return bool(epoll.poll(PATIENCE_S))


@pytest.mark.parametrize("name", ["trace_pipe", "per_cpu/cpu{}/trace_pipe_raw"])
@pytest.mark.parametrize(
    "wait",
    [
        _wait_with_select,
        _wait_with_poll,
        _wait_with_epoll,
        partial(_wait_with_epoll, flags=select.EPOLLET),
    ],
    ids=["select", "poll", "epoll", "epoll-edge"],
)
def test_waiting_for_a_pipe_ends_with_an_event(
    idle: Mount, name: str, wait: Callable[[int], bool]
) -> None:
    idle.write("events/hypervisor/selftest/enable", "1")
    idle.write("tracing_on", "1")
    cpu = max(os.sched_getaffinity(0))
    pipe = os.open(idle.top / name.format(cpu % 2), os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([pipe], [], [], 0) == ([], [], [])
        emit = f"sleep 0.1; exec taskset -c {cpu} bash -c 'echo > selftest_event'"
        event = subprocess.Popen(["bash", "-c", emit], cwd=idle.top)
        assert wait(pipe)
        event.wait()
        assert os.read(pipe, PAGE)
        assert select.select([pipe], [], [], 0) == ([], [], [])
    finally:
        os.close(pipe)


def test_other_files_are_always_ready(idle: Mount) -> None:
    with (idle.top / "tracing_on").open("r+b", buffering=0) as file:
        assert select.select([file], [file], [], 0) == ([file], [file], [])


# --- ways to end ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_mount_with_readers_blocked(idle: Mount, number: signal.Signals) -> None:
    readers = [idle.blocked_cat("trace_pipe") for _ in range(3)]
    idle.server.send_signal(number)
    assert idle.wait_ended() == 0
    for reader in readers:
        assert reader.wait(timeout=PATIENCE_S) == 1  # its read failed: connection aborted
    assert not idle.is_mounted()


def test_umount_ends_the_server(mount: Mount) -> None:
    mount.trace()
    subprocess.run(["umount", str(mount.path)], check=True)
    assert mount.wait_ended() == 0


@pytest.mark.parametrize("how", ["-l", "-f"])
def test_forced_umount_ends_the_server_and_its_blocked_readers(mount: Mount, how: str) -> None:
    mount.trace()
    reader = mount.blocked_cat("per_cpu/cpu0/trace_pipe")
    # -f says "busy" after it has cut the connection.
    subprocess.run(["umount", how, str(mount.path)], check=False, stderr=subprocess.DEVNULL)
    assert mount.wait_ended() == 0
    assert reader.wait(timeout=PATIENCE_S) == 1
    assert not mount.is_mounted()


def test_a_busy_mount_is_not_unmounted(idle: Mount) -> None:
    reader = idle.blocked_cat("trace_pipe")
    busy = subprocess.run(["umount", str(idle.path)], check=False, stderr=subprocess.PIPE)
    assert busy.returncode == 32
    assert idle.read("tracing_on") == "0\n"
    reader.kill()
    reader.wait()


# --- tools ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "cat buffer_size_kb",
        "busybox cat buffer_size_kb",
        "dd if=buffer_size_kb bs=1 status=none",
        "head -n 1 buffer_size_kb",
        "tail -c 100 buffer_size_kb",
        "grep . buffer_size_kb",
        "cp buffer_size_kb /dev/stdout",
        "cat < buffer_size_kb",
    ],
)
def test_control_files_read_with(idle: Mount, command: str) -> None:
    assert _shell(idle, command).stdout == "7 (unloaded)\n"


def _shell(mount: Mount, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=mount.top,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("echo 0 > buffer_size_kb", "Invalid argument"),
        ("echo abc > tracing_on", "Invalid argument"),
        ("echo 99999999999999999999999 > tracing_on", "Numerical result out of range"),
        ("echo 1 > tracing_on && echo 64 > buffer_size_kb", "Device or resource busy"),
        ("echo 9007199254740992 > buffer_size_kb && echo 1 > tracing_on", "Argument list too long"),
        ("echo 4294967296 > buffer_size_kb && echo 1 > tracing_on", "Cannot allocate memory"),
        ("cat trace", "Operation not permitted"),
        ("cat 3<> trace <&3", "Invalid argument"),
        ("echo 1 > trace_pipe", "Invalid argument"),
        ("echo 1 > trace_clock", "Invalid argument"),
        ("echo 2 > events/hypervisor/hyp_enter/enable", "Invalid argument"),
        ("echo 1 > new", "Permission denied"),
        ("mkdir new", "Operation not permitted"),
        ("rm -f trace", "Operation not permitted"),
        ("mv trace new", "Operation not permitted"),
        ("chmod 777 trace", "Operation not permitted"),
        ("cat nosuch", "No such file or directory"),
    ],
)
def test_misuse_gives_the_errno_of_v1(idle: Mount, command: str, error: str) -> None:
    done = _shell(idle, command)
    assert done.returncode != 0
    assert error in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "echo 1 > buffer_size_kb && grep '^1 ' buffer_size_kb",
        "printf 5 >> buffer_size_kb && grep '^5 ' buffer_size_kb",
        "truncate -s 0 tracing_on",
        "echo > trace",
        "> trace",
        "echo 1 > events/enable && grep 1 events/hypervisor/selftest/enable",
        "echo 1 > events/hypervisor/selftest/enable && grep X events/enable",
    ],
)
def test_use_works_as_in_a_shell(idle: Mount, command: str) -> None:
    done = _shell(idle, command)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_test_event_is_emitted_on_the_cpu_of_the_caller(idle: Mount) -> None:
    for cpu in os.sched_getaffinity(0):
        idle.write("trace", "")
        for event in ("hyp_enter", "hyp_exit", "selftest"):
            idle.write(f"events/hypervisor/{event}/enable", "1")
        idle.write("tracing_on", "1")
        assert _shell(idle, f"taskset -c {cpu} bash -c 'echo 1 > selftest_event'").returncode == 0
        idle.write("tracing_on", "0")
        pipe = os.open(idle.top / f"per_cpu/cpu{cpu % 2}/trace_pipe", os.O_RDONLY)
        lines = parse(os.read(pipe, 1 << 20).decode())
        os.close(pipe)
        at = next(i for i, line in enumerate(lines) if line.event == "selftest")
        # as in golden/pkvm-arm64/hyp-session.txt: within a hypercall
        assert lines[at - 1].what == "hyp_enter reason=hvc vcpu=0"
        assert lines[at + 1].what == "hyp_exit reason=eret_host vcpu=0"


def test_a_listing_has_dots(idle: Mount) -> None:
    assert _shell(idle, "ls -a per_cpu").stdout.split() == [".", "..", "cpu0", "cpu1"]


def test_modes_are_those_of_the_table(idle: Mount) -> None:
    modes = {
        "": 0o40750,
        "trace": 0o100640,
        "trace_pipe_raw": 0o100440,
        "events": 0o40755,
        "events/hypervisor/hyp_enter/enable": 0o100640,
        "per_cpu/cpu1/trace": 0o100640,
    }
    assert {name: (idle.top / name).stat().st_mode for name in modes} == modes
    assert not (idle.top / "per_cpu/cpu2").exists()


def test_others_than_root_are_kept_out(idle: Mount) -> None:
    done = subprocess.run(
        ["cat", str(idle.top / "tracing_on")], user=65534, check=False, capture_output=True
    )
    assert done.returncode == 1


@pytest.mark.parametrize("name", ["trace_pipe", "trace_pipe_raw"])
def test_pipes_cannot_seek(idle: Mount, name: str) -> None:
    pipe = os.open(idle.top / name, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            os.lseek(pipe, 1, os.SEEK_SET)
    finally:
        os.close(pipe)


def test_errno_of_a_number_that_does_not_fit(idle: Mount) -> None:
    with pytest.raises(OSError, match="out of range") as info:
        idle.write("tracing_on", str(2**64))
    assert info.value.errno == errno.ERANGE
