"""A user who means no good: whatever they do, the mount answers, and has no bug to log.

mounted() looks for "a bug" and tracebacks in the log when each test ends.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.mounts import PATIENCE_S, Mount, blocks_in_read, can_mount, mounted, until
from tests.support import raises_errno

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, "cpus=2,workload=idle,max_buffer_mb=32") as mount:
        yield mount
        assert mount.read("buffer_size_kb").endswith("loaded)\n")  # it still answers


def descriptors(mount: Mount) -> int:
    return len(list(Path(f"/proc/{mount.server.pid}/fd").iterdir()))


def everything(mount: Mount) -> list[Path]:
    return [Path(top) / name for top, _, names in os.walk(mount.path) for name in names]


_REFUSALS = {
    errno.EACCES, errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOSYS, errno.ENOTTY,
    errno.EOPNOTSUPP, errno.EPERM,
}  # fmt: skip


def fails(attempt: Callable[[], object]) -> int:
    """The errno; 0 if it does not."""
    try:
        attempt()
    except OSError as error:
        return error.errno or 0
    return 0


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"\xff\xfe\x80", errno.ENOENT),
        (b"\n\r\t\x01", errno.ENOENT),
        (b"%s%n%x", errno.ENOENT),
        (b"x" * 255, errno.ENOENT),
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"x/" * 1500, errno.ENOENT),
        (b"x/" * 2048, errno.ENAMETOOLONG),
        (b"tracing_on/..", errno.ENOTDIR),
        (b"per_cpu/cpu1/../cpu2", errno.ENOENT),
        (b"per_cpu/cpu01", errno.ENOENT),
        (b"per_cpu/cpu-1", errno.ENOENT),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_names_that_are_not_there(idle: Mount, name: bytes, number: int) -> None:
    with raises_errno(number):
        os.stat(os.fsencode(idle.top) + b"/" + name)  # noqa: PTH116


def test_names_at_random(idle: Mount) -> None:
    chance = random.Random(1)  # noqa: S311
    for _ in range(2000):
        name = bytes(chance.randrange(1, 256) for _ in range(chance.randrange(1, 255)))
        name = name.replace(b"/", b"_")
        if name.strip(b".") == b"":
            continue
        with raises_errno(errno.ENOENT):
            os.stat(os.fsencode(idle.top) + b"/" + name)  # noqa: PTH116


# --- calls that a tracing directory has no use for ---------------------------------------------


def _ioctls(fd: int) -> Iterator[Callable[[], object]]:
    for request in (0, 0x5401, 0xFFFFFFFF, 0xC0044601):
        yield partial(fcntl.ioctl, fd, request, bytes(1024))


def test_ioctl_attributes_and_lengths_of_each_file(idle: Mount) -> None:
    for path in everything(idle):
        if not path.stat().st_mode & 0o400:
            continue
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            attempts: list[Callable[[], object]] = [
                *_ioctls(fd),
                partial(os.truncate, fd, 1 << 40),
                partial(os.setxattr, path, "user.x", b"1"),
                partial(os.posix_fallocate, fd, 0, 1 << 40),
            ]
            for attempt in attempts:
                assert fails(attempt) in _REFUSALS
            with suppress(OSError, ValueError):
                mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
        finally:
            os.close(fd)


def test_creating_linking_and_renaming(idle: Mount) -> None:
    before = sorted(os.listdir(idle.top))  # noqa: PTH208
    there, new = idle.top / "trace", idle.top / "new"
    for attempt in (
        partial(os.mkfifo, new),
        partial(os.mknod, new, 0o20666, os.makedev(1, 3)),  # a device
        partial(new.symlink_to, "/etc/shadow"),
        partial(os.link, there, new),
        partial(there.rename, new),
        partial((idle.top / "per_cpu").rmdir),
        partial(os.chown, there, 1, 1),
        partial(there.chmod, 0o777),
        partial(new.mkdir),
        partial(os.removexattr, there, "user.x"),
    ):
        assert fails(attempt) in _REFUSALS
    assert sorted(os.listdir(idle.top)) == before  # noqa: PTH208


# --- data -------------------------------------------------------------------------------------


def writable(mount: Mount) -> list[Path]:
    return [path for path in everything(mount) if path.stat().st_mode & 0o200]


def test_garbage_of_any_size_written_to_everything(idle: Mount) -> None:
    """Of the answers, each is an errno; what took it is put back by itself or stays harmless."""
    chance = random.Random(2)  # noqa: S311
    answers = set()
    for path in writable(idle):
        for size in (1, 100, 4095, 4097, 300_000):
            data = chance.choice([bytes(size), chance.randbytes(size), b"9" * size])
            try:
                with path.open("r+b" if path.stat().st_mode & 0o400 else "wb", buffering=0) as file:
                    file.write(data)
            except OSError as error:
                answers.add(error.errno)
    assert answers <= {
        errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.ENOENT, errno.EPERM, errno.EBUSY,
        errno.ENOMEM, errno.ENODEV,
    }  # fmt: skip
    assert errno.EINVAL in answers


def test_reading_at_odd_places(idle: Mount) -> None:
    for name in ("tracing_on", "trace", "events/header_page", "statistics"):
        fd = os.open(idle.top / name, os.O_RDONLY)
        try:
            for offset in (1 << 31, (1 << 63) - 4096):
                try:
                    assert os.pread(fd, 100, offset) == b""
                except OSError as error:
                    assert error.errno in (errno.EPERM, errno.EINVAL, errno.EOVERFLOW)  # noqa: PT017
        finally:
            os.close(fd)


def test_a_buffer_that_there_is_no_room_for(idle: Mount) -> None:
    idle.write("buffer_size_kb", str(64 * 1024))
    for name in ("tracing_on", "trace_pipe"):
        with raises_errno(errno.ENOMEM):
            if name == "trace_pipe":
                os.close(os.open(idle.top / name, os.O_RDONLY))
            else:
                idle.write(name, "1")
    idle.write("buffer_size_kb", "7")
    idle.write("tracing_on", "1")


def test_output_to_a_full_disk(idle: Mount) -> None:
    done = subprocess.run(
        ["sh", "-c", "cat events/header_page > /dev/full"],
        cwd=idle.top,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "No space left" in done.stderr


# --- very many ----------------------------------------------------------------------------------


def test_thousands_of_open_files(idle: Mount) -> None:
    before = descriptors(idle)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    wanted = min(3000, hard - 100) if hard != resource.RLIM_INFINITY else 3000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 100), hard))
    files = []
    try:
        for number in range(wanted):
            name = ("tracing_on", "trace_pipe", "trace_pipe_raw")[number % 3]
            files.append(os.open(idle.top / name, os.O_RDONLY | os.O_NONBLOCK))
        assert idle.read("tracing_on") == "0\n"
        assert descriptors(idle) < before + 10  # an open file of theirs is none of ours
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: idle.read("buffer_size_kb") == "7 (unloaded)\n", "all to be closed")


def test_a_user_at_their_limit_of_open_files(idle: Mount) -> None:
    script = (
        "import os, sys, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))\n"
        "opened = []\n"
        "try:\n"
        "    while True: opened.append(os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK))\n"
        "except OSError as error: print(error.errno)\n"
    )
    command = [sys.executable, "-c", script, str(idle.top / "trace_pipe")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    assert int(done.stdout) == errno.EMFILE
    until(lambda: idle.read("buffer_size_kb") == "7 (unloaded)\n", "all to be closed")


def test_a_server_at_its_limit_of_open_files(idle: Mount) -> None:
    """A buffer needs a descriptor; an open of it fails, and the rest works."""
    pid = idle.server.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match=r"trace_pipe") as caught:
            os.open(idle.top / "trace_pipe", os.O_RDONLY)
        assert caught.value.errno in (errno.EMFILE, errno.ENOMEM)
        assert idle.read("tracing_on") == "0\n"
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    os.close(os.open(idle.top / "trace_pipe", os.O_RDONLY))


def test_open_and_close_for_ever_leaves_nothing(idle: Mount) -> None:
    def open_all() -> None:
        for name in ("trace_pipe", "per_cpu/cpu1/trace_pipe_raw", "statistics"):
            os.close(os.open(idle.top / name, os.O_RDONLY))

    open_all()  # threads, and libfuse, make themselves at home
    before = descriptors(idle)
    for _ in range(100):
        open_all()
    until(lambda: descriptors(idle) <= before, "all to be closed")


# --- the server is stopped -----------------------------------------------------------------


def test_readers_of_a_stopped_server_can_be_killed_and_others_go_on(idle: Mount) -> None:
    reader = idle.blocked_cat("trace_pipe")
    os.kill(idle.server.pid, signal.SIGSTOP)
    late = None
    try:
        late = idle.cat("tracing_on")  # asks while nobody answers
        reader.kill()
        os.kill(idle.server.pid, signal.SIGCONT)
        reader.wait(timeout=PATIENCE_S)
        assert late.wait(timeout=PATIENCE_S) == 0
    finally:
        os.kill(idle.server.pid, signal.SIGCONT)
        for process in (reader, late):
            if process is not None:
                process.kill()
                process.wait()
    again = idle.blocked_cat("trace_pipe")
    assert blocks_in_read(again.pid)
    again.kill()
    again.wait()
