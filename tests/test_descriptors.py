"""Loads that a host may try, and what becomes of each: errno, or a buffer that works.

The oracle is the list of questions of PROTOCOL.md (4) and SPEC C.1, asked in Python; the
hypervisor must give the same answer, and write to no page but those that it was given.
HYPOTHESIS_PROFILE=long tries hundreds of thousands.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import compress, product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyptracefs._ringbuf import lib
from hyptracefs.sources import Attachment, SocketSource
from tests.decoder import HEADER_SIZE, PAGE_SIZE, records
from tests.mounts import PATIENCE_S, Model, modelled, until
from tests.support import hypervisor

CPUS = 3  # of the hypervisor
PAGES = 31  # of the memory; prime, so that any step goes through all
MOST_PAGES = 3 * PAGES  # of any memory
SELFTEST = "selftest"

_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def fuzzed(short: int, long: int) -> settings:
    """Examples in the profile that is used."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=long if _LONG else short, suppress_health_check=slow)


# --- calls --------------------------------------------------------------------------------------


class Call(IntEnum):
    """PROTOCOL.md, 3."""

    LOAD = 0
    UNLOAD = 1
    ENABLE = 2
    SWAP_READER = 3
    RESET = 4
    ENABLE_EVENT = 6
    WRITE_EVENT = 7


@dataclass(frozen=True)
class Caller:
    """Somebody who answers hypercalls, and knows the event `selftest` by this id."""

    conduit: int
    selftest: int

    def __call__(self, call: Call, *args: int, cpu: int = 0) -> int:
        """0, or an errno."""
        result: int = lib.hvc_call(self.conduit, cpu, call, [*args, *[0] * (4 - len(args))])
        return -result


# --- descriptors --------------------------------------------------------------------------------


@dataclass
class Record:
    cpu: int
    meta: int
    pages: list[int]
    nr: int | None = None  # None: as many as there are

    def encode(self) -> bytes:
        nr = len(self.pages) if self.nr is None else self.nr
        return struct.pack(f"<iIQ{len(self.pages)}Q", self.cpu, nr, self.meta, *self.pages)


