"""What several tests need: remotes that run, files, lines of text, golden output."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trio.testing

from hypervisor_model import Hypervisor, RemoteTest, Step, load_workload
from hyptracefs.events import Event, compile_events
from hyptracefs.files import OpenFile
from hyptracefs.hypercalls import Hypercalls, Traits
from hyptracefs.remote import Reader, Remote, Settings
from hyptracefs.ring_buffer import MAX_SPARES
from hyptracefs.tree import Tree

GOLDEN = Path(__file__).parent / "golden"

# The catalogue, in the order of ids.
EVENTS = (
    "host_ffa_call",
    "host_hcall",
    "host_mem_abort",
    "host_smc",
    "hyp_enter",
    "hyp_exit",
    "hyp_printk",
    "iommu_idmap",
    "psci_mem_protect",
    "selftest",
    "vcpu_illegal_trap",
)


def run_jumping(
    main: Callable[[], Awaitable[object]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> object:
    """trio.run() for tests that are not to wait for any sleep of trio."""
    clock = clock or trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=instruments)


# --- remotes ------------------------------------------------------------------------------


class Calls(Hypercalls):
    """Hypercalls that are logged; those in `refused` fail with EIO, by `name` or `name(id)`."""

    def __init__(self, conduit: int, cpus: int, traits: Traits | None = None) -> None:
        super().__init__(conduit, cpus, traits=traits or Traits(max_spares=MAX_SPARES))
        self.log: list[str] = []
        self.refused: set[str] = set()

    def _note(self, call: str) -> None:
        self.log.append(call)
        if call in self.refused:
            raise OSError(errno.EIO, f"{call} refused")

    def load(self, desc_offset: int, desc_size: int, memory: int, spares: int) -> None:
        self._note("load")
        super().load(desc_offset, desc_size, memory, spares)

    def unload(self) -> None:
        self._note("unload")
        super().unload()

    def enable(self, on: bool) -> None:
        self._note(f"enable({on:d})")
        super().enable(on)

    def reset(self, cpu: int) -> None:
        self._note(f"reset({cpu})")
        super().reset(cpu)

    def enable_event(self, event_id: int, on: bool) -> None:
        self._note(f"enable_event({event_id})")
        super().enable_event(event_id, on)


class Running(NamedTuple):
    """A remote whose run() runs, and its way to the hypervisor."""

    remote: Remote
    calls: Calls
    scope: trio.CancelScope  # of run()


@contextmanager
def hypervisor(workload: str = "idle", cpus: int = 2) -> Iterator[Hypervisor]:
    with Hypervisor(cpus, load_workload(workload, cpus)) as made:
        yield made


def make_remote(
    of: Hypervisor, calls: Hypercalls, poll_ms: int = 10, max_bytes: int | None = None
) -> Remote:
    events = compile_events(of.events, of.symbol_tables, of.format_tables)
    return Remote("hypervisor", calls, events, Settings(poll_ms, max_bytes))


@asynccontextmanager
async def _run(remote: Remote, calls: Calls) -> AsyncIterator[Running]:
    async with trio.open_nursery() as nursery:
        await nursery.start(remote.run)
        yield Running(remote, calls, nursery.cancel_scope)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(
    workload: str = "idle", cpus: int = 2, poll_ms: int = 10, max_bytes: int | None = None
) -> AsyncIterator[Running]:
    with hypervisor(workload, cpus) as of:
        calls = Calls(of.conduit, of.cpus)
        async with _run(make_remote(of, calls, poll_ms, max_bytes), calls) as made:
            yield made


@asynccontextmanager
async def running_test_remote(cpus: int = 2) -> AsyncIterator[Running]:
    with RemoteTest(cpus) as of:
        calls = Calls(of.conduit, of.cpus)
        async with _run(Remote("test", calls, compile_events(of.events, ())), calls) as made:
            yield made


def event_named(remote: Remote, name: str) -> Event:
    [event] = (event for event in remote.events if event.name == name)
    return event


async def start_with(remote: Remote, *names: str, size_kb: int | None = None) -> None:
    """Trace the events of these names."""
    if size_kb is not None:
        await remote.set_size(size_kb)
    for name in names:
        remote.enable_event(event_named(remote, name), on=True)
    await remote.start_tracing()


def write_ids(remote: Remote, ids: Collection[int], cpu: int = 0) -> None:
    for number in ids:
        remote.write_event(cpu, number)


def assert_conserved(remote: Remote) -> None:
    """The law of conservation, on each CPU."""
    for stats in remote.statistics().cpus:
        assert stats.entries == stats.read + stats.overrun + stats.unread


# --- text -----------------------------------------------------------------------------------


class Line(NamedTuple):
    cpu: int
    usec: int
    text: str  # name and what is printed


class LostLine(NamedTuple):
    cpu: int
    lost: int


_LINE = re.compile(r"\[(\d{3,})\]\t(?=[ \d]{5,}\.)( *\d+)\.(\d{6}): (.*)")
_LOST = re.compile(r"CPU:(\d+) \[LOST (\d+) EVENTS\]")


def parse_line(line: str) -> Line | LostLine:
    if match := _LOST.fullmatch(line):
        return LostLine(int(match[1]), int(match[2]))
    match = _LINE.fullmatch(line)
    assert match, line
    return Line(int(match[1]), int(match[2]) * 1_000_000 + int(match[3]), match[4])


def parse_lines(text: str) -> list[Line | LostLine]:
    assert not text or text.endswith("\n")
    return [parse_line(line) for line in text.splitlines()]


def all_text(reader: Reader, size: int = 1 << 16) -> str:
    """What there is to read now."""
    return b"".join(iter(lambda: bytes(reader.try_read_text(size)), b"")).decode()


def all_raw(reader: Reader, size: int = 1 << 16) -> bytes:
    return b"".join(iter(lambda: bytes(reader.try_read_raw(size)), b""))


def texts(lines: Sequence[Line | LostLine]) -> list[str]:
    """What the events of `lines` print; none may be lost."""
    assert all(isinstance(line, Line) for line in lines)
    return [line.text for line in lines if isinstance(line, Line)]


def selftests(ids: Collection[int]) -> list[str]:
    return [f"selftest id={number}" for number in ids]


# --- files ----------------------------------------------------------------------------------


def _from_top(path: str) -> str:
    """Paths are of the view of V1, unless they begin with remotes/, or a slash: the top."""
    return path.removeprefix("/") if path.startswith(("/", "remotes/")) else f"hypervisor/{path}"


async def open_file(tree: Tree, path: str, flags: int = os.O_RDWR, caller: int = 0) -> OpenFile:
    file = tree.find(_from_top(path)).file
    assert file is not None
    return await file.open(flags, caller or os.getpid())


async def read_file(tree: Tree, path: str) -> str:
    file = await open_file(tree, path, os.O_RDONLY)
    try:
        return bytes(await file.read(1 << 16, 0, nonblock=True)).decode()
    finally:
        file.release()


async def write_file(tree: Tree, path: str, data: bytes) -> None:
    file = await open_file(tree, path, os.O_WRONLY)
    try:
        await file.write(data, os.getpid())
    finally:
        file.release()


@contextmanager
def raises_errno(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is compared below
        yield
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


# --- golden output, and the recording -----------------------------------------------------------


class GoldenWrite(NamedTuple):
    """A line of errno.txt: `data` written to `path` gives an errno, or 0."""

    path: str
    data: bytes
    errno: int


_WRITE = re.compile(r'write (\S+) +("(?:[^"\\]|\\.)*")(?:\.\.\.\((\d+)\))? -> (?:ret \d+|(E\w+))')


def _golden_write(match: re.Match[str]) -> GoldenWrite:
    data: bytes = ast.literal_eval(f"b{match[2]}")
    # A long one is shown by its first hundred bytes; it goes on like these end.
    data = data.ljust(int(match[3] or 0), data[-1:] or b" ")
    return GoldenWrite(match[1], data, getattr(errno, match[4]) if match[4] else 0)


def golden_writes(section: str, path: str) -> list[GoldenWrite]:
    """What the reference answered to writes to `path`, in a section of errno.txt."""
    listing = (GOLDEN / "errno.txt").read_text(encoding="utf-8")
    [text] = (part for part in listing.split("## ") if part.startswith(f"{section}\n"))
    writes = [_golden_write(match) for match in _WRITE.finditer(text)]
    found = [write for write in writes if write.path == path]
    assert found, (section, path)
    return found


def is_circle_of(played: Sequence[object], circle: Sequence[object]) -> bool:
    """Whether `played` goes round `circle`, from wherever it starts."""
    length = len(played)
    turns = [*circle] * (length // len(circle) + 2)
    return any(turns[start : start + length] == [*played] for start in range(len(circle)))


def step_text(step: Step) -> str:
    """What trace_pipe prints for `step`, behind the time."""
    reason, vcpu = step.args
    return f"{step.event} reason={reason} vcpu={vcpu}"


_RECORDED = Path(__file__).parents[1] / "hypervisor_model" / "data" / "pkvm-guest-session.txt"


def recorded_texts() -> list[str]:
    """The events of the recording, behind their times, as they stand in the file."""
    return [line.split(": ", 1)[1] for line in _RECORDED.read_text(encoding="ascii").splitlines()]
