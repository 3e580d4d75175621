"""Who is measured: a mount of ours, the kernel's tracefs, file systems that answer constants."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.samples import BUILT, pin
from tests.mounts import Mount, mounted, until

KERNEL = Path("/sys/kernel/tracing")
_INSTANCE = "hyptracefs-bench"


class Ours:
    """A mount of the model."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.path = mount.top
        self.servers = (mount.server.pid, mount.model())

    def counts(self, name: str, who: str = "host") -> list[int]:
        """What the host, or the hypervisor, has counted of something on each CPU."""
        lines = re.findall(
            rf"^{who} cpu\d+ .*\b{name} (\d+)", self.mount.read("statistics"), re.MULTILINE
        )
        return list(map(int, lines))

    def count(self, name: str, who: str = "host") -> int:
        """On all CPUs."""
        return sum(self.counts(name, who))

    @contextlib.contextmanager
    def loaded(self, size_kb: int) -> Iterator[None]:
        """Buffers of `size_kb`, which stay: what is touched for the first time costs more."""
        self.mount.write("buffer_size_kb", str(size_kb))
        for event in ("hyp_enter", "hyp_exit"):
            self.mount.write(f"events/hypervisor/{event}/enable", "1")
        with (self.path / "trace_pipe").open("rb"):
            yield
            self.drain()

    def fill(self) -> int:
        """As much in the buffers as there is room for, tracing off. Returns events."""
        pin(self.servers[1:], [0, 1])
        before = self.count("overrun")
        self.mount.write("tracing_on", "1")
        until(lambda: self.count("overrun") > before, "the ring to be full")
        self.mount.write("tracing_on", "0")
        return self.count("unread")

    def drain(self) -> None:
        """Nothing unread, nothing loaded."""
        self.mount.write("tracing_on", "0")
        self.mount.write("trace", "")


@contextlib.contextmanager
def ours(workload: str, *options: str, cpus: int = 2) -> Iterator[Ours]:
    with (
        tempfile.TemporaryDirectory() as directory,
        mounted(Path(directory), f"cpus={cpus}", f"workload={workload}", *options) as mount,
    ):
        yield Ours(mount)


class Kernel:
    """An instance of the kernel's tracefs, where the end of close(2) is traced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("trace_clock", "boot")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="ascii")

    def count(self, name: str) -> int:
        stats = [file.read_text(encoding="ascii") for file in self.path.glob("per_cpu/*/stats")]
        return sum(int(re.findall(rf"{name}: (\d+)", text)[0]) for text in stats)

    def fill(self, size_kb: int) -> int:
        """About as much as there is room for, on CPUs 0 and 1. Returns events."""
        self.write("buffer_size_kb", str(size_kb))
        self.write("trace", "")
        self.write("events/syscalls/sys_exit_close/enable", "1")
        self.write("tracing_on", "1")
        events = size_kb * 1024 // 32
        subprocess.run([str(BUILT / "bench_closes"), str(events), "0", "1"], check=True)
        self.write("tracing_on", "0")
        self.write("events/syscalls/sys_exit_close/enable", "0")
        return self.count("entries")


@contextlib.contextmanager
def kernel() -> Iterator[Kernel | None]:
    """An instance of our own, gone afterwards; None where there is none to be had.

    It is in a mount namespace of its own that the kernel's tracefs is mounted: scripts/bench.
    """
    instance = KERNEL / "instances" / _INSTANCE
    with contextlib.suppress(OSError):
        subprocess.run(
            ["mount", "-t", "tracefs", "nodev", str(KERNEL)], check=False, capture_output=True
        )
        instance.mkdir()
    if not (instance / "events" / "syscalls").is_dir():
        yield None
        return
    try:
        yield Kernel(instance)
    finally:
        until(lambda: _removed(instance), "the instance to be unused")


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def constant(command: Sequence[str], cpu: int) -> Iterator[tuple[Path, int]]:
    """A file that is the same for ever, and who serves it."""
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen([*command, directory])
        file = Path(directory) / "data"
        try:
            until(file.exists, "the peer to be mounted")
            pin([server.pid], [cpu])
            yield file, server.pid
        finally:
            subprocess.run(["umount", directory], check=True)
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


IN_PYTHON = (sys.executable, "-m", "tests.bench.constant")
IN_C = (str(BUILT / "bench_constant"),)