@dataclass
class Attempt:
    """A load, not encoded yet: mutations change it."""

    records: list[Record]
    spare: list[int]  # offsets of pages that are nobody's
    offset: int
    size: int
    memory: str = "sealed"
    nr_cpus: int | None = None  # None: as many as there are records
    struct_len_off: int = 0
    patches: list[tuple[int, bytes]] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)

    def encode(self) -> bytes:
        """The descriptor, in as many pages as it takes."""
        encoded = b"".join(record.encode() for record in self.records)
        nr_cpus = len(self.records) if self.nr_cpus is None else self.nr_cpus
        struct_len = max(16 + len(encoded) + self.struct_len_off, 0)
        made = bytearray(struct.pack("<QQiIQ", 0, 0, nr_cpus, 0, struct_len) + encoded)
        made.extend(bytes(-len(made) % PAGE_SIZE))
        for at, data in self.patches:
            made[at : at + len(data)] = data
        for bit in self.flips:
            made[bit // 8] ^= 1 << bit % 8
        return bytes(made)

    def slots(self) -> list[tuple[Record, int]]:
        """What names a page: -1 is the meta page of its record."""
        return [(record, i) for record in self.records for i in range(-1, len(record.pages))]

    def named(self, slot: int) -> int:
        record, i = self.slots()[slot % len(self.slots())]
        return record.meta if i < 0 else record.pages[i]

    def name(self, slot: int, to: int) -> None:
        if not self.records:
            return
        record, i = self.slots()[slot % len(self.slots())]
        if i < 0:
            record.meta = to
        else:
            record.pages[i] = to


# Pages of each CPU, how the pages are scattered, the page of the descriptor.
Shape = tuple[list[int], int, int, int]


def valid_attempt(counts: list[int], first: int, step: int, desc_page: int) -> Attempt:
    """With so many pages for each CPU; scattered, but for the descriptor (a page)."""
    scattered = [(first + step * i) % PAGES for i in range(PAGES)]
    free = [page * PAGE_SIZE for page in scattered if page != desc_page]
    made = []
    for cpu, count in enumerate(counts):
        made.append(Record(cpu, free[0], free[1 : 1 + count]))
        free = free[1 + count :]
    return Attempt(made, free, desc_page * PAGE_SIZE, PAGE_SIZE)


shapes = st.tuples(
    st.lists(st.integers(3, 6), min_size=1, max_size=CPUS),
    st.integers(0, PAGES - 1),
    st.integers(1, PAGES - 1),
    st.integers(0, PAGES - 1),
)
valid_attempts = shapes.map(lambda shape: valid_attempt(*shape))


# --- mutations ----------------------------------------------------------------------------------

SIZES = (PAGE_SIZE, PAGES * PAGE_SIZE, PAGE_SIZE - 16, 4080 - 32, 505, 506, 507, 1 << 24, 1 << 28)
BOUNDARIES = sorted(
    {0, 1, 2, 3, 4, 8, 15, 16, 17, 24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63}
    | {2**64 - PAGE_SIZE, 2**64 - 16, 2**64 - 1, 2**63 + PAGE_SIZE}
    | {size + off for size in SIZES for off in (-8, -1, 0, 1, 8)}
)
boundaries = st.sampled_from(BOUNDARIES)
small = st.integers(0, 63)  # a record, a page: whichever there is, counted in a circle


def put_word(value: int, word: int, width: int, attempt: Attempt) -> None:
    """Any field that there is, and what is behind them."""
    attempt.patches.append((word * width, (value % (1 << 8 * width)).to_bytes(width, "little")))


def flip_bit(bit: int, attempt: Attempt) -> None:
    attempt.flips.append(bit)


def swap_records(one: int, other: int, attempt: Attempt) -> None:
    all_of = attempt.records
    if all_of:
        one, other = one % len(all_of), other % len(all_of)
        all_of[one], all_of[other] = all_of[other], all_of[one]


def duplicate_record(which: int, renumber: bool, attempt: Attempt) -> None:
    if attempt.records:
        of = attempt.records[which % len(attempt.records)]
        cpu = len(attempt.records) if renumber else of.cpu
        attempt.records.append(Record(cpu, of.meta, [*of.pages], of.nr))


def add_record(count: int, attempt: Attempt) -> None:
    """One more CPU, of pages that are free: there may be a CPU for it, or not."""
    if len(attempt.spare) > count % 6:
        meta, *pages = attempt.spare[: 1 + count % 6]
        attempt.spare = attempt.spare[1 + count % 6 :]
        attempt.records.append(Record(len(attempt.records), meta, pages))


def drop_record(which: int, recount: bool, attempt: Attempt) -> None:
    if attempt.records:
        if not recount:
            attempt.nr_cpus = len(attempt.records)
        attempt.records.pop(which % len(attempt.records))


def drop_page(which: int, recount: bool, attempt: Attempt) -> None:
    """Recounted, three may be left, or two."""
    if attempt.records:
        record = attempt.records[which % len(attempt.records)]
        if not recount:
            record.nr = len(record.pages)
        record.pages = record.pages[:-1]


def set_nr(which: int, value: int, attempt: Attempt) -> None:
    if attempt.records:
        attempt.records[which % len(attempt.records)].nr = value % (1 << 32)


def change_struct_len(by: int, attempt: Attempt) -> None:
    attempt.struct_len_off += by


def alias_page(slot: int, other: int, attempt: Attempt) -> None:
    if attempt.records:
        attempt.name(slot, attempt.named(other))


def name_descriptor(slot: int, attempt: Attempt) -> None:
    attempt.name(slot, attempt.offset % (1 << 64))


def name_spare(slot: int, which: int, attempt: Attempt) -> None:
    if attempt.spare:
        attempt.name(slot, attempt.spare.pop(which % len(attempt.spare)))


def name_outside(slot: int, page: int, attempt: Attempt) -> None:
    attempt.name(slot, (PAGES + page) * PAGE_SIZE)


def name_unaligned(slot: int, by: int, attempt: Attempt) -> None:
    if attempt.records:
        attempt.name(slot, (attempt.named(slot) + by) % 2**64)


def name_anything(slot: int, value: int, attempt: Attempt) -> None:
    attempt.name(slot, value)


def move_descriptor(offset: int, attempt: Attempt) -> None:
    """What lies there is not moved: as far as there is memory, it is put there."""
    attempt.offset = offset


def resize_descriptor(size: int, attempt: Attempt) -> None:
    attempt.size = size


def replace_memory(kind: str, attempt: Attempt) -> None:
    attempt.memory = kind


Mutation = partial[None]


@dataclass(frozen=True)
class Kind:
    """What a file descriptor is, as far as a load asks."""

    sealed: bool = True
    size: int = PAGES * PAGE_SIZE
    writable: bool = True


_SHRINK, _GROW = fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW
_FUTURE_WRITE = 0x10

NO_MEMORY = Kind(sealed=False, size=0)
KINDS = {
    "sealed": Kind(),
    "sealed for ever": Kind(),
    "read-only": Kind(writable=False),
    "sealed against writing": Kind(writable=False),
    "unsealed": Kind(sealed=False),
    "may shrink": Kind(sealed=False),
    "may grow": Kind(sealed=False),
    "a byte more": Kind(size=PAGES * PAGE_SIZE + 1),
    "a byte less": Kind(size=PAGES * PAGE_SIZE - 1),
    "empty": Kind(size=0),
    "a page less": Kind(size=(PAGES - 1) * PAGE_SIZE),
    "a page": Kind(size=PAGE_SIZE),
    "larger": Kind(size=MOST_PAGES * PAGE_SIZE),
    "a file": NO_MEMORY,
    "a pipe": NO_MEMORY,
    "a directory": NO_MEMORY,
    "a device": NO_MEMORY,
    "a socket": NO_MEMORY,
}

page_offsets = st.integers(0, PAGES + 1).map(lambda page: page * PAGE_SIZE)
page_sizes = st.integers(0, PAGES + 1).map(lambda pages: pages * PAGE_SIZE)
unaligned = st.sampled_from([1, 8, 2048, PAGE_SIZE - 1])
nudges = st.sampled_from([-(2**16), -24, -17, -16, -8, -4, -1, 1, 4, 8, 16, 17, 24, 40, 4080])
# Mutations that say no more than something else does are rarer.
mutations = st.one_of(
    st.builds(partial, st.just(put_word), boundaries, st.integers(0, 24), st.just(8)),
    st.builds(partial, st.just(put_word), boundaries, st.integers(0, 48), st.just(4)),
    st.builds(partial, st.just(put_word), boundaries, st.sampled_from([4, 5, 8, 9]), st.just(4)),
    st.builds(partial, st.just(flip_bit), st.integers(0, 8 * 200 - 1)),
    st.builds(partial, st.just(swap_records), small, small),
    st.builds(partial, st.just(duplicate_record), small, st.booleans()),
    st.builds(partial, st.just(add_record), small),
    st.builds(partial, st.just(add_record), small),
    st.builds(partial, st.just(drop_record), small, st.booleans()),
    st.builds(partial, st.just(drop_page), small, st.booleans()),
    st.builds(partial, st.just(set_nr), small, boundaries),
    st.builds(partial, st.just(change_struct_len), nudges),
    st.builds(partial, st.just(alias_page), small, small),
    st.builds(partial, st.just(name_descriptor), small),
    st.builds(partial, st.just(name_spare), small, small),
    st.builds(partial, st.just(name_spare), small, small),
    st.builds(partial, st.just(name_outside), small, small),
    st.builds(partial, st.just(name_unaligned), small, unaligned),
    st.builds(partial, st.just(name_anything), small, boundaries),
    st.builds(partial, st.just(move_descriptor), page_offsets | boundaries),
    st.builds(partial, st.just(resize_descriptor), page_sizes | boundaries),
    st.builds(partial, st.just(replace_memory), st.sampled_from(sorted(KINDS))),
)


def some_of(mutations: Sequence[Mutation]) -> Iterator[list[Mutation]]:
    """Each choice of them: none, each alone, ..., all."""
    for chosen in product([False, True], repeat=len(mutations)):
        yield [*compress(mutations, chosen)]


def mutated(shape: Shape, by: list[Mutation]) -> Attempt:
    made = valid_attempt(*shape)
    for mutate in by:
        mutate(made)
    return made


several = st.lists(mutations, min_size=1, max_size=4)


# --- the oracle ---------------------------------------------------------------------------------


class RefusedError(Exception):
    """With the errno as its only argument."""


def ask(holds: bool, number: int) -> None:
    if not holds:
        raise RefusedError(number)


@dataclass(frozen=True)
class Buffer:
    """What a loaded CPU consists of: pages of the memory, by number."""

    meta: int
    pages: tuple[int, ...]


def ask_descriptor(offset: int, size: int, kind: Kind) -> None:
    """What comes before anything else, also while something is loaded."""
    ask(size != 0, errno.EINVAL)
    ask(size % PAGE_SIZE == 0 and offset % PAGE_SIZE == 0, errno.EINVAL)
    ask(kind.sealed, errno.EPERM)
    ask(kind.size > 0 and kind.size % PAGE_SIZE == 0, errno.EINVAL)
    ask(kind.writable, errno.EPERM)
    ask(offset + size <= kind.size, errno.EPERM)


class Oracle:
    """What there is to ask of a load when nothing is loaded, in order."""

    def __init__(self, desc: bytes, offset: int, size: int, kind: Kind) -> None:
        self.used: set[int] = set()
        self.kind = kind
        ask_descriptor(offset, size, kind)
        self.used.update(range(offset // PAGE_SIZE, (offset + size) // PAGE_SIZE))
        self.buffers = [self._buffer(*found) for found in self._records(desc[:size])]

    def _records(self, desc: bytes) -> Iterator[tuple[int, list[int]]]:
        """Whether a record makes sense; its pages are asked for before the next one."""
        backing, backing_size, nr_cpus, _, struct_len = struct.unpack_from("<QQiIQ", desc)
        ask(backing == 0 and backing_size == 0, errno.EINVAL)
        ask(1 <= nr_cpus <= CPUS, errno.EINVAL)
        ask(16 <= struct_len <= len(desc) - 16, errno.EINVAL)
        # no page serves twice: a number for each is the most that makes sense
        ask(struct_len <= 16 + CPUS * 16 + self.kind.size // PAGE_SIZE * 8, errno.EINVAL)
        rest = desc[32 : 16 + struct_len]
        for index in range(nr_cpus):
            ask(len(rest) >= 16, errno.EINVAL)
            cpu, nr, meta = struct.unpack_from("<iIQ", rest)
            ask(cpu == index, errno.EINVAL)
            ask(nr >= 3, errno.EINVAL)
            ask(len(rest) >= 16 + 8 * nr, errno.EINVAL)
            yield meta, list(struct.unpack_from(f"<{nr}Q", rest, 16))
            rest = rest[16 + 8 * nr :]
        ask(not rest, errno.EINVAL)

    def _buffer(self, meta: int, pages: Iterable[int]) -> Buffer:
        return Buffer(self._page(meta), tuple(self._page(page) for page in pages))

    def _page(self, offset: int) -> int:
        ask(offset % PAGE_SIZE == 0, errno.EPERM)
        ask(offset < self.kind.size, errno.EPERM)
        ask(offset // PAGE_SIZE not in self.used, errno.EPERM)
        self.used.add(offset // PAGE_SIZE)
        return offset // PAGE_SIZE


def expected(desc: bytes, offset: int, size: int, kind: Kind) -> tuple[int, list[Buffer]]:
    """The errno, and what is loaded."""
    try:
        return 0, Oracle(desc, offset, size, kind).buffers
    except RefusedError as refused:
        [number] = refused.args
        return number, []


def refusal(offset: int, size: int, kind: Kind) -> int:
    """The errno of a descriptor that is not even looked at; 0: it is."""
    try:
        ask_descriptor(offset, size, kind)
    except RefusedError as refused:
        number: int = refused.args[0]
        return number
    return 0


# --- memory -------------------------------------------------------------------------------------

# No two pages alike, and nothing that is 0.
PATTERN = b"".join(
    struct.pack("<II", 0xA5A50000 | page, 0x80000000 | i)
    for page in range(MOST_PAGES)
    for i in range(PAGE_SIZE // 8)
)


class Memory:
    """A file descriptor and, if it is memory, what is in it."""

    def __init__(self, fd: int, size: int = 0, writer: int = -1) -> None:
        self.fd = fd
        self.image = b""
        self.map = mmap.mmap(writer if writer >= 0 else fd, size) if size else None

    def fill(self, desc: bytes, offset: int) -> bytes:
        """The pattern, and the descriptor as far as there is memory for it; what it reads."""
        if self.map is None:
            return b""
        end = max(len(self.map) - offset, 0)
        image = bytearray(PATTERN[: len(self.map)])
        image[offset : offset + len(desc)] = desc[:end]
        self.image = bytes(image)
        self.map[:] = self.image
        return self.image[offset:]

    def page(self, number: int) -> bytes:
        assert self.map is not None
        return self.map[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]

    def assert_untouched(self, but: Iterable[int] = ()) -> None:
        if self.map is None or self.map[:] == self.image:
            return
        written = {
            number
            for number in range(-(-len(self.map) // PAGE_SIZE))
            if self.page(number) != self.image[number * PAGE_SIZE :][:PAGE_SIZE]
        }
        assert written <= {*but}, f"pages {sorted(written - {*but})} were written to"

    def close(self) -> None:
        if self.map is not None:
            self.map.close()
        os.close(self.fd)


def memfd(size: int, seals: int = _SHRINK | _GROW) -> Memory:
    fd = os.memfd_create("descriptors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if size:
        os.posix_fallocate(fd, 0, size)
    made = Memory(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return made


def read_only(size: int) -> Memory:
    writable = memfd(size)
    fd = os.open(f"/proc/self/fd/{writable.fd}", os.O_RDONLY)
    made = Memory(fd, size, writer=writable.fd)
    writable.close()
    return made


def no_memory(kind: str, directory: Path) -> Memory:
    if kind == "a pipe":
        reader, writer = os.pipe()
        os.close(writer)
        return Memory(reader)
    if kind == "a socket":
        return Memory(socket.socket(socket.AF_UNIX).detach())
    if kind == "a file":
        path = directory / "file"
        path.write_bytes(PATTERN)
        return Memory(os.open(path, os.O_RDWR))
    return Memory(os.open(directory if kind == "a directory" else "/dev/zero", os.O_RDONLY))


_SEALS = {
    "unsealed": 0,
    "may shrink": _GROW,
    "may grow": _SHRINK,
    "sealed for ever": _SHRINK | _GROW | fcntl.F_SEAL_SEAL,
    "sealed against writing": _SHRINK | _GROW | _FUTURE_WRITE,
}


def make_memory(name: str, directory: Path) -> Memory:
    kind = KINDS[name]
    if kind is NO_MEMORY:
        return no_memory(name, directory)
    if name == "read-only":
        return read_only(kind.size)
    return memfd(kind.size, _SEALS.get(name, _SHRINK | _GROW))


@pytest.fixture(scope="module")
def memories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Memory]]:
    directory = tmp_path_factory.mktemp("memories")
    made = {name: make_memory(name, directory) for name in KINDS}
    yield made
    for memory in made.values():
        memory.close()


# --- what is loaded is used ---------------------------------------------------------------------

_META = struct.Struct("<IIIIQIIQQQQQQQ")  # SPEC A.1, and `dropped`


@dataclass(frozen=True)
class Meta:
    page_size: int
    struct_len: int
    subbuf_size: int
    nr_subbufs: int
    lost_events: int = 0
    reader_id: int = 0
    reader_read: int = 0
    flags: int = 0
    entries: int = 0
    overrun: int = 0
    read: int = 0
    pages_lost: int = 0
    pages_touched: int = 0
    dropped: int = 0


def meta_of(memory: Memory, buffer: Buffer) -> Meta:
    """And what is behind it is as it was."""
    page = memory.page(buffer.meta)
    start = buffer.meta * PAGE_SIZE
    assert page[_META.size :] == memory.image[start + _META.size : start + PAGE_SIZE]
    return Meta(*_META.unpack_from(page))


def ids_of(memory: Memory, page: int, selftest: int) -> list[int]:
    """Of the events on a page."""
    image = memory.page(page)
    [commit] = struct.unpack_from("<Q", image, 8)
    payloads = [record.payload for record in records(image[HEADER_SIZE:][:commit], 0)]
    assert all(struct.unpack_from("<H", payload) == (selftest,) for payload in payloads)
    return [struct.unpack_from("<Q", payload, 8)[0] for payload in payloads]


def assert_as_loaded(memory: Memory, buffer: Buffer) -> None:
    """SPEC B.3."""
    assert meta_of(memory, buffer) == Meta(PAGE_SIZE, 88, PAGE_SIZE, len(buffer.pages))
    for page in buffer.pages:
        start = page * PAGE_SIZE
        image, before = memory.page(page), memory.image[start : start + PAGE_SIZE]
        assert image == before[:8] + bytes(8) + before[16:]


def write_events(caller: Caller, ids: Iterable[int]) -> None:
    for number in ids:
        for cpu in range(CPUS):
            assert caller(Call.WRITE_EVENT, number * CPUS + cpu, cpu=cpu) == 0


def switch_on(caller: Caller) -> None:
    assert caller(Call.ENABLE_EVENT, caller.selftest, 1) == 0
    assert caller(Call.ENABLE, 1) == 0


def assert_swapped(caller: Caller, memory: Memory, buffers: list[Buffer], ids: range) -> None:
    """The first page of each ring is the reader's now, with the events on it."""
    for cpu in range(CPUS):
        if cpu >= len(buffers):
            assert caller(Call.SWAP_READER, cpu) == errno.ENODEV
            assert caller(Call.RESET, cpu) == errno.ENODEV
            continue
        assert caller(Call.SWAP_READER, cpu) == 0
        meta = meta_of(memory, buffers[cpu])
        assert (meta.reader_id, meta.entries, meta.overrun) == (1, len(ids), 0)
        heard = ids_of(memory, buffers[cpu].pages[1], caller.selftest)
        assert heard == [number * CPUS + cpu for number in ids]
    assert caller(Call.SWAP_READER, CPUS) == errno.EINVAL


def assert_reset(caller: Caller, memory: Memory, buffers: list[Buffer]) -> None:
    for cpu, buffer in enumerate(buffers):
        assert caller(Call.RESET, cpu) == 0
        meta = meta_of(memory, buffer)
        assert (meta.reader_id, meta.entries, meta.overrun) == (1, 0, 0)
        for page in buffer.pages:
            assert memory.page(page)[8:16] == bytes(8)


def assert_wraps(caller: Caller, memory: Memory, buffers: list[Buffer], events: int) -> None:
    """More events than there is room for: all pages are written to, and counted."""
    write_events(caller, range(events))
    for cpu, buffer in enumerate(buffers):
        meta = Meta(*_META.unpack_from(memory.page(buffer.meta)))
        kept = [ids_of(memory, page, caller.selftest) for page in buffer.pages]
        assert meta.entries == events
        assert sum(map(len, kept)) == meta.entries - meta.overrun
        assert all(number % CPUS == cpu for ids in kept for number in ids)


def use(caller: Caller, memory: Memory, buffers: list[Buffer], wrap: int = 0) -> None:
    for buffer in buffers:
        assert_as_loaded(memory, buffer)
    switch_on(caller)
    ids = range(1, 4)
    write_events(caller, ids)
    assert_swapped(caller, memory, buffers, ids)
    assert_reset(caller, memory, buffers)
    if wrap:
        assert_wraps(caller, memory, buffers, wrap)
    assert caller(Call.ENABLE, 0) == 0


def assert_let_go(caller: Caller, memory: Memory) -> None:
    """Nothing is loaded, and nothing is written any more."""
    assert caller(Call.ENABLE, 1) == errno.EINVAL
    assert caller(Call.SWAP_READER, 0) == errno.ENODEV
    before = memory.map[:] if memory.map is not None else b""
    write_events(caller, [9])
    assert not before or memory.map is None or memory.map[:] == before


def try_load(
    caller: Caller, memories: dict[str, Memory], attempt: Attempt, *, wrap: int = 0
) -> int:
    """Load, compare with the oracle, use what is loaded, unload. The errno."""
    memory = memories[attempt.memory]
    desc = memory.fill(attempt.encode(), attempt.offset)
    offset, size = attempt.offset, attempt.size
    number, buffers = expected(desc, offset, size, KINDS[attempt.memory])
    got = caller(Call.LOAD, offset, size, memory.fd)
    try:
        assert errno.errorcode.get(got, "loads") == errno.errorcode.get(number, "loads")
        if buffers:
            use(caller, memory, buffers, wrap)
            assert caller(Call.LOAD, offset, size, memory.fd) == errno.EBUSY
    finally:
        assert caller(Call.UNLOAD) == 0
    assert_let_go(caller, memory)
    memory.assert_untouched(but=[page for b in buffers for page in (b.meta, *b.pages)])
    return number


# --- in this process ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with hypervisor("idle", CPUS) as made:
        [selftest] = (event.id for event in made.events if event.name == SELFTEST)
        yield Caller(made.conduit, selftest)


@fuzzed(short=150, long=4_000)
@given(attempt=valid_attempts, wrap=st.sampled_from([0, 170, 1200]))
def test_what_makes_sense_is_loaded_and_works(
    caller: Caller, memories: dict[str, Memory], attempt: Attempt, wrap: int
) -> None:
    assert try_load(caller, memories, attempt, wrap=wrap) == 0


@fuzzed(short=1_500, long=40_000)
@given(shape=shapes, by=several)
def test_whatever_is_tried_is_answered_as_specified(
    caller: Caller,
    memories: dict[str, Memory],
    shape: Shape,
    by: list[Mutation],
) -> None:
    for chosen in some_of(by):
        try_load(caller, memories, mutated(shape, chosen))


def test_the_attempts_are_not_all_alike(caller: Caller, memories: dict[str, Memory]) -> None:
    """That much loads, and that much fails in each way: or the tests above say little."""
    seen: Counter[int] = Counter()

    @fuzzed(short=300, long=300)
    @given(shape=shapes, by=several)
    def sort(shape: Shape, by: list[Mutation]) -> None:
        seen[try_load(caller, memories, mutated(shape, by))] += 1

    sort()
    assert {*seen} == {0, errno.EINVAL, errno.EPERM}
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize(
    ("pages", "desc_pages", "number"),
    [(506, 1, 0), (507, 1, errno.EINVAL), (507, 2, 0), (1018, 2, 0), (1019, 2, errno.EINVAL)],
)
def test_a_descriptor_may_fill_its_pages_to_the_last_byte(
    caller: Caller, pages: int, desc_pages: int, number: int
) -> None:
    """32 bytes, and 16 + 8 for each page: 506 end with the first page of the descriptor."""
    desc_at = (1 + pages) * PAGE_SIZE
    record = Record(0, 0, [(1 + page) * PAGE_SIZE for page in range(pages)])
    desc = Attempt([record], [], 0, 0).encode()
    memory = memfd(desc_at + 2 * PAGE_SIZE)
    os.pwrite(memory.fd, desc, desc_at)
    got = caller(Call.LOAD, desc_at, desc_pages * PAGE_SIZE, memory.fd)
    assert caller(Call.UNLOAD) == 0
    memory.close()
    assert got == number


@pytest.mark.parametrize("seal", [fcntl.F_SEAL_WRITE, _FUTURE_WRITE])
def test_memory_that_nobody_may_write_is_not_to_be_had(caller: Caller, seal: int) -> None:
    fd = os.memfd_create("descriptors", os.MFD_ALLOW_SEALING)
    os.posix_fallocate(fd, 0, PAGES * PAGE_SIZE)
    os.pwrite(fd, valid_attempt([3], 0, 1, 30).encode(), 30 * PAGE_SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SHRINK | _GROW | seal)
    got = caller(Call.LOAD, 30 * PAGE_SIZE, PAGE_SIZE, fd)
    os.close(fd)
    assert got == errno.EPERM


def test_memory_with_a_hole_is_the_hosts_to_fill(caller: Caller) -> None:
    """The hypervisor would pay for what it writes there, or be killed."""
    fd = os.memfd_create("descriptors", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGES * PAGE_SIZE)
    os.pwrite(fd, valid_attempt([3], 0, 1, 30).encode(), 30 * PAGE_SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SHRINK | _GROW)
    assert caller(Call.LOAD, 30 * PAGE_SIZE, PAGE_SIZE, fd) == errno.EPERM
    os.posix_fallocate(fd, 0, PAGES * PAGE_SIZE)
    assert caller(Call.LOAD, 30 * PAGE_SIZE, PAGE_SIZE, fd) == 0
    assert caller(Call.UNLOAD) == 0
    os.close(fd)


@pytest.mark.parametrize("fd", [-1, 2**31 - 1, -(2**31)])
def test_a_descriptor_that_is_not_open_is_no_memory(caller: Caller, fd: int) -> None:
    assert caller(Call.LOAD, 0, PAGE_SIZE, fd % 2**64) == errno.EPERM


def test_a_load_while_something_is_loaded_leaves_it_alone(
    caller: Caller, memories: dict[str, Memory]
) -> None:
    first, second = memories["sealed"], memories["sealed for ever"]
    attempt = valid_attempt([4, 3, 3], 0, 1, 30)
    desc = first.fill(attempt.encode(), attempt.offset)
    second.fill(attempt.encode(), attempt.offset)
    buffers = Oracle(desc, attempt.offset, attempt.size, KINDS["sealed"]).buffers
    assert caller(Call.LOAD, attempt.offset, attempt.size, first.fd) == 0
    for name, memory in memories.items():
        number = refusal(attempt.offset, attempt.size, KINDS[name]) or errno.EBUSY
        assert caller(Call.LOAD, attempt.offset, attempt.size, memory.fd) == number, name
    use(caller, first, buffers)
    second.assert_untouched()
    assert caller(Call.UNLOAD) == 0


# --- over a socket, to one process for all of it --------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("model") / "hyp.sock"
    with modelled(path, f"--cpus={CPUS}", "--workload=idle") as made:
        yield made
        assert made.process.poll() is None
        assert made.end() == 0


def attach_in_turn(model: Model) -> Attachment:
    """Once the host before is forgotten."""
    made: list[Attachment] = []

    def is_served() -> bool:
        with suppress(OSError):
            made.append(SocketSource(model.path).attach())
        return bool(made)

    until(is_served, "to be served")
    return made[0]


@contextmanager
def attached(model: Model) -> Iterator[Caller]:
    made = attach_in_turn(model)
    [selftest] = (event.id for event in made.introduction.events if event.name == SELFTEST)
    try:
        yield Caller(made.conduit.address, selftest)
        assert not made.conduit.gone()
    finally:
        made.close()


def open_files(model: Model) -> int:
    return len([*Path(f"/proc/{model.process.pid}/fd").iterdir()])


def connect(model: Model) -> socket.socket | None:
    """As a host that has heard the introduction. None: another host is still served."""
    host = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host.settimeout(PATIENCE_S)
    host.connect(str(model.path))
    hello = host.recv(1 << 16)
    if struct.unpack_from("<i", hello, 12) != (0,):
        host.close()
        return None
    for _ in range(sum(struct.unpack_from("<III", hello, 92))):
        assert host.recv(1 << 16)
    return host


def connected(model: Model) -> socket.socket:
    """Once the host before is forgotten."""
    hosts: list[socket.socket] = []

    def is_served() -> bool:
        host = connect(model)
        hosts.extend([host] if host else [])
        return bool(hosts)

    until(is_served, "to be served")
    return hosts[0]


def assert_serves(model: Model, memories: dict[str, Memory]) -> None:
    """It is alive, and a host can do all that it could before."""
    with attached(model) as calls:
        assert try_load(calls, memories, valid_attempt([4, 3, 3], 0, 1, 30), wrap=700) == 0
    assert model.process.poll() is None


def test_over_a_socket_it_is_the_same(model: Model, memories: dict[str, Memory]) -> None:
    @fuzzed(short=300, long=10_000)
    @given(shape=shapes, by=several)
    def run(shape: Shape, by: list[Mutation]) -> None:
        try_load(calls, memories, mutated(shape, by))

    with attached(model) as calls:
        run()
    assert_serves(model, memories)


@dataclass(frozen=True)
class Message:
    data: bytes
    kinds: tuple[str, ...] = ()  # of the descriptors that come with it

    def is_request(self) -> bool:
        """PROTOCOL.md, 3."""
        if len(self.data) < 8:
            return False
        nr = int.from_bytes(self.data[4:8], "little")
        return len(self.data) == 8 + 48 * nr and 1 <= nr <= 64

    def send(self, host: socket.socket, memories: dict[str, Memory]) -> None:
        fds = [memories[kind].fd for kind in self.kinds]
        if fds:
            socket.send_fds(host, [self.data], fds, socket.MSG_NOSIGNAL)
        else:
            host.send(self.data, socket.MSG_NOSIGNAL)


def request(nr_off: int, calls: list[tuple[int, ...]], rest: bytes) -> bytes:
    header = struct.pack("<II", 7, (len(calls) + nr_off) % 2**32)
    return header + b"".join(struct.pack("<II5Q", *call) for call in calls) + rest


def many(call: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    return [call] * times


anything = boundaries | st.integers(0, CPUS)
calls_made = st.tuples(
    st.integers(0, CPUS) | st.just(2**32 - 1),
    st.just(0),
    st.integers(0, 8) | st.just(0) | anything,
    page_offsets | anything,
    page_sizes | anything,
    anything,
    anything,
)
requests = st.builds(
    request,
    st.sampled_from([0] * 8 + [1, -1, 2**31]),
    st.lists(calls_made, max_size=5) | st.builds(many, calls_made, st.integers(62, 65)),
    st.sampled_from([b""] * 8 + [b"\0", bytes(48), bytes(65536)]),
)
messages = st.builds(
    Message,
    requests | st.binary(min_size=1, max_size=200),
    st.lists(st.sampled_from(sorted(KINDS)), max_size=12).map(tuple),
)


def reply_to(host: socket.socket) -> bytes:
    """Nothing: it has hung up."""
    try:
        return host.recv(1 << 16)
    except ConnectionResetError:
        return b""


def talk(host: socket.socket, garbage: list[Message], memories: dict[str, Memory]) -> None:
    """Each message is answered if it is a request, and is the last one if it is none."""
    for message in garbage:
        message.send(host, memories)
        reply = reply_to(host)
        if not message.is_request():
            assert not reply
            return
        assert reply[:8] == message.data[:8]
        assert len(reply) == 8 + 16 * struct.unpack_from("<I", reply, 4)[0]


def shout(host: socket.socket, garbage: list[Message], memories: dict[str, Memory]) -> None:
    """Not listening, and gone."""
    for message in garbage:
        try:
            message.send(host, memories)
        except (BrokenPipeError, ConnectionResetError):
            return


def test_garbage_ends_the_connection_and_nothing_else(
    model: Model, memories: dict[str, Memory]
) -> None:
    @fuzzed(short=250, long=10_000)
    @given(garbage=st.lists(messages, max_size=4), listening=st.booleans())
    def run(garbage: list[Message], listening: bool) -> None:
        with connected(model) as host:
            (talk if listening else shout)(host, garbage, memories)

    for memory in memories.values():
        memory.fill(valid_attempt([3, 3], 0, 1, 0).encode(), 0)
    with attached(model):  # the host before us has gone, or we would not be served
        before = open_files(model) - 1
    run()
    until(lambda: open_files(model) == before, "all that came to be closed")
    assert_serves(model, memories)


def test_descriptors_that_come_with_an_empty_message_are_closed(
    model: Model, memories: dict[str, Memory]
) -> None:
    before = open_files(model)
    for _ in range(10):
        with connected(model) as host:
            Message(b"", ("sealed",)).send(host, memories)
    connected(model).close()
    connected(model).close()
    assert open_files(model) <= before + 1  # a host
