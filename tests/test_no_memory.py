"""No memory, no thread, no process for what a request needs: it says so, and nothing is left of it.

Each request is made again and again; the first allocation of the server fails, then the second
one, and so on until it needs no more. See failing_server.py.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import select
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.failing_server import Faults
from tests.mounts import PATIENCE_S, Model, Mount, can_mount, modelled, mounted, until

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

_MOST = 500  # allocations of a request; they are some dozens


@contextmanager
def failing(
    directory: Path, *options: str, source: str = "model"
) -> Iterator[tuple[Mount, Faults]]:
    faults = directory / "faults"
    program = ("-m", "tests.failing_server", str(faults))
    with mounted(directory / "m", *options, source=source, program=program) as mount:
        yield mount, Faults(faults)


def failures(
    faults: Faults,
    request: Callable[[], object],
    after: Callable[[], object],
    answers: Collection[int] = (errno.ENOMEM,),
) -> int:
    """Make `request` with one failure after the other; how many made it fail.

    `after` is called with all allocations working again.
    """
    failed = 0
    for number in range(1, _MOST):
        faults.left = number
        try:
            request()
        except OSError as error:
            assert error.errno in answers, error  # noqa: PT017
            failed += 1
        happened = not faults.left
        faults.left = 0
        after()
        if not happened:
            return failed
    raise AssertionError(f"more than {_MOST} allocations")


def held(mount: Mount) -> tuple[int, int]:
    """Descriptors of the server, and mappings of buffers."""
    process = Path(f"/proc/{mount.server.pid}")
    maps = (process / "maps").read_text(encoding="ascii", errors="replace")
    return len(list((process / "fd").iterdir())), maps.count("/memfd:hyptracefs")


def _read(path: Path, flags: int = 0) -> bytes:
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _write(path: Path, data: str) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data.encode("ascii"))


def _emit(mount: Mount, events: int) -> None:
    for number in range(events):
        _write(mount.path / "remotes/hypervisor/write_event", str(number))


# --- loading ----------------------------------------------------------------------------------


def _open_pipe(mount: Mount) -> None:
    os.close(os.open(mount.top / "trace_pipe", os.O_RDONLY))


def _open_raw_of_a_cpu(mount: Mount) -> None:
    os.close(os.open(mount.top / "per_cpu/cpu1/trace_pipe_raw", os.O_RDONLY))


def _trace(mount: Mount) -> None:
    try:
        _write(mount.top / "tracing_on", "1")
        _emit(mount, 1)
    finally:
        _write(mount.top / "tracing_on", "0")
        _write(mount.top / "trace", "")


@pytest.mark.parametrize("request_", [_open_pipe, _open_raw_of_a_cpu, _trace])
def test_what_cannot_be_loaded_is_not_loaded(
    tmp_path: Path, request_: Callable[[Mount], None]
) -> None:
    with failing(tmp_path, "cpus=2,workload=idle") as (mount, faults):
        mount.write("events/hypervisor/selftest/enable", "1")
        (mount.path / "events/hypervisor/selftest/filter").write_text("id < 5", encoding="ascii")
        request_(mount)
        until(lambda: not held(mount)[1], "the buffer to be given back")
        before = held(mount)

        def after() -> None:
            until(lambda: mount.read("buffer_size_kb") == "7 (unloaded)\n", "unloaded")
            until(lambda: held(mount) == before, "what it had taken to be given back")
            request_(mount)

        assert failures(faults, lambda: request_(mount), after) > 5


# --- reading, with a buffer that has events ------------------------------------------------------


def _spliced(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    reading, writing = os.pipe()
    try:
        with suppress(BlockingIOError):
            os.splice(fd, writing, 4096)
    finally:
        for each in (fd, reading, writing):
            os.close(each)


def _blocked(mount: Mount) -> None:
    """Reads what comes after it has begun to wait."""
    while True:
        with suppress(BlockingIOError):
            while _read(mount.top / "trace_pipe", os.O_NONBLOCK):
                pass
            continue
        break
    fd = os.open(mount.top / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert not poll.poll(0)
        _emit(mount, 1)
        assert poll.poll(1000 * PATIENCE_S)
        os.read(fd, 4096)
    finally:
        os.close(fd)


def _filtered(mount: Mount) -> None:
    """A filter that cannot be applied is not shown either."""
    path = mount.path / "events/hypervisor/selftest/filter"
    _write(path, "0")
    try:
        _write(path, "id != 77")
    except OSError:
        assert path.read_text(encoding="ascii") == "none\n"
        raise
    assert path.read_text(encoding="ascii") == "id != 77\n"


_READING: dict[str, Callable[[Mount], object]] = {
    "text": lambda mount: _read(mount.top / "trace_pipe"),
    "pages": lambda mount: _read(mount.top / "trace_pipe_raw"),
    "a splice": lambda mount: _spliced(mount.top / "trace_pipe_raw"),
    "trace": lambda mount: _read(mount.path / "remotes/hypervisor/trace"),
    "length": lambda mount: (mount.path / "remotes/hypervisor/trace").stat().st_size,
    "statistics": lambda mount: _read(mount.top / "statistics"),
    "stats": lambda mount: _read(mount.top / "per_cpu/cpu0/stats"),
    "a filter": _filtered,
    "waiting": _blocked,
}


@pytest.mark.parametrize("name", _READING)
def test_reading_fails_and_goes_on(tmp_path: Path, name: str) -> None:
    with failing(tmp_path, "cpus=2,workload=idle") as (mount, faults):
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        _emit(mount, 3)
        before = held(mount)

        def request() -> object:
            return _READING[name](mount)

        def after() -> None:
            _emit(mount, 3)
            assert mount.read("tracing_on") == "1\n"
            request()
            _emit(mount, 3)

        failures(faults, request, after)
        assert "host readers 0\n" in mount.read("statistics")
        mount.write("tracing_on", "0")
        mount.write("trace", "")
        until(lambda: mount.read("buffer_size_kb") == "7 (unloaded)\n", "unloaded")
        until(lambda: held(mount)[1] == before[1] - 1, "the buffer to be given back")


def test_a_long_trace_fails_and_goes_on(tmp_path: Path) -> None:
    """One that is made in a thread."""
    with failing(tmp_path, "cpus=2,workload=storm:100000") as (mount, faults):
        mount.trace(size_kb=1024)
        path = mount.path / "remotes/hypervisor/trace"
        until(lambda: path.stat().st_size > 2 << 20, "events")
        mount.write("tracing_on", "0")
        assert failures(faults, lambda: _read(path), lambda: _read(path)) > 5
        mount.write("trace", "")
        until(lambda: mount.read("buffer_size_kb") == "1024 (unloaded)\n", "unloaded")
        until(lambda: not held(mount)[1], "the buffer to be given back")


# --- the machine has none for what libfuse needs --------------------------------------------------


def test_requests_that_there_is_no_room_for_are_answered_once_there_is(tmp_path: Path) -> None:
    """Of address space: large writes have to be kept until Python has seen them."""
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        pid = mount.server.pid
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        size = 1024 * int(re.search(r"VmSize:\s+(\d+)", status)[1])  # type: ignore[index]
        before = resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        command = ["dd", "if=/dev/zero", f"of={mount.top}/tracing_on", "bs=1M", "count=1"]
        writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
        reader = mount.cat("tracing_on")
        try:
            until(lambda: reader.poll() is not None or _asks(reader.pid), "it to be asked")
        finally:
            resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert reader.wait(timeout=PATIENCE_S) in (0, 1)  # read, or no memory
        for writer in writers:
            assert writer.communicate(timeout=PATIENCE_S)[1]
            assert writer.returncode == 1  # that is no number
        assert mount.read("tracing_on") == "0\n"


def _asks(pid: int) -> bool:
    """Whether a process waits for an answer of FUSE."""
    wchan = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")
    return "fuse" in wchan or "request_wait" in wchan


# --- the hypervisor dies -------------------------------------------------------------------------


def test_the_next_hypervisor_is_attached_to_or_later(tmp_path: Path) -> None:
    path = tmp_path / "hyp.sock"
    with (
        modelled(path, "--cpus=2") as first,
        failing(tmp_path, source=first.source) as (mount, faults),
    ):
        models = [first]
        mount.write("events/hypervisor/selftest/enable", "1")

        def begin() -> None:
            """Something to inherit, of one that is gone; and the next one."""
            mount.write("tracing_on", "1")
            _emit(mount, 3)
            models.pop().kill()
            models.append(Model(path, "--cpus=2"))

        def request() -> None:
            _read(mount.top / "trace_pipe")
            _write(mount.top / "tracing_on", "1")

        def after() -> None:
            _write(mount.top / "tracing_on", "1")
            begin()

        begin()
        try:
            assert failures(faults, request, after, (errno.ENOMEM, errno.ENODEV)) > 5
            assert held(mount)[1] == 1
        finally:
            models.pop().kill()


def test_a_number_counts_down_to_the_one_that_fails(tmp_path: Path) -> None:
    faults = Faults(tmp_path / "faults")
    assert not faults.due()
    faults.left = 3
    assert [faults.due() for _ in range(5)] == [False, False, True, False, False]
