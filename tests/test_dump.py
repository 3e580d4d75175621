"""The dump: what trace_pipe would then give, without consuming it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo
from hyptracefs.events import Event
from hyptracefs.hypercalls import Traits
from hyptracefs.print_fmt import Number
from hyptracefs.remote import Remote
from hyptracefs.ring_buffer import (
    ALL_CPUS,
    MAX_READ,
    PAGE_SIZE,
    Carry,
    Dump,
    Geometry,
    Memory,
    RenderTable,
    RingBuffer,
)
from tests.ring_oracle import EXTEND_FROM, Oracle
from tests.support import (
    Line,
    LostLine,
    Running,
    all_text,
    parse_lines,
    raises_errno,
    running,
    selftests,
    start_with,
    texts,
    write_ids,
)

# --- complete -------------------------------------------------------------------------------


def _text(dump: Dump) -> str:
    length = dump.length()
    text = bytes(dump.read(MAX_READ, 0))
    assert len(text) == length < MAX_READ
    return text.decode()


@contextmanager
def _dump(remote: Remote, cpu: int = ALL_CPUS) -> Iterator[Dump]:
    dump = remote.buffer.dump(cpu)
    try:
        yield dump
    finally:
        dump.close()


def _dumped(remote: Remote, cpu: int = ALL_CPUS) -> str:
    with _dump(remote, cpu) as dump:
        return _text(dump)


def _without_losses(text: str) -> list[Line]:
    return [line for line in parse_lines(text) if isinstance(line, Line)]


# golden/pkvm-arm64/nonconsuming.txt, where `trace` and `trace_pipe` often differ
@pytest.mark.jumping_clock
@pytest.mark.parametrize("size_kb", [1, 7, 8, 9, 12, 16, 20, 32, 64, 256, 1024])
async def test_dump_shows_what_trace_pipe_does(remote: Remote, size_kb: int) -> None:
    await start_with(remote, "selftest", size_kb=size_kb)
    reader = await remote.open_reader()
    for written in (1, 5, 100, 170, 171, 340, 341, 500, 900, 3000):
        write_ids(remote, range(written))
        dumped = _dumped(remote)
        assert _dumped(remote, 0) == dumped
        assert not _dumped(remote, 1)
        assert texts(parse_lines(dumped)) == texts(_without_losses(all_text(reader)))
        assert not _dumped(remote)


# golden/pkvm-arm64/overrun.txt
@pytest.mark.jumping_clock
async def test_losses_before_the_dump_are_not_told(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=8)
    reader = await remote.open_reader()
    write_ids(remote, range(1, 2001), cpu=0)
    write_ids(remote, range(5001, 7001), cpu=1)
    assert texts(parse_lines(_dumped(remote, 0))) == selftests(range(1531, 2001))
    dumped = _dumped(remote)
    consumed = parse_lines(all_text(reader))
    assert [line for line in consumed if isinstance(line, LostLine)] == [
        LostLine(0, 1530),
        LostLine(1, 1530),
    ]
    assert parse_lines(dumped) == [line for line in consumed if isinstance(line, Line)]


@pytest.mark.jumping_clock
async def test_any_piece_is_that_of_the_whole(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, range(300))
    with _dump(remote) as dump:
        text = _text(dump).encode()
        for offset in (0, 1, 34, 5000, len(text) - 1, len(text), len(text) + 1, 2**60):
            for size in (0, 1, 100, 1 << 20, 1 << 40):
                assert dump.read(size, offset) == text[offset : offset + size]


# --- while others write, read and reset ----------------------------------------------------


@pytest.mark.jumping_clock
async def test_what_becomes_of_a_dump(idle: Running) -> None:
    remote = idle.remote
    idle.calls.traits = Traits()  # with spares, the reader would have both pages
    await start_with(remote, "selftest", size_kb=7)
    reader = await remote.open_reader()
    write_ids(remote, range(200))
    with _dump(remote) as dump:
        text = _text(dump)
        assert texts(parse_lines(text)) == selftests(range(200))
        write_ids(remote, range(200, 210))
        assert texts(parse_lines(all_text(reader))) == selftests(range(210))
        assert _text(dump) == text  # consumed, and still there
        write_ids(remote, range(1000))
        lost, *lines = parse_lines(_text(dump))
        assert lost == LostLine(0, 170)
        assert texts(lines) == selftests(range(170, 200))  # on the page that the reader has
        remote.reset()
        assert _text(dump) == "CPU:0 [LOST 200 EVENTS]\n"
    assert not _dumped(remote)


@pytest.mark.jumping_clock
async def test_dump_of_what_a_dead_hypervisor_has_left(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=8)
    reader = await remote.open_reader()
    write_ids(remote, range(2000))
    reader.try_read_text(3500)
    with _dump(remote) as dump:
        text = _text(dump)
        remote.buffer.inherit()
        assert _text(dump) == text
    assert _dumped(remote) == text
    assert _without_losses(all_text(reader)) == parse_lines(text)


@pytest.mark.jumping_clock
async def test_a_closed_dump_has_nothing(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    with _dump(remote) as dump:
        assert dump.data_bytes() > 0
    assert (dump.length(), dump.data_bytes(), bytes(dump.read(100, 0))) == (0, 0, b"")
    dump.close()


async def test_large_dumps_in_threads_while_others_read_and_write() -> None:
    async with running("storm:100000:all", cpus=2) as made:
        remote = made.remote
        await start_with(remote, *(event.name for event in remote.events), size_kb=1024)
        reader = await remote.open_reader()
        consumed = 0
        while consumed < 40_000:
            await trio.sleep(0.01)
            with _dump(remote) as dump:
                text = b""
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, dump.length)
                    await trio.lowlevel.checkpoint()
                    consumed += bytes(reader.try_read_text(1 << 20)).count(b"\n")
                while more := bytes(await trio.to_thread.run_sync(dump.read, 1 << 17, len(text))):
                    text += more
                    consumed += bytes(reader.try_read_text(1 << 16)).count(b"\n")
            lines = [line for line in parse_lines(text.decode()) if isinstance(line, Line)]
            assert all(before.usec <= after.usec for before, after in pairwise(lines))


# --- the life of the memory -----------------------------------------------------------------


class _Regs(ctypes.Structure):
    _fields_ = [(f"x{number}", ctypes.c_uint64) for number in range(5)]


_HVC = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(_Regs))


class _Conduit(ctypes.Structure):
    _fields_ = [("hvc", _HVC)]


_PROBE = Event(
    EventInfo(1, "probe", (), '""'),
    ("id=", Number(FieldInfo("u32", "id", 4, 4, signed=False), "unsigned", 0, "")),
)


class _OracleBuffer:
    """The oracle as the hypervisor of a real buffer, of one CPU."""

    def __init__(self, pages: int) -> None:
        self.oracle = Oracle()
        assert self.oracle.init(pages) == self.oracle.enable(on=True) == 0
        self.geometry = Geometry(1, pages)
        self.memory = Memory(self.geometry.size)
        self._conduit = _Conduit(_HVC(self._hvc))
        self._table = RenderTable([_PROBE])
        self.buffer = RingBuffer(
            self.memory, self.geometry, self._table, ctypes.addressof(self._conduit), 0
        )
        self._carry = Carry()
        self.time = self.serial = 0
        self.consumed = 0  # serial of the last event that was

    def _hvc(self, conduit: int, cpu: int, regs: ctypes._Pointer[_Regs]) -> None:  # noqa: ARG002
        regs.contents.x0 = 0
        regs.contents.x1 = self.oracle.swap() % 2**64
        self._publish()

    def _publish(self) -> None:
        """What the host can see."""
        ring = self.oracle
        meta = struct.pack(
            "<4IQIIQQQQQQ",
            *(PAGE_SIZE, 80, PAGE_SIZE, len(ring.pages), ring.lost_events, ring.reader, 0, 0),
            *(ring.entries, ring.overrun, 0, ring.pages_lost, ring.pages_touched),
        )
        os.pwrite(self.memory.fd, meta, self.geometry.meta(0))
        for number, page in enumerate(ring.pages):
            data = page.data()
            image = struct.pack("<QQ", page.time or 0, len(data)) + data
            os.pwrite(self.memory.fd, image, self.geometry.page(0, number))

    def write(self, length: int, step: int, times: int) -> None:
        for _ in range(times):
            self.time = (self.time + step) % 2**64
            self.serial += 1
            assert self.oracle.reserve(length, self.time, struct.pack("<HHI", 1, 0, self.serial))
            self.oracle.commit()
        self._publish()

    def consume(self, size: int) -> list[int]:
        """Serials of the lines in `size` bytes of text, the last one whole."""
        text = bytes(self.buffer.read_text(ALL_CPUS, self._carry, size))
        while self._carry:
            text += bytes(self.buffer.read_text(ALL_CPUS, self._carry, self._carry.c.length))
        serials = _serials(text)
        self.consumed = max([self.consumed, *serials])
        return serials

    def reset(self) -> None:
        assert self.oracle.reset() == 0
        self._publish()
        self.buffer.reset(0)
        self.consumed = self.serial

    def unread(self) -> list[int]:
        """Serials, by what the oracle knows of its pages."""
        ring = self.oracle
        behind = [] if ring.tail == ring.reader else ring.ring[: ring.ring.index(ring.tail) + 1]
        events = (event for page in (ring.reader, *behind) for event in ring.pages[page].events)
        serials = [int.from_bytes(event.payload[4:8], "little") for event in events]
        return [serial for serial in serials if serial > self.consumed]

    def dumped(self) -> list[int]:
        dump = self.buffer.dump()
        serials = _serials(_text(dump).encode())
        dump.close()
        return serials


def _serials(text: bytes) -> list[int]:
    lines = parse_lines(text.decode())
    return [
        int(line.text.removeprefix("probe id=").removeprefix("id="))
        for line in lines
        if isinstance(line, Line)
    ]


@contextmanager
def _oracle_buffer(pages: int) -> Iterator[_OracleBuffer]:
    made = _OracleBuffer(pages)
    try:
        yield made
    finally:
        made.buffer.close()


# What is done: write (length, step, times), consume (size), reset.
_Op = tuple[str, tuple[int, ...]]

_LENGTHS = st.sampled_from([8, 16, 100, 1344, 2024, 4072])


def _ops(steps: st.SearchStrategy[int], *, resets: bool) -> st.SearchStrategy[list[_Op]]:
    writes = st.tuples(
        st.just("write"), st.tuples(_LENGTHS, steps, st.sampled_from([1, 3, 20, 200]))
    )
    reads = st.tuples(st.just("consume"), st.tuples(st.sampled_from([1, 100, 3000, 100_000])))
    resets_ = [st.just(("reset", ()))] if resets else []
    return st.lists(st.one_of(writes, writes, reads, *resets_), max_size=15)


_ANY_STEP = st.one_of(st.sampled_from([0, 1, 1000, EXTEND_FROM]), st.integers(-(1 << 40), 1 << 40))
_FORWARD = st.integers(1, 1 << 40)


@given(
    pages=st.integers(3, 6),
    ops=st.one_of(_ops(_ANY_STEP, resets=False), _ops(_FORWARD, resets=True)),
)
def test_dump_shows_what_the_oracle_has_and_trace_pipe_gives(
    pages: int, ops: Sequence[_Op]
) -> None:
    with _oracle_buffer(pages) as made:
        for name, args in ops:
            getattr(made, name)(*args)
            unread = made.unread()
            assert made.dumped() == unread
        unread = made.unread()
        assert made.consume(MAX_READ) == unread
        assert made.dumped() == []


def test_dump_outlives_its_buffer() -> None:
    made = _OracleBuffer(3)
    made.write(16, 1000, 100)
    dump = made.buffer.dump()
    made.buffer.close()
    assert _serials(_text(dump).encode()) == [*range(1, 101)]
    os.fstat(made.memory.fd)
    dump.close()
    with raises_errno(errno.EBADF):
        os.fstat(made.memory.fd)
    dump.close()
    assert dump.length() == 0
    assert not dump.read(100, 0)


def test_a_large_dump_says_so() -> None:
    with _oracle_buffer(70) as made:
        for nr_pages, large in ((60, False), (66, True)):
            made.write(4072, 1000, nr_pages - made.serial)
            dump = made.buffer.dump()
            assert dump.large == large
            assert len(_serials(_text(dump).encode())) == nr_pages
            dump.close()
