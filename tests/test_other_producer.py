"""A producer that shares no code with us, made from PROTOCOL.md: its events on the mount."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mounts import Line, Mount, can_mount, mounted, parse, until

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

ROOT = Path(__file__).parents[1]
PAGE = 4096
CPUS = 2
EVENTS = {7: "tick", 10: "mmio_write", 11: "vcpu_exit", 300: "vm_boot", 301: "dma_fault"}
COUNT = 60  # of each event on each CPU
OLDEST = -10  # value of the first tick

WIDTHS = ("byte", "odd", "word", "quad")
REASONS = ("halt", "mmio", "pio", "0x3")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producer, compiled."""
    binary = tmp_path_factory.mktemp("producer") / "other_producer"
    includes = [f"-I{ROOT / name / 'include'}" for name in ("hypervisor_model", "ringbuf_c")]
    source = ROOT / "tests" / "producer" / "other_producer.c"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["cc", *flags, *includes, str(source), "-o", str(binary)], check=True)
    return binary


class Vmm(NamedTuple):
    """A running producer."""

    process: subprocess.Popen[bytes]
    path: Path

    @property
    def source(self) -> str:
        return f"unix:{self.path}"

    def says(self, what: bytes) -> None:
        """Wait for a line of its stdout."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == what + b"\n"

    def all_written(self) -> None:
        """Wait until every CPU has written all its events."""
        for _ in range(CPUS):
            self.says(b"written")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(program: Path, path: Path, *options: str) -> Iterator[Vmm]:
    """A producer, gone afterwards whatever happens."""
    command = [str(program), "--rate=5000", *options, str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        vmm = Vmm(process, path)
        try:
            vmm.says(b"listening")
            yield vmm
        finally:
            vmm.kill()


def trace(mount: Mount, *, size_kb: int) -> None:
    mount.write("buffer_size_kb", str(size_kb))
    mount.write("events/enable", "1")
    mount.write("tracing_on", "1")


def read_ready(file: int) -> bytes:
    """What can be read within a moment."""
    if not select.select([file], [], [], 0.1)[0]:
        return b""
    try:
        return os.read(file, 1 << 20)
    except BlockingIOError:
        return b""


def read_until(mount: Mount, name: str, enough: Callable[[bytes], bool]) -> bytes:
    """All that a pipe has to give."""
    data = bytearray()

    def complete() -> bool:
        data.extend(read_ready(file))
        return enough(bytes(data))

    file = os.open(mount.top / name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        until(complete, f"events in {name}")
    finally:
        os.close(file)
    return bytes(data)


def read_lines(mount: Mount, name: str = "trace_pipe", *, cpus: int = CPUS) -> list[Line]:
    """Of a run without losses."""
    lines = cpus * len(EVENTS) * COUNT
    text = read_until(mount, name, lambda data: data.count(b"\n") >= lines)
    return parse(text.decode("ascii"))


def expected(count: int) -> list[str]:
    """What a CPU shows when it has each event for the `count`th time."""
    addr = 0xFEE00000FEE00000 + 8 * count
    return [
        f"tick value={count + OLDEST}",
        f"mmio_write addr={addr:x} value={count} size={WIDTHS[count % 4]}",
        f"vcpu_exit reason={REASONS[count % 4]} count={count}",
        f"vm_boot name=debian vcpus={count}",
        f"dma_fault flags={count % 4}",
    ]


EXPECTED = [what for count in range(COUNT) for what in expected(count)]


def assert_complete(lines: list[Line], cpus: set[int]) -> None:
    """Every event of these CPUs, once, and in order of time."""
    assert {line.cpu for line in lines} == cpus
    for cpu in cpus:
        assert [line.what for line in lines if line.cpu == cpu] == EXPECTED
    times = [line.usec for line in lines]
    assert times == sorted(times)


def boot_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@pytest.mark.parametrize("options", [(), ("--tsc",)], ids=["raw clock", "cpu counter"])
def test_text(program: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    with (
        running(program, tmp_path / "s", f"--count={COUNT}", *options) as vmm,
        mounted(tmp_path, source=vmm.source) as mount,
    ):
        before = boot_usec()
        trace(mount, size_kb=256)
        lines = read_lines(mount)
        assert_complete(lines, {0, 1})
        # The counter is calibrated in 0.1 s: a millisecond is generous.
        assert before - 1000 <= lines[0].usec <= lines[-1].usec <= boot_usec() + 1000


def test_one_cpu(program: Path, tmp_path: Path) -> None:
    with (
        running(program, tmp_path / "s", f"--count={COUNT}") as vmm,
        mounted(tmp_path, source=vmm.source) as mount,
    ):
        trace(mount, size_kb=256)
        assert_complete(read_lines(mount, "per_cpu/cpu1/trace_pipe", cpus=1), {1})
        assert_complete(read_lines(mount, "per_cpu/cpu0/trace_pipe", cpus=1), {0})


def page_events(page: bytes) -> list[tuple[int, bytes]]:
    """Time and payload of each event."""
    stamp, commit = struct.unpack_from("<QQ", page)
    assert commit <= PAGE - 16, "no events are missing"
    events, at = [], 16
    while at < 16 + commit:
        head, word = struct.unpack_from("<II", page, at)
        stamp += head >> 5
        if head & 31 == 30:
            stamp += word << 27
            at += 8
            continue
        assert head & 31 == 0
        events.append((stamp, page[at + 8 : at + 4 + word]))
        at += 4 + word
    return events


def pages(data: bytes) -> list[tuple[int, bytes]]:
    assert len(data) % PAGE == 0
    return [e for at in range(0, len(data), PAGE) for e in page_events(data[at : at + PAGE])]


def test_raw_pages(program: Path, tmp_path: Path) -> None:
    with (
        running(program, tmp_path / "s", f"--count={COUNT}") as vmm,
        mounted(tmp_path, source=vmm.source) as mount,
    ):
        trace(mount, size_kb=256)
        total = len(EVENTS) * COUNT
        name = "per_cpu/cpu0/trace_pipe_raw"
        events = pages(read_until(mount, name, lambda data: len(pages(data)) >= total))
    times = [stamp for stamp, _ in events]
    assert times == sorted(times)
    ids = [struct.unpack_from("<H", payload)[0] for _, payload in events]
    assert ids == list(EVENTS) * COUNT
    ticks = [struct.unpack_from("<q", payload, 8)[0] for _, payload in events[:: len(EVENTS)]]
    assert ticks == list(range(OLDEST, OLDEST + COUNT))


def fields(*lines: str) -> str:
    return "".join(f"\tfield:{line};\n" for line in lines)


def test_formats(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "s") as vmm, mounted(tmp_path, source=vmm.source) as mount:
        for number, name in EVENTS.items():
            assert int(mount.read(f"events/vmm/{name}/id")) == number
        common = fields("unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0")
        assert mount.read("events/vmm/tick/format") == (
            "name: tick\nID: 7\nformat:\n" + common + "\n"
            + fields("s64 value;\toffset:8;\tsize:8;\tsigned:1")
            + '\nprint fmt: "value=%lld", REC->value\n'
        )  # fmt: skip
        assert mount.read("events/vmm/vm_boot/format") == (
            "name: vm_boot\nID: 300\nformat:\n" + common + "\n"
            + fields(
                "u16 vcpus;\toffset:2;\tsize:2;\tsigned:0",
                "char name[16];\toffset:4;\tsize:16;\tsigned:0",
            )
            + '\nprint fmt: "name=%s vcpus=%u", REC->name, REC->vcpus\n'
        )  # fmt: skip
        # What is shown raw is said once, and nothing else is.
        warnings = re.findall(r"WARNING: event (\w+):.*shown raw", mount.log())
        assert warnings == ["dma_fault"]


def shows_end(data: bytes, count: int) -> bool:
    """Whether the last event of every CPU is there."""
    lines = data.decode("ascii").splitlines()
    events = [line for line in lines if f" vm_boot name=debian vcpus={count - 1}" in line]
    return len(events) == CPUS and lines[-1].endswith(expected(count - 1)[-1])


LOST = re.compile(r"CPU:(\d) \[LOST (\d+) EVENTS\]")


def test_what_is_lost_is_counted(program: Path, tmp_path: Path) -> None:
    many = 2000
    with (
        running(program, tmp_path / "s", f"--count={many}") as vmm,
        mounted(tmp_path, source=vmm.source) as mount,
    ):
        trace(mount, size_kb=16)
        vmm.all_written()
        data = read_until(mount, "trace_pipe", lambda data: shows_end(data, many))
    lost: Counter[int] = Counter()
    text = data.decode("ascii").splitlines()
    for cpu, number in LOST.findall(data.decode("ascii")):
        lost[int(cpu)] += int(number)
    shown = Counter(line.cpu for line in parse("\n".join(x for x in text if not LOST.match(x))))
    for cpu in range(CPUS):
        assert lost[cpu] > 0
        assert lost[cpu] + shown[cpu] == many * len(EVENTS)


def test_one_that_counts_nothing(program: Path, tmp_path: Path) -> None:
    with (
        running(program, tmp_path / "s", f"--count={COUNT}") as vmm,
        mounted(tmp_path, source=vmm.source) as mount,
    ):
        trace(mount, size_kb=256)
        vmm.all_written()
        lines = mount.read("statistics").splitlines()
        assert lines[0] == "hypervisor state uncounted"
        written = len(EVENTS) * COUNT
        for cpu in range(CPUS):
            assert any(line.startswith(f"host cpu{cpu} entries {written} ") for line in lines)
        assert_complete(read_lines(mount), {0, 1})


def test_killed_and_started_again(program: Path, tmp_path: Path) -> None:
    options = (program, tmp_path / "s", f"--count={COUNT}")
    with running(*options) as vmm, mounted(tmp_path, source=vmm.source) as mount:
        trace(mount, size_kb=256)
        vmm.all_written()
        vmm.kill()
        assert_complete(read_lines(mount), {0, 1})
        with pytest.raises(OSError, match="No such device"):
            mount.write("events/vmm/tick/enable", "0")
        with running(*options):
            mount.write("tracing_on", "1")
            assert_complete(read_lines(mount), {0, 1})


def test_the_next_host(program: Path, tmp_path: Path) -> None:
    with running(program, tmp_path / "s", f"--count={COUNT}") as vmm:
        with mounted(tmp_path / "first", source=vmm.source) as mount:
            mount.write("events/vmm/tick/enable", "1")
            mount.write("tracing_on", "1")
            mount.die()
        with mounted(tmp_path / "second", source=vmm.source) as mount:
            assert mount.read("events/enable") == "0\n"
            mount.write("events/vmm/mmio_write/enable", "1")
            mount.write("tracing_on", "1")
            vmm_lines = read_until(mount, "trace_pipe", lambda data: data.count(b"\n") > COUNT)
        assert {line.event for line in parse(vmm_lines.decode("ascii"))} == {"mmio_write"}
