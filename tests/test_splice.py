"""splice and sendfile from the pipes, polling for them, and open files that are shared."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from tests.decoder import Decoder, RawEvent
from tests.mounts import (
    PATIENCE_S,
    Mount,
    blocks_in_read,
    blocks_in_write,
    can_mount,
    mounted,
    parse,
    until,
)
from tests.support import raises_errno

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

PAGE = 4096
RAW = "per_cpu/cpu1/trace_pipe_raw"
TEXT = "per_cpu/cpu1/trace_pipe"

# More visits than two pages hold: a page that is left out, or comes twice, shows.
VISITS = 20_000
_APART_US = 100
_PAUSE_US = 20  # in the hypervisor


def _recording(path: Path) -> None:
    """A session whose visits of the hypervisor are numbered."""

    def line(usec: int, what: str) -> str:
        return f"[001]\t{usec // 1_000_000:5d}.{usec % 1_000_000:06d}: {what}\n"

    with path.open("w", encoding="ascii") as file:
        file.write(line(0, "hyp_exit reason=eret_host vcpu=0"))
        for number in range(VISITS):
            at = (number + 1) * _APART_US
            file.write(line(at, f"hyp_enter reason=host_abort vcpu={number}"))
            file.write(line(at + _PAUSE_US, f"hyp_exit reason=eret_host vcpu={number}"))


@pytest.fixture
def numbered(tmp_path: Path) -> Iterator[Mount]:
    """A storm of numbered visits on CPU 1, in a buffer that nobody overruns soon."""
    _recording(tmp_path / "recording")
    with mounted(tmp_path, "cpus=2", f"workload=replay:{tmp_path}/recording") as mount:
        mount.trace(size_kb=16384)
        yield mount


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        yield mount


@pytest.fixture
def selftest(idle: Mount) -> Mount:
    """Nothing happens unless `selftest_event` is written."""
    idle.write("buffer_size_kb", "256")
    idle.write("events/hypervisor/selftest/enable", "1")
    idle.write("tracing_on", "1")
    return idle


@contextlib.contextmanager
def _opened(mount: Mount, name: str, flags: int = 0) -> Iterator[int]:
    fd = os.open(mount.top / name, os.O_RDONLY | flags)
    try:
        yield fd
    finally:
        os.close(fd)


class _Splicer:
    """An open file, spliced from as trace-cmd's recorders do."""

    def __init__(self, mount: Mount, name: str = RAW) -> None:
        self.fd = os.open(mount.top / name, os.O_RDONLY)
        self._out, self._in = os.pipe()
        self._selected = select.poll()
        self._selected.register(self.fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.fd, self._out, self._in):
            os.close(fd)

    def wait(self) -> None:
        assert self._selected.poll(PATIENCE_S * 1000) == [(self.fd, select.POLLIN)]

    def splice(self, size: int = 1 << 16) -> bytes:
        done = os.splice(self.fd, self._in, size)
        assert done
        return os.read(self._out, done)

    def send(self, size: int = 1 << 16) -> bytes:
        done = os.sendfile(self._in, self.fd, None, size)
        assert done
        return os.read(self._out, done)

    def rest(self) -> bytes:
        """What trace-cmd does to end: read what is there."""
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_NONBLOCK)
        pages = []
        while True:
            try:
                pages.append(os.read(self.fd, PAGE))
            except BlockingIOError:
                fcntl.fcntl(self.fd, fcntl.F_SETFL, 0)
                return b"".join(pages)


def _events(mount: Mount, pages: bytes) -> list[RawEvent]:
    """What is in `pages`; nothing may be lost."""
    assert len(pages) % PAGE == 0
    names = ("hyp_enter", "hyp_exit", "selftest")
    decoder = Decoder(mount.read(f"events/hypervisor/{name}/format") for name in names)
    events = list(decoder.pages(pages))
    assert all(isinstance(event, RawEvent) for event in events)
    return [event for event in events if isinstance(event, RawEvent)]


