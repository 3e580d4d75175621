"""Reads of pipes that are answered without Python: what they give, and when they do not."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyptracefs.ring_buffer import PAGE_SIZE
from tests.mounts import Mount, blocks_in_read, can_mount, mounted, parse, until
from tests.support import selftests

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

# A server whose Python finds no events, ever.
_BLIND = """
import sys
from hyptracefs.remote import Reader
Reader.try_read_text = Reader.try_read_raw = lambda self, size: memoryview(b"")
from hyptracefs.cli import main
main()
"""


def _emit(mount: Mount, events: int) -> None:
    for number in range(events):
        (mount.path / "remotes/hypervisor/write_event").write_text(str(number), encoding="ascii")


@contextmanager
def _opened(mount: Mount, name: str, flags: int = os.O_NONBLOCK) -> Iterator[int]:
    fd = os.open(mount.top / name, os.O_RDONLY | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_all(fd: int, size: int = 1 << 16) -> bytes:
    done = b""
    while True:
        try:
            done += os.read(fd, size)
        except BlockingIOError:
            return done


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """An event is written on the CPU of who asks for it: all on one, so on one page."""
    where = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(where)})
    yield
    os.sched_setaffinity(0, where)


@pytest.fixture
def blind(tmp_path: Path, one_cpu: None) -> Iterator[Mount]:  # noqa: ARG001
    with mounted(tmp_path, "cpus=2,workload=idle", program=("-c", _BLIND)) as mount:
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        yield mount
        mount.write("tracing_on", "0")


def _texts(read: bytes) -> list[str]:
    return [line.what for line in parse(read.decode("ascii"))]


def test_text_that_is_there_takes_no_python(blind: Mount) -> None:
    _emit(blind, 20)
    with _opened(blind, "trace_pipe") as pipe:
        assert _texts(_read_all(pipe)) == selftests(range(20))


def test_lines_in_pieces(blind: Mount) -> None:
    _emit(blind, 20)
    with _opened(blind, "trace_pipe") as pipe:
        assert _texts(_read_all(pipe, 7)) == selftests(range(20))


def test_pages_that_are_there_take_no_python(blind: Mount) -> None:
    _emit(blind, 20)
    with _opened(blind, "trace_pipe_raw") as pipe:
        assert len(_read_all(pipe, 1000)) == PAGE_SIZE  # in pieces, too


def test_the_next_buffer_is_read_by_who_was_there(blind: Mount) -> None:
    with _opened(blind, "trace_pipe") as pipe:
        _emit(blind, 3)
        assert len(parse(_read_all(pipe).decode())) == 3
    blind.write("tracing_on", "0")
    until(lambda: "(unloaded)" in blind.read("buffer_size_kb"), "the buffer to be given back")
    with _opened(blind, "trace_pipe") as pipe:
        assert not _read_all(pipe)
        blind.write("tracing_on", "1")
        _emit(blind, 2)
        assert _texts(_read_all(pipe)) == selftests(range(2))


def test_of_one_cpu(blind: Mount) -> None:
    _emit(blind, 1)
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(here)})
    try:
        _emit(blind, 1)
    finally:
        os.sched_setaffinity(0, here)
    counts = []
    for cpu in (0, 1):
        with _opened(blind, f"per_cpu/cpu{cpu}/trace_pipe") as pipe:
            counts.append(len(parse(_read_all(pipe).decode())))
    assert sum(counts) == 2
    assert counts[min(here) % 2] >= 1


def test_a_reader_in_a_loop_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Who reads a storm without pause gets answers without Python; others get theirs."""
    with mounted(tmp_path, "cpus=2,workload=storm:200000") as mount:
        mount.trace(size_kb=1408)
        reader = mount.cat("trace_pipe")
        try:
            for _ in range(20):
                assert mount.read("tracing_on") == "1\n"
        finally:
            reader.kill()
            reader.wait()
        mount.write("tracing_on", "0")
        mount.write("trace", "")


def test_a_reader_that_has_read_all_waits_and_is_killed(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        _emit(mount, 5)
        reader = subprocess.Popen(
            ["cat", str(mount.top / "trace_pipe")], stdout=subprocess.PIPE, bufsize=0
        )
        assert reader.stdout is not None
        assert len(parse(reader.stdout.read(1 << 16).decode())) == 5
        until(lambda: blocks_in_read(reader.pid), "cat to wait")
        reader.kill()
        reader.wait()
        reader.stdout.close()
        mount.write("tracing_on", "0")
        assert "(unloaded)" in mount.read("buffer_size_kb")


def test_nonblocking_says_so(blind: Mount) -> None:
    with _opened(blind, "trace_pipe") as pipe, pytest.raises(BlockingIOError) as caught:
        os.read(pipe, 100)
    assert caught.value.errno == errno.EAGAIN
