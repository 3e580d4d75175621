"""Garbage over all that a hypervisor shares, while text, pages and `trace` are read by a mount.

The hypervisor is the model, and goes on writing events; the garbage comes from here, by way of
the descriptor that the mount has of its memory. HYPTRACEFS_HOSTILE_S makes it take longer.
(ringbuf_c/tests/test_hostile.c is the same for the reader alone, under sanitizers.)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until
from tests.soak import parse_text

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

PAGE = 4096
SECONDS = float(os.environ.get("HYPTRACEFS_HOSTILE_S", "4"))

# Of a data page: its time stamp, its commit, the first event; of a meta page: its counters.
_AIMED = (0, 8, 8, 8, 16, 20, 24, 32, 40, 48, 56, 64, 72)


def shared_memory(mount: Mount) -> mmap.mmap:
    """The buffer of the hypervisor, writable."""
    for file in Path(f"/proc/{mount.server.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "memfd:hyptracefs" in str(file.readlink()):
                fd = os.open(file, os.O_RDWR)
                try:
                    return mmap.mmap(fd, os.fstat(fd).st_size)
                finally:
                    os.close(fd)
    raise AssertionError("no memory is shared")


def _number(chance: random.Random) -> bytes:
    return struct.pack("<Q", chance.getrandbits(64) >> chance.randrange(64))


def _spoil(memory: mmap.mmap, chance: random.Random) -> None:
    page = chance.randrange(len(memory) // PAGE) * PAGE
    if chance.random() < 0.05:
        memory[page : page + PAGE] = chance.randbytes(PAGE)
        return
    at = page + (chance.choice(_AIMED) if chance.random() < 0.7 else 8 * chance.randrange(512))
    memory[at : at + 8] = _number(chance)


@contextlib.contextmanager
def spoiling(memory: mmap.mmap, seed: int) -> Iterator[list[int]]:
    """Garbage, until the end; gives how many times so far."""
    ended = threading.Event()
    times = [0]

    def spoil() -> None:
        chance = random.Random(seed)  # noqa: S311
        while not ended.is_set():
            for _ in range(50):
                _spoil(memory, chance)
            times[0] += 50
            ended.wait(0.001)

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def readers(mount: Mount) -> list[subprocess.Popen[bytes]]:
    forever = "while :; do {} > /dev/null 2>&1; done"
    commands = [
        ["cat", str(mount.top / "trace_pipe")],
        ["cat", str(mount.top / "per_cpu/cpu1/trace_pipe_raw")],
        ["dd", "bs=777", "status=none", f"if={mount.top}/trace_pipe_raw"],
        ["sh", "-c", forever.format(f"cat {mount.path}/remotes/hypervisor/trace")],
        ["sh", "-c", forever.format(f"cat {mount.top}/statistics {mount.top}/per_cpu/cpu0/stats")],
    ]
    return [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
        )
        for command in commands
    ]


def trace(mount: Mount) -> None:
    mount.write("buffer_size_kb", "32")
    mount.write("events/enable", "1")
    mount.write("tracing_on", "1")


@pytest.mark.parametrize("seed", [1, 2])
def test_garbage_ends_nothing(tmp_path: Path, seed: int) -> None:
    with mounted(tmp_path, "cpus=2,workload=storm:2000:all") as mount:
        trace(mount)
        memory = shared_memory(mount)
        running = readers(mount)
        try:
            with spoiling(memory, seed) as times:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    before = times[0]
                    assert mount.read("tracing_on") == "1\n"
                    until(lambda before=before: times[0] > before, "garbage")
                assert mount.server.poll() is None, mount.log()
        finally:
            for process in running:
                os.killpg(process.pid, 9)
            for process in running:
                process.wait(timeout=PATIENCE_S)
        memory.close()
        assert times[0] > 100
        # And with new pages all is as ever.
        mount.write("tracing_on", "0")
        mount.write("trace", "")
        until(lambda: "unloaded" in mount.read("buffer_size_kb"), "the buffer to be given back")
        trace(mount)
        got = parse_text(mount.cat_for(1, "trace_pipe"))
        assert got.events[0] > 0
        assert got.events[1] > 0