def _entered(mount: Mount, pages: bytes) -> list[int]:
    """Numbers of the visits that begin in `pages`."""
    events = _events(mount, pages)
    return [event.fields["vcpu"] for event in events if event.name == "hyp_enter"]


def _assert_in_sequence(numbers: list[int], *, least: int) -> None:
    assert len(numbers) >= least
    assert all(b == (a + 1) % VISITS for a, b in pairwise(numbers))


# --- pages are spliced ----------------------------------------------------------------------


@pytest.mark.parametrize("how", [_Splicer.splice, _Splicer.send], ids=["splice", "sendfile"])
@pytest.mark.parametrize("size", [PAGE, 1 << 16, 1 << 20])
def test_spliced_pages_are_complete_and_in_order(
    numbered: Mount, how: Callable[[_Splicer, int], bytes], size: int
) -> None:
    parts: list[bytes] = []
    with _Splicer(numbered) as splicer:
        while len(parts) < 100:
            splicer.wait()  # and then there is a page: else EAGAIN ends the test
            parts.append(how(splicer, size))
        numbered.write("tracing_on", "0")
        parts.append(splicer.rest())
    assert all(len(part) % PAGE == 0 for part in parts)
    _assert_in_sequence(_entered(numbered, b"".join(parts)), least=100)


def test_splicing_and_reading_take_turns(numbered: Mount) -> None:
    parts: list[bytes] = []
    with _Splicer(numbered) as splicer:
        for _ in range(20):
            splicer.wait()
            parts.append(splicer.splice())
            parts.append(splicer.rest())
            splicer.wait()
            parts.append(os.read(splicer.fd, 1 << 16))
    _assert_in_sequence(_entered(numbered, b"".join(parts)), least=50)


