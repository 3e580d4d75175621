"""Figures of the trust that a mount deserves: readers killed while blocked, either side killed.

    python -m tests.trust readers TIMES [SEED]
    python -m tests.trust kills TIMES [SEED]

`readers`: how long a blocked reader takes to be gone once a signal that ends it is sent, and
whether the mount counts it no more. `kills`: the hypervisor and the server are killed in turn,
TIMES each, at a moment that nobody has chosen, while readers read and control files are written;
how long it takes from the start of the next one until it traces, and whether anything hangs.
Exit status: 0 within the limits, 1 not.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.mounts import PATIENCE_S, Model, Mount, blocks_in_read, modelled, mounted, until

READER_GONE_MS = 50
RECOVERED_MS = 1000

_PIPES = ("trace_pipe", "per_cpu/cpu0/trace_pipe", "trace_pipe_raw", "per_cpu/cpu1/trace_pipe_raw")
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AT_ONCE = 20  # readers that wait beside the one that is killed


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


@dataclass
class Times:
    """How long something took, each time, in milliseconds."""

    what: str
    limit_ms: float
    taken: list[float] = field(default_factory=list)

    def took_since(self, begin: float) -> None:
        """Seconds of time.monotonic()."""
        self.taken.append((time.monotonic() - begin) * 1000)

    @property
    def slow(self) -> int:
        """How many took longer than they may."""
        return sum(taken > self.limit_ms for taken in self.taken)

    def __str__(self) -> str:
        ordered = sorted(self.taken)
        return (
            f"{self.what}: {len(ordered)}; median {ordered[len(ordered) // 2]:.1f} ms, "
            f"99 %: {ordered[len(ordered) * 99 // 100]:.1f} ms, slowest {ordered[-1]:.1f} ms; "
            f"{self.slow} over {self.limit_ms:g} ms"
        )


# --- readers --------------------------------------------------------------------------------------


def _reader(path: Path) -> int:
    """A process that does nothing but read; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in _SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)
        fd = os.open(path, os.O_RDONLY)
        while os.read(fd, 65536):
            pass
    finally:
        os._exit(1)


def _kill_one(pid: int, number: signal.Signals, times: Times) -> None:
    begin = time.monotonic()
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    times.took_since(begin)
    if os.waitstatus_to_exitcode(status) != -number:
        raise AssertionError(f"a reader has ended with status {status}, and not by {number}")


def kill_readers(mount: Mount, times_: int, seed: int) -> Times:
    """So many blocked readers of `mount`, where nothing happens, one after the other."""
    chance = random.Random(seed)  # noqa: S311
    times = Times("readers killed while blocked", READER_GONE_MS)
    readers: list[int] = []
    try:
        while len(times.taken) < times_:
            while len(readers) < min(_AT_ONCE, times_ - len(times.taken)):
                readers.append(_reader(mount.top / chance.choice(_PIPES)))
            for pid in readers:
                until(lambda pid=pid: blocks_in_read(pid), "a reader to block")
            chance.shuffle(readers)
            for _ in range(min(len(readers), _AT_ONCE // 2)):
                _kill_one(readers.pop(), chance.choice(_SIGNALS), times)
            assert f"host readers {len(readers)}\n" in mount.read("statistics")
    finally:
        for pid in readers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return times


# --- either side ---------------------------------------------------------------------------------

_GONE = {errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EBUSY}


class Sides:
    """A hypervisor, a mount that is attached to it, and what goes on while one of them dies."""

    def __init__(self, directory: Path, model: Model, mount: Mount, seed: int) -> None:
        self.model = model
        self.mount = mount
        self._directory = directory
        self._chance = random.Random(seed)  # noqa: S311
        self.recovered = {
            "hypervisor": Times("hypervisors killed; until the next one traces", RECOVERED_MS),
            "server": Times("servers killed; until the next one traces", RECOVERED_MS),
        }

    def _write_controls(self, seed: int) -> None:
        """Until somebody is not there any more."""
        chance = random.Random(seed)  # noqa: S311
        end = time.monotonic() + 0.1
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                name, text = chance.choice(
                    [
                        ("tracing_on", "0"), ("tracing_on", "1"), ("trace", ""),
                        ("events/enable", "1"), ("buffer_size_kb", "64"),
                        ("events/hypervisor/hyp_enter/enable", "0"),
                    ]
                )  # fmt: skip
                try:
                    self.mount.write(name, text)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """Readers, and somebody who writes control files; all have to end afterwards."""
        readers = [self.mount.cat(name) for name in self._chance.sample(_PIPES, 2)]
        trace = f"while cat {self.mount.path}/remotes/hypervisor/trace; do :; done"
        readers.append(
            subprocess.Popen(
                ["sh", "-c", trace], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                process_group=0,
            )
        )  # fmt: skip
        writer = threading.Thread(target=self._write_controls, args=[self._chance.random()])
        writer.start()
        try:
            yield
        finally:
            writer.join(PATIENCE_S)
            for reader in readers:
                reader.kill()
                reader.wait(PATIENCE_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(readers[-1].pid, signal.SIGKILL)
        assert not writer.is_alive(), "a write hangs"

    def _trace(self) -> None:
        """Until an event of the one that is there now has been read."""
        self.mount.write("tracing_on", "1")  # attaches, where the one before is gone
        self.mount.write("events/enable", "1")
        with (self.mount.top / "trace_pipe").open("rb", buffering=0) as pipe:
            assert pipe.read(4096)

    def kill(self, victim: str) -> None:
        """One turn."""
        self._trace()
        process = self.model.process if victim == "hypervisor" else self.mount.server
        with self._busy():
            time.sleep(self._chance.uniform(0, 0.1))
            process.kill()
            process.wait()
        if victim == "hypervisor":
            self.model.kill()
            begin = time.monotonic()
            self.model = Model(self.model.path, "--cpus=2", "--workload=storm:2000")
        else:
            begin = time.monotonic()
            self.mount = Mount(self.mount.path, self._directory / "log", source=self.model.source)
        self._trace()
        self.recovered[victim].took_since(begin)


@contextlib.contextmanager
def both_sides(seed: int) -> Iterator[Sides]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = directory / "hyp.sock"
        with modelled(path, "--cpus=2", "--workload=storm:2000") as model:
            where = directory / "mnt"
            where.mkdir()
            sides = Sides(
                directory, model, Mount(where, directory / "log", source=model.source), seed
            )
            try:
                yield sides
                sides.mount.end()
            finally:
                sides.mount.server.kill()
                sides.mount.server.wait()
                if sides.mount.is_mounted():
                    subprocess.run(["umount", "-l", str(where)], check=True)
                sides.model.kill()


def kill_sides(times: int, seed: int) -> list[Times]:
    """Each side so many times, in turns."""
    with both_sides(seed) as sides:
        for _ in range(times):
            sides.kill("hypervisor")
            sides.kill("server")
        return list(sides.recovered.values())


def _readers(times: int, seed: int) -> list[Times]:
    with tempfile.TemporaryDirectory() as directory:
        options = "cpus=2,workload=idle"
        with mounted(Path(directory), options) as mount:
            return [kill_readers(mount, times, seed)]


_FIGURES = {"readers": _readers, "kills": kill_sides}


def main() -> int:
    parser = argparse.ArgumentParser(prog="trust", description=__doc__.partition("\n")[0])
    parser.add_argument("figure", choices=_FIGURES)
    parser.add_argument("times", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    measured = _FIGURES[arguments.figure](arguments.times, arguments.seed)
    for each in measured:
        _say(str(each))
    return 1 if any(each.slow for each in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
