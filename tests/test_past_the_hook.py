"""All by way of Python: past the hook into libfuse, or past its pump. All works, only slower."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from hyptracefs.ring_buffer import PAGE_SIZE
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
from tests.support import selftests

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

_NO_REQUESTS = "the hook into libfuse sees no requests: reading is slower than it could be"
_NO_OPENS = "the hook into libfuse sees no open files: of two processes that share one open pipe"

# The server, with past_the_hook.c loaded before all else.
_PAST = """
import os, sys
command = [sys.executable, "-W", "error", "-m", "hyptracefs", *sys.argv[2:]]
os.execve(sys.executable, command, {**os.environ, "LD_PRELOAD": sys.argv[1]})
"""

# The server; there is a file for /dev/fuse, but then none for the pump.
_NO_FILES = """
import os, sys
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from hyptracefs import serve
from hyptracefs.cli import main

init = serve.pyfuse3.init

def short_of_files(*arguments):
    limits = getrlimit(RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    setrlimit(RLIMIT_NOFILE, (free + 1, limits[1]))
    try:
        init(*arguments)
    finally:
        setrlimit(RLIMIT_NOFILE, limits)

serve.pyfuse3.init = short_of_files
sys.exit(main())
"""


class _Way(NamedTuple):
    """To go past the hook, and what is said of it; `defines`: of past_the_hook.c."""

    warnings: tuple[str, ...]
    defines: tuple[str, ...] = ()
    program: tuple[str, ...] = ()


_WAYS = {
    "requests": _Way((_NO_REQUESTS,), ("-DREQUESTS",)),
    "opens": _Way((_NO_OPENS,), ("-DOPENS",)),
    "both": _Way((_NO_OPENS, _NO_REQUESTS), ("-DREQUESTS", "-DOPENS")),
    "no files": _Way((_NO_REQUESTS,), program=("-c", _NO_FILES)),
    "-d": _Way((), program=("-m", "hyptracefs", "-d")),  # each request is to be logged
}


def _program(way: _Way, directory: Path) -> tuple[str, ...]:
    if way.program:
        return way.program
    library = directory / "past_the_hook.so"
    source = Path(__file__).parent / "past_the_hook.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, *way.defines, str(source), "-o", str(library)], check=True)
    return "-c", _PAST, str(library)


@contextmanager
def _past(way: _Way, directory: Path, options: str) -> Iterator[Mount]:
    program = _program(way, directory)
    with mounted(directory / "m", options, program=program) as mount:
        assert (_NO_REQUESTS in mount.log()) == (_NO_REQUESTS in way.warnings)
        yield mount


_each_way = pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS.keys())


@_each_way
def test_it_is_said_what_the_hook_does_not_see(way: _Way, tmp_path: Path) -> None:
    with _past(way, tmp_path, "cpus=2,workload=idle") as mount:
        warnings = [line for line in mount.log().splitlines() if "WARNING" in line]
    assert len(warnings) == len(way.warnings)
    for line, text in zip(warnings, way.warnings, strict=True):
        assert text in line


@_each_way
def test_the_session_of_the_readme(way: _Way, tmp_path: Path) -> None:
    with _past(way, tmp_path, "cpus=2") as mount:
        mount.trace(size_kb=1024)
        lines = parse(mount.cat_for(1, "per_cpu/cpu1/trace_pipe").decode())
        assert len(lines) > 1000
        heard = [line.what for line in lines]
        circle = [what for what in recorded() if what.startswith(("hyp_enter", "hyp_exit"))]
        assert is_replay(heard, circle)
        assert (mount.path / "remotes/hypervisor/trace").read_text(encoding="ascii")
        mount.write("tracing_on", "0")
        mount.write("trace", "")
        assert mount.read("buffer_size_kb") == "1024 (unloaded)\n"


def _emit(mount: Mount, *numbers: int) -> None:
    for number in numbers:
        (mount.path / "remotes/hypervisor/write_event").write_text(str(number), encoding="ascii")


@contextmanager
def _idle(way: _Way, directory: Path) -> Iterator[Mount]:
    """Traces what _emit() writes."""
    with _past(way, directory, "cpus=2,workload=idle") as mount:
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        yield mount


@_each_way
def test_who_waits_is_woken_and_can_be_killed(way: _Way, tmp_path: Path) -> None:
    with _idle(way, tmp_path) as mount:
        command = ["head", "-n", "1", str(mount.top / "trace_pipe")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as head:
            try:
                until(lambda: blocks_in_read(head.pid), "head to block")
                _emit(mount, 7)
                text = head.communicate(timeout=PATIENCE_S)[0].decode()
            finally:
                head.kill()
        assert [line.what for line in parse(text)] == selftests([7])
        readers = [mount.blocked_cat("trace_pipe"), mount.blocked_cat("trace_pipe_raw")]
        for reader in readers:
            reader.kill()
            reader.wait(timeout=PATIENCE_S)
        assert "host readers 0\n" in mount.read("statistics")
        left = mount.blocked_cat("trace_pipe")
    assert left.wait(timeout=PATIENCE_S) == 1  # the mount has ended


@_each_way
def test_who_polls_is_told_and_pages_are_spliced(way: _Way, tmp_path: Path) -> None:
    with _idle(way, tmp_path) as mount:
        text, raw = (
            os.open(mount.top / name, os.O_RDONLY | os.O_NONBLOCK)
            for name in ("trace_pipe", "trace_pipe_raw")
        )
        reading, writing = os.pipe()
        poll = select.poll()
        poll.register(text, select.POLLIN)
        assert not poll.poll(0)
        _emit(mount, 1)
        assert poll.poll(1000 * PATIENCE_S)
        assert [line.what for line in parse(os.read(text, 4096).decode())] == selftests([1])
        with pytest.raises(BlockingIOError):
            os.read(text, 4096)
        _emit(mount, 2)
        assert os.splice(raw, writing, PAGE_SIZE) == PAGE_SIZE
        for each in (text, raw, reading, writing):
            os.close(each)
