"""scripts/bench WHAT...: what the way from an event to its reader costs."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.places import IN_C, IN_PYTHON, Kernel, Ours, constant, kernel, ours
from tests.bench.record import record
from tests.bench.rows import LONG, SHORT, Effort, Row
from tests.bench.samples import PAGE, Sample, cpu_ns, pin, read_all
from tests.bench.scale import scale
from tests.mounts import mounted

_MIB = 1 << 20
_CAT = 128 * 1024  # what cat reads at once


_KERNEL_KB = 8 << 10


# --- text ----------------------------------------------------------------------------------------


_Text = tuple[Sample, int]  # and how many events


def _text_kernel(peer: Kernel) -> _Text:
    events = peer.fill(_KERNEL_KB)
    return read_all(peer.path / "trace_pipe", _CAT, (), 0), events


def _text_ours(mount: Ours, reader_cpu: int) -> _Text:
    events = mount.fill()
    pin(mount.servers, [0])
    return read_all(mount.path / "trace_pipe", _CAT, mount.servers, reader_cpu), events


def _text_rows(case: str, ours: list[_Text], theirs: list[_Text], goal: str) -> Iterator[Row]:
    def cost(runs: list[_Text]) -> float | None:
        return min((sample.cpu_ns / events for sample, events in runs), default=None)

    def rate(runs: list[_Text]) -> float | None:
        return max((events / sample.wall_ns * 1e3 for sample, events in runs), default=None)

    for unit, figure, wanted in (
        ("ns CPU per event", cost, "<= 60 ns"),
        ("million events/s", rate, goal),
    ):
        yield Row("text", case, unit, figure(ours) or 0, wanted, "kernel", figure(theirs))


def _text(effort: Effort) -> Iterator[Row]:
    with ours("storm:max") as mount, mount.loaded(effort.size_kb), kernel() as peer:
        for case, reader, goal in (("one CPU", 0, ">= 15 times"), ("two CPUs", 1, ">= 8 times")):
            # In turns, so that a busy neighbour meets both.
            runs: list[_Text] = []
            theirs: list[_Text] = []
            for _ in range(effort.times):
                runs.append(_text_ours(mount, reader))
                if peer:
                    theirs.append(_text_kernel(peer))
            yield from _text_rows(case, runs, theirs, goal)


# --- raw -----------------------------------------------------------------------------------------

_RAW_SIZES = ((_MIB, "<= 0.6 times"), (_CAT, "<= 1.0 times"), (PAGE, ""))


def _cpu_per_page(sample: Sample) -> float:
    return sample.cpu_ns / sample.pages


def _raw_kernel(peer: Kernel, size: int) -> Sample:
    peer.fill(_KERNEL_KB)
    return read_all(peer.path / "per_cpu/cpu0/trace_pipe_raw", size, (), 0)


def _raw_ours(mount: Ours, size: int) -> Sample:
    mount.drain()
    mount.fill()
    pin(mount.servers, [0])
    most = min(size * 10_000, 1 << 40)
    return read_all(mount.path / "trace_pipe_raw", size, mount.servers, 0, most)


def _raw_rows(size: int, goal: str, mount: Ours, peer: Kernel | None, times: int) -> Iterator[Row]:
    runs, kernels = [], []
    constants: dict[str, list[Sample]] = {"pyfuse3, constant": [], "libfuse, constant": []}
    with constant(IN_PYTHON, 0) as python, constant(IN_C, 0) as c:
        for _ in range(times):
            runs.append(_raw_ours(mount, size))
            if peer:
                kernels.append(_raw_kernel(peer, size))
            for samples, (file, server) in zip(constants.values(), (python, c), strict=True):
                samples.append(read_all(file, size, [server], 0, min(size * 10_000, 256 * _MIB)))
    cost = min(map(_cpu_per_page, runs)) / 1000
    goals = {"kernel": goal, "pyfuse3, constant": "<= 1.25 times" if size == PAGE else ""}
    for peer_name, samples in {"kernel": kernels, **constants}.items():
        theirs = min(map(_cpu_per_page, samples), default=0) / 1000
        yield Row(
            "raw",
            f"reads of {size >> 10} KiB, one CPU",
            "us CPU per page",
            cost,
            goals.get(peer_name, ""),
            peer_name,
            theirs or None,
        )


def _raw(effort: Effort) -> Iterator[Row]:
    with ours("storm:max") as mount, mount.loaded(effort.size_kb), kernel() as peer:
        for size, goal in _RAW_SIZES:
            yield from _raw_rows(size, goal, mount, peer, effort.times)


# --- latency -------------------------------------------------------------------------------------

_TIME = re.compile(rb"[ \t](\d+)\.(\d{6}): ")


def _late_us(pipe: int, wanted: int) -> list[float]:
    """How old the last event of a read was when the reader had it."""
    late: list[float] = []
    while len(late) < wanted:
        text = os.read(pipe, _CAT)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        found = _TIME.findall(text)
        if found:
            seconds, usec = map(int, found[-1])
            late.append(float(now - seconds * 1_000_000 - usec))
    return late[1:]


def _late_kernel(peer: Kernel, wanted: int) -> list[float]:
    """Marks that another process makes, each 7 ms."""
    mark = f"import time\nwith open({str(peer.path / 'trace_marker')!r}, 'w') as f:\n"
    mark += " while True: f.write('x\\n'); f.flush(); time.sleep(0.007)\n"
    peer.write("trace", "")
    peer.write("tracing_on", "1")
    marker = subprocess.Popen([sys.executable, "-c", mark])
    pipe = os.open(peer.path / "trace_pipe", os.O_RDONLY)
    try:
        return _late_us(pipe, wanted)
    finally:
        os.close(pipe)
        marker.kill()
        marker.wait()
        peer.write("tracing_on", "0")


def _percentiles(late: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(late, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def _late_ours(wakeup: str, wanted: int) -> dict[str, float]:
    """One event each 7 ms on each CPU, as the marks."""
    with ours("storm:143", f"wakeup={wakeup}") as mount:
        mount.mount.trace()
        pipe = os.open(mount.path / "trace_pipe", os.O_RDONLY)
        late = _percentiles(_late_us(pipe, wanted))
        os.close(pipe)
        mount.drain()
    return late


_LATENCY_GOALS = {
    "doorbell": {"p50": "<= 1.5 times", "p99": "<= 2 times"},
    "poll": {"p50": "<= 250 us", "p99": "<= 1 ms"},
}


def _latency(effort: Effort) -> Iterator[Row]:
    wanted = int(effort.seconds * 100)
    for wakeup, goals in _LATENCY_GOALS.items():
        with kernel() as peer:
            theirs = _percentiles(_late_kernel(peer, wanted)) if peer else {}
        late = _late_ours(wakeup, wanted)
        for cut, goal in goals.items():
            case = f"143 events/s and CPU, {wakeup}, {cut}"
            unit = "us from event to reader"
            yield Row("latency", case, unit, late[cut], goal, "kernel", theirs.get(cut))


# --- idle ----------------------------------------------------------------------------------------


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def _percent_busy(pids: tuple[int, ...], seconds: float) -> float:
    before, start = sum(map(cpu_ns, pids)), time.monotonic_ns()
    time.sleep(seconds)
    return 100 * (sum(map(cpu_ns, pids)) - before) / (time.monotonic_ns() - start)


def _start() -> tuple[float, float]:
    """Seconds until it is mounted; and of CPU time, of the mount and its model."""
    with tempfile.TemporaryDirectory() as directory:
        start = time.monotonic()
        with mounted(Path(directory), "cpus=2") as mount:
            passed = time.monotonic() - start
            return passed, (cpu_ns(mount.server.pid) + cpu_ns(mount.model())) / 1e9


def _idle(effort: Effort) -> Iterator[Row]:
    starts = [_start() for _ in range(effort.times)]
    yield Row("idle", "start to mounted", "s", min(wall for wall, _ in starts), "<= 0.5 s")
    yield Row("idle", "start to mounted", "s CPU", min(used for _, used in starts))
    with ours("idle") as mount:
        unread = _percent_busy(mount.servers, effort.seconds)
        reader = mount.mount.blocked_cat("trace_pipe")
        blocked = _percent_busy(mount.servers, effort.seconds)
        server, model = map(_rss_mb, mount.servers)
        reader.kill()
        reader.wait()
    yield Row("idle", "nobody reads", "% of a CPU", unread, "<= 0.1 %")
    yield Row("idle", "a blocked reader", "% of a CPU", blocked, "<= 0.5 %")
    yield Row("idle", "memory of the mount", "MB", server, "<= 40 MB")
    yield Row("idle", "memory of the model", "MB", model, "<= 30 MB")


# --- all -----------------------------------------------------------------------------------------

_BENCHES: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "text": _text,
    "raw": _raw,
    "latency": _latency,
    "record": record,
    "idle": _idle,
    "scale": scale,
}
_ONLY_IF_ASKED = ("scale",)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(_BENCHES)}; all of them", default=[])
    parser.add_argument("--long", action="store_true", help="minutes; otherwise less than one")
    parser.add_argument("--table", action="store_true", help="as in the README, not as JSON")
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    unknown = set(arguments.what) - set(_BENCHES)
    if unknown:
        sys.exit(f"scripts/bench: no {', '.join(sorted(unknown))}: there are {list(_BENCHES)}")
    if arguments.table:
        print("| what | ours | peer | ratio | goal |\n|---|---|---|---|---|")
    for name in arguments.what or (name for name in _BENCHES if name not in _ONLY_IF_ASKED):
        for row in _BENCHES[name](LONG if arguments.long else SHORT):
            print(row.table() if arguments.table else row.json(), flush=True)


if __name__ == "__main__":
    main()