def test_two_who_splice_the_same_file_share_the_pages(numbered: Mount) -> None:
    """Each page goes to one of them: the page cache gives none to both."""
    parts: list[list[bytes]] = [[], []]

    def splice(splicer: _Splicer, into: list[bytes]) -> None:
        while len(into) < 50:
            splicer.wait()
            with contextlib.suppress(BlockingIOError):  # the other one was faster
                into.append(splicer.splice(PAGE))

    with _Splicer(numbered) as one, _Splicer(numbered) as two:
        threads = [
            threading.Thread(target=splice, args=args)
            for args in zip((one, two), parts, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    pages = sorted((page for part in parts for page in part), key=lambda page: page[:8][::-1])
    _assert_in_sequence(_entered(numbered, b"".join(pages)), least=100)


def test_part_of_a_page_is_spliced_and_then_the_rest(selftest: Mount) -> None:
    with _Splicer(selftest, "trace_pipe_raw") as splicer:
        for _ in range(3):
            selftest.write("selftest_event", "1")
            first = splicer.splice(1000)
            assert len(first) == 1000
            # The kernel may have dropped the page meanwhile, and asks for it again.
            os.posix_fadvise(splicer.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            rest = splicer.splice()
            assert len(rest) == PAGE - 1000
            [event] = _events(selftest, first + rest)
            assert event.name == "selftest"


def test_after_part_of_a_page_was_read_the_rest_is_not_spliced(selftest: Mount) -> None:
    selftest.write("selftest_event", "1")
    with _Splicer(selftest, "trace_pipe_raw") as splicer:
        assert len(os.read(splicer.fd, 1000)) == 1000
        with raises_errno(errno.EINVAL):
            splicer.splice()
        assert len(os.read(splicer.fd, PAGE)) == PAGE - 1000
        selftest.write("selftest_event", "1")
        assert len(splicer.splice()) == PAGE


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK])
def test_splicing_nothing_is_eagain_and_never_the_end(selftest: Mount, flags: int) -> None:
    with _Splicer(selftest, "trace_pipe_raw") as splicer:
        fcntl.fcntl(splicer.fd, fcntl.F_SETFL, flags)
        for _ in range(3):
            with raises_errno(errno.EAGAIN):
                splicer.splice()
            with raises_errno(errno.EAGAIN):
                splicer.send()
            selftest.write("selftest_event", "1")
            splicer.wait()
            assert len(splicer.splice()) == PAGE


def test_number_of_the_inode_is_always_the_same_to_see(selftest: Mount) -> None:
    """Although each open file has a page cache, and so an inode, of its own."""
    node = (selftest.top / RAW).stat().st_ino
    assert (selftest.top / TEXT).stat().st_ino != node
    with _opened(selftest, RAW) as one, _opened(selftest, RAW) as two:
        assert os.fstat(one).st_ino == os.fstat(two).st_ino == node
        listing = os.scandir(selftest.top / "per_cpu/cpu1")
        assert {entry.name: entry.inode() for entry in listing}["trace_pipe_raw"] == node


@pytest.mark.parametrize("waits", [True, False])
def test_a_killed_splicer_is_gone_and_the_buffer_unloaded_right_after(
    idle: Mount, waits: bool
) -> None:
    code = (
        "import os, select, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "print(flush=True)\n"
        "while True:\n"
        f"    select.select([fd], [], [], {None if waits else 0})\n"
        "    try: os.splice(fd, 1, 65536)\n"
        "    except BlockingIOError: pass\n"
    )
    for number in (signal.SIGTERM, signal.SIGKILL) * 5:
        splicer = subprocess.Popen(
            [sys.executable, "-c", code, str(idle.top / RAW)], stdout=subprocess.PIPE
        )
        assert splicer.stdout is not None
        splicer.stdout.readline()
        assert idle.read("buffer_size_kb") == "7 (loaded)\n"
        splicer.send_signal(number)
        splicer.wait(timeout=PATIENCE_S)
        splicer.stdout.close()
        assert idle.read("buffer_size_kb") == "7 (unloaded)\n"


# --- text is not ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trace_pipe", TEXT])
def test_text_cannot_be_spliced_as_in_the_kernel(selftest: Mount, name: str) -> None:
    """golden/*/errno.txt: splice=EINVAL. Before and after a read, with and without events."""
    with _Splicer(selftest, name) as splicer:
        for _ in range(2):
            with raises_errno(errno.EINVAL):
                splicer.splice()
            with raises_errno(errno.EINVAL):
                splicer.send()
            for cpu in os.sched_getaffinity(0):
                subprocess.run(
                    ["taskset", "-c", str(cpu), "bash", "-c", "echo > selftest_event"],
                    cwd=selftest.top,
                    check=True,
                )
            assert b": selftest id=" in os.read(splicer.fd, 1 << 16)


# --- tools --------------------------------------------------------------------------------------

_COPY = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"

_TOOLS = {
    "cat": "cat {} > out",
    "cat-to-pipe": "cat {} | cat > out",
    "busybox": "busybox cat {} > out",
    "busybox-cp": "busybox cp {} out",
    "cp": "cp {} out",
    "dd": "dd if={} of=out bs=64k status=none",
    "head": "head -c 400000 {} > out",
    "head-lines": "head -n 4000 {} > out",
    "tail": "tail -n +1 -f {} > out",
    "tee": "tee out < {} > /dev/null",
    "shutil": f"{sys.executable} -c '{_COPY}' {{}} out",
}


def _copied(mount: Mount, tool: str, name: str, directory: Path) -> bytes:
    """What `tool` has copied of `name` when it is killed."""
    out = directory / "out"
    command = _TOOLS[tool].format(mount.top / name)
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=directory, start_new_session=True, stderr=subprocess.PIPE
    )
    until(
        lambda: process.poll() is not None or (out.exists() and out.stat().st_size > 200_000),
        f"{tool} to copy",
    )
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert errors == b""
    return out.read_bytes()


