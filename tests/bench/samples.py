"""What is measured: one reader at a time, and the CPU time of all who work for it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

BUILT = Path(__file__).parents[2] / "build" / "plain" / "tests" / "bench"
PAGE = 4096

_CPUCLOCK_SCHED = 2  # see clock_getcpuclockid(3): the clock of another process


@dataclass(frozen=True)
class Sample:
    """One reader, to the end of what there was."""

    nr_bytes: int
    reads: int
    wall_ns: int
    cpu_ns: int  # of the reader, and of the servers it waited for

    @property
    def pages(self) -> float:
        return self.nr_bytes / PAGE


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used, all its threads."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)


def pin(pids: Iterable[int], cpus: Iterable[int]) -> None:
    """Let all threads of the processes run on `cpus` only."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)


def read_all(file: Path, size: int, servers: Sequence[int], cpu: int, most: int = 0) -> Sample:
    """Read `file` by reads of `size` bytes on `cpu`, until nothing is there or `most` bytes."""
    command = ["taskset", "-c", str(cpu), str(BUILT / "bench_read"), str(file), str(size)]
    before = sum(map(cpu_ns, servers))
    printed = subprocess.run(
        [*command, *([str(most)] if most else [])], stdout=subprocess.PIPE, check=True
    ).stdout
    used = sum(map(cpu_ns, servers)) - before
    nr_bytes, reads, wall, own = map(int, printed.split())
    return Sample(nr_bytes, reads, wall, own + used)
