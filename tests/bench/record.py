"""The highest rate of a storm on both CPUs of which nothing is lost on the way to somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.places import Kernel, Ours, kernel, ours
from tests.bench.rows import Effort, Row
from tests.bench.samples import BUILT
from tests.tools import HYPTRACE, on

_MILLION = 1_000_000
_LOWEST_RATE = {1408: 500_000, 7: 10_000}
_HIGHEST_RATE = 64 * _MILLION
# Wanted faster, a storm that makes no more than so many times as much is as fast as it can be.
_FASTER = 1.1
_MEMORY = Path("/dev/shm")  # noqa: S108 (where files cost no disk)


class Storm(NamedTuple):
    """Events/s and CPU: what was wanted, what was made; and how many were lost."""

    wanted: float
    made: float
    lost: int


class Order(NamedTuple):
    """What a recorder is to do; `out` is removed afterwards."""

    rate: int  # events/s and CPU
    size_kb: int
    seconds: float
    out: Path


_Try = Callable[[Order], Storm]
_Recorder = Callable[[Ours, Order], None]


# --- recorders -----------------------------------------------------------------------------------


def _run(*command: str) -> None:
    """What it says is not of interest: also trace-cmd's of files that it may not touch."""
    nowhere = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)


def _read(mount: Ours, order: Order) -> None:
    """1 MiB at once, into nothing."""
    mount.mount.write("buffer_size_kb", str(order.size_kb))
    readers = [
        subprocess.Popen(
            ["dd", f"if={mount.path}/per_cpu/cpu{cpu}/trace_pipe_raw", "bs=1M", "of=/dev/null"],
            stderr=subprocess.DEVNULL,
        )
        for cpu in (0, 1)
    ]
    try:
        for file in ("hyp_enter/enable", "hyp_exit/enable"):
            mount.mount.write(f"events/hypervisor/{file}", "1")
        mount.mount.write("tracing_on", "1")
        time.sleep(order.seconds)
        mount.mount.write("tracing_on", "0")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def _hyptrace_record(mount: Ours, order: Order) -> None:
    _run(
        *(*HYPTRACE, "record", "--mount", str(mount.mount.path), "-b", str(order.size_kb)),
        *("-e", "hyp_enter", "-e", "hyp_exit", "-o", str(order.out), "--force"),
        *("sleep", str(order.seconds)),
    )


def _trace_cmd(events: tuple[str, ...], order: Order, *command: str) -> list[str]:
    wanted = [word for event in events for word in ("-e", event)]
    return [
        # Without filters of processes: it looks for those of functions, which may be forbidden.
        *("trace-cmd", "record", "--no-filter", "-q", *wanted),
        *("-b", str(order.size_kb), "-o", str(order.out), *command),
    ]


def _trace_cmd_record(mount: Ours, order: Order) -> None:
    events = ("hypervisor:hyp_enter", "hypervisor:hyp_exit")
    command = _trace_cmd(events, order, "sleep", str(order.seconds))
    _run(*on(mount.mount.path, *command))


def _try_ours(record: _Recorder, order: Order) -> Storm:
    with ours(f"storm:{order.rate}") as mount:
        record(mount, order)
        # What the hypervisor says: the host forgets it with the buffer.
        made = mount.count("ever_written", "hypervisor") / order.seconds / 2
        return Storm(order.rate, made, mount.count("ever_overrun", "hypervisor"))


def _count(text: str, name: str) -> int:
    return sum(map(int, re.findall(rf"^{name}: (\d+)$", text, re.MULTILINE)))


def _try_kernel(peer: Kernel, order: Order) -> Storm:
    storm = f"{round(order.rate * order.seconds)}/{order.seconds}"
    command = _trace_cmd(
        ("syscalls:sys_exit_close",), order, str(BUILT / "bench_closes"), storm, "0", "1"
    )
    as_tracefs = (sys.executable, "-m", "tests.bench.as_tracefs", str(peer.path))
    _run(*as_tracefs, *command)
    # In the file: it has cleared the buffer.
    text = subprocess.run(
        ["trace-cmd", "report", "--stat", "-i", str(order.out)],
        check=True, stdout=subprocess.PIPE, encoding="utf-8", errors="replace",
    ).stdout  # fmt: skip
    lost = _count(text, "overrun") + _count(text, "dropped events")
    made = (_count(text, "read events") + _count(text, "entries") + lost) / order.seconds / 2
    return Storm(order.rate, made, lost)


# --- ladders -------------------------------------------------------------------------------------


def _lossless(attempt: _Try, size_kb: int, effort: Effort) -> float:
    """The highest rate of a ladder of which nothing is lost at the second try; 0: even at its foot.

    A step is missed when a neighbour has the CPU for longer than the buffer lasts. The ladder
    ends where the storm cannot go any faster, and says how fast it was.
    """
    best, rate = 0.0, _LOWEST_RATE[size_kb]
    while rate < _HIGHEST_RATE:
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
            order = Order(rate, size_kb, effort.seconds / 2, Path(directory) / "trace.dat")
            storms = [attempt(order)]
            if storms[0].lost or storms[0].made < _FASTER * best:
                storms.append(attempt(order))
        storm = min(storms, key=lambda storm: (storm.lost, -storm.made))
        if storm.lost:
            break
        faster = storm.made > _FASTER * best
        best = max(best, min(storm.wanted, storm.made))
        if not faster:
            break
        rate = int(rate * effort.step)
    return best / _MILLION


def _recorders() -> dict[str, _Recorder]:
    found: dict[str, _Recorder] = {"hyptrace record": _hyptrace_record}
    if shutil.which("trace-cmd"):
        found["trace-cmd record"] = _trace_cmd_record
    return found


def record(effort: Effort) -> Iterator[Row]:
    """Into memory, by reads of 1 MiB; and into a file, by recorders."""
    unit = "million events/s and CPU, lossless"
    for size_kb, goal in ((1408, ">= 10 million"), (7, ">= 0.3 million")):
        rate = _lossless(lambda order: _try_ours(_read, order), size_kb, effort)
        yield Row("record", f"{size_kb} KiB per CPU, reads of 1 MiB", unit, rate, goal)
    theirs = None
    with kernel() as peer:
        if peer is not None and shutil.which("trace-cmd"):
            theirs = _lossless(lambda order: _try_kernel(peer, order), 1408, effort)
    for name, recorder in _recorders().items():

        def attempt(order: Order, recorder: _Recorder = recorder) -> Storm:
            return _try_ours(recorder, order)

        rate = _lossless(attempt, 1408, effort)
        case, who = f"1408 KiB per CPU, {name}", "kernel, trace-cmd record"
        yield Row("record", case, unit, rate, ">= 1.0 times", who, theirs)