@pytest.mark.parametrize("tool", _TOOLS)
def test_pages_are_copied_with(numbered: Mount, tool: str, tmp_path: Path) -> None:
    data = _copied(numbered, tool, RAW, tmp_path)
    _assert_in_sequence(_entered(numbered, data[: len(data) // PAGE * PAGE]), least=50)


@pytest.mark.parametrize("tool", _TOOLS)
def test_text_is_copied_with(numbered: Mount, tool: str, tmp_path: Path) -> None:
    data = _copied(numbered, tool, TEXT, tmp_path)
    lines = parse(data[: data.rindex(b"\n") + 1].decode())
    entered = [re.search(r"vcpu=(\d+)", line.text) for line in lines if line.event == "hyp_enter"]
    _assert_in_sequence([int(match[1]) for match in entered if match], least=1000)


# --- open files that are shared ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["trace_pipe", "trace_pipe_raw"])
def test_of_two_who_share_an_open_file_each_can_be_killed(idle: Mount, name: str) -> None:
    """As `exec 3<trace_pipe; cat <&3 & cat <&3 &` does."""
    with _opened(idle, name) as shared:
        readers = [
            subprocess.Popen(["cat"], stdin=shared, stdout=subprocess.DEVNULL) for _ in range(3)
        ]
        for reader in readers:
            until(partial(blocks_in_read, reader.pid), "3 readers to block")
        for reader in reversed(readers):
            reader.terminate()
            assert reader.wait(timeout=PATIENCE_S) == -signal.SIGTERM
        assert idle.read("buffer_size_kb") == "7 (loaded)\n"
    assert idle.read("buffer_size_kb") == "7 (unloaded)\n"


def test_two_who_share_an_open_file_share_its_events(selftest: Mount) -> None:
    with _opened(selftest, "trace_pipe") as shared:
        readers = [
            subprocess.Popen(["cat"], stdin=shared, stdout=subprocess.PIPE) for _ in range(2)
        ]
        for reader in readers:
            until(partial(blocks_in_read, reader.pid), "2 readers to block")
        for _ in range(20):
            selftest.write("selftest_event", "1")
        until(lambda: select.select([shared], [], [], 0) == ([], [], []), "all to be read")
        for reader in readers:
            reader.terminate()
        lines = parse("".join(reader.communicate()[0].decode() for reader in readers))
    numbers = sorted(int(line.text.removeprefix("id=")) for line in lines)
    assert numbers == list(range(1, 21))


# --- signals during other requests than a read ------------------------------------------------


def _starting_to_trace(mount: Mount, before: str = "") -> subprocess.Popen[bytes]:
    """A shell whose write waits for the calibration of the clock; or has just ended."""
    shell = subprocess.Popen(
        ["bash", "-c", f"{before} echo 1 > tracing_on"], cwd=mount.top, stderr=subprocess.PIPE
    )
    until(lambda: shell.poll() is not None or blocks_in_write(shell.pid), "the write to block")
    mount.read("trace_clock")  # answered after what came before has begun
    return shell


def test_a_killed_write_has_no_effect(idle: Mount) -> None:
    def is_killed_in_time() -> bool:
        shell = _starting_to_trace(idle)
        shell.terminate()
        shell.communicate(timeout=PATIENCE_S)
        started = idle.read("tracing_on") == "1\n"
        idle.write("tracing_on", "0")
        idle.write("trace", "")
        assert idle.read("buffer_size_kb") == "7 (unloaded)\n"
        return not started

    until(is_killed_in_time, "a write to be killed before it ends")


def test_a_signal_that_is_handled_disturbs_no_write(idle: Mount) -> None:
    for _ in range(5):
        shell = _starting_to_trace(idle, "trap : USR1;")
        shell.send_signal(signal.SIGUSR1)
        _, errors = shell.communicate(timeout=PATIENCE_S)
        assert (shell.returncode, errors) == (0, b"")
        assert idle.read("tracing_on") == "1\n"
        idle.write("tracing_on", "0")
