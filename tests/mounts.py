"""A mount that cannot leak: its own directory, its own server, checked at the end."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyptracefs.mount_table import FS_TYPE, mount_at

# How long a test waits for something that comes at once, before it calls it a hang.
PATIENCE_S = 20

RECORDING = Path(__file__).parents[1] / "hypervisor_model" / "data" / "pkvm-guest-session.txt"

# Warnings are errors, as in the tests themselves.
_PYTHON = (sys.executable, "-W", "error")

_LINE = re.compile(r"\[(\d{3})\]\t(?=[ \d]{5,}\.) *(\d+)\.(\d{6}): (\w+)(?: (.*))?")


@dataclass(frozen=True)
class Line:
    """A line of trace_pipe."""

    cpu: int
    usec: int
    event: str
    text: str

    @property
    def what(self) -> str:
        return f"{self.event} {self.text}"


def parse(text: str) -> list[Line]:
    """Lines of trace_pipe text. Raises ValueError for any that is malformed."""
    lines = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"malformed: {line!r}")
        usec = int(match[2]) * 1_000_000 + int(match[3])
        lines.append(Line(int(match[1]), usec, match[4], match[5] or ""))
    return lines


def recorded() -> list[str]:
    """What happens in the packaged session, in order."""
    return [line.what for line in parse(RECORDING.read_text(encoding="ascii"))]


def is_replay(heard: list[str], circle: list[str]) -> bool:
    """Whether `heard` is a piece of `circle` going round and round."""
    starts = (i for i, what in enumerate(circle) if what == heard[0])
    return any(
        all(what == circle[(start + i) % len(circle)] for i, what in enumerate(heard))
        for start in starts
    )


def until(holds: object, what: str) -> None:
    """Wait until `holds()` is true; fail if that does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.001)


_SYS_READ, _SYS_WRITE = {"x86_64": ("0", "1"), "aarch64": ("63", "64")}[platform.machine()]


def _blocks_in(pid: int, call: str) -> bool:
    """Whether a process waits for a FUSE server to answer its system call (see proc(5))."""
    waits = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii") == "request_wait_answer"
    calls = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii")
    return waits and calls.split()[0] == call


def blocks_in_read(pid: int) -> bool:
    """Whether a process waits for its read(2)."""
    return _blocks_in(pid, _SYS_READ)


def blocks_in_write(pid: int) -> bool:
    """Whether a process waits for its write(2)."""
    return _blocks_in(pid, _SYS_WRITE)


class Mount:
    """A mounted hypervisor, its server in the foreground."""

    def __init__(
        self,
        where: Path,
        log: Path,
        *options: str,
        source: str = "model",
        program: Sequence[str] = ("-m", "hyptracefs"),
    ) -> None:
        self.path = where
        self.top = where / "hypervisor"
        self._log = log
        command = [*_PYTHON, "-X", "faulthandler", *program, source, str(where)]
        with log.open("wb") as stderr:
            self.server = subprocess.Popen(
                [*command, "-f", *(f"-o{option}" for option in options)],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        until(lambda: self.server.poll() is not None or "mounted at" in self.log(), "mount")
        assert self.server.poll() is None, self.log()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.top / name).read_text(encoding="ascii")

    def write(self, name: str, text: str) -> None:
        """As the shell's echo does: open, write, close."""
        with (self.top / name).open("w", encoding="ascii") as file:
            file.write(text)

    def trace(self, *, size_kb: int = 64) -> None:
        """All that the session of the README does before it reads."""
        self.write("buffer_size_kb", str(size_kb))
        self.write("events/hypervisor/hyp_enter/enable", "1")
        self.write("events/hypervisor/hyp_exit/enable", "1")
        self.write("tracing_on", "1")

    def cat(self, name: str) -> subprocess.Popen[bytes]:
        """A reader in the background."""
        return subprocess.Popen(
            ["cat", str(self.top / name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def blocked_cat(self, name: str) -> subprocess.Popen[bytes]:
        """A reader that waits for events."""
        reader = self.cat(name)
        until(lambda: blocks_in_read(reader.pid), f"cat {name} to block")
        return reader

    def cat_for(self, seconds: float, name: str) -> bytes:
        """What `timeout SECONDS cat NAME` prints."""
        command = ["timeout", str(seconds), "cat", str(self.top / name)]
        return subprocess.run(command, capture_output=True, check=False).stdout

    def wait_ended(self) -> int:
        """Exit status of the server."""
        return self.server.wait(timeout=PATIENCE_S)

    def is_mounted(self) -> bool:
        mount = mount_at(str(self.path))
        return mount is not None and mount.fs_type == FS_TYPE

    def model(self) -> int:
        """The process of a model of its own."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        [child] = children.read_text(encoding="ascii").split()
        return int(child)

    def die(self) -> None:
        """Killed: the mount is dead and goes with it."""
        self.server.kill()
        self.server.wait()
        subprocess.run(["umount", "-l", str(self.path)], check=True)
        self.server.returncode = 0  # as it was meant

    def end(self) -> None:
        """As the test leaves it: the server ended, or ends now, cleanly."""
        if self.server.poll() is None:
            self.server.terminate()
        try:
            self.server.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.server.send_signal(signal.SIGABRT)  # faulthandler writes the stacks
            self.server.wait(timeout=PATIENCE_S)
            pytest.fail(f"the server does not end:\n{self.log()}")
        assert self.server.returncode == 0, self.log()
        assert not self.is_mounted()
        assert "a bug" not in self.log(), self.log()
        assert "Traceback" not in self.log(), self.log()


class Model:
    """A hyp-model that listens at `path`, in a process of its own."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [*_PYTHON, "-m", "hypervisor_model", f"--listen={path}", *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline().decode()
        assert "listening at" in first, first

    @property
    def source(self) -> str:
        return f"unix:{self.path}"

    def kill(self) -> None:
        """As nobody would like to end."""
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def end(self) -> int:
        """Exit status."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)


@contextlib.contextmanager
def modelled(path: Path, *options: str) -> Iterator[Model]:
    """A hyp-model, gone afterwards whatever happens; one that is left running ends cleanly."""
    model = Model(path, *options)
    try:
        yield model
        if model.process.poll() is None:
            assert model.end() == 0
    finally:
        model.kill()


def can_mount() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


@contextlib.contextmanager
def mounted(
    directory: Path,
    *options: str,
    source: str = "model",
    program: Sequence[str] = ("-m", "hyptracefs"),
) -> Iterator[Mount]:
    """A mount under `directory`, gone afterwards whatever happens.

    `program`: what Python is to run, for a server that is broken on purpose.
    """
    where = directory / "mnt"
    where.mkdir(parents=True)
    mount = Mount(where, directory / "log", *options, source=source, program=program)
    try:
        yield mount
        mount.end()
    finally:
        mount.server.kill()
        mount.server.wait()
        if mount.is_mounted():
            subprocess.run(["umount", "-l", str(where)], check=True)
