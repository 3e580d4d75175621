"""The buffers of a remote as the host holds them: memory, counters, readers.

The one module of the host that touches ffi. Each method that reads is one call into C.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from hypervisor_model import SymbolTable
from hyptracefs._ringbuf import ffi, lib
from hyptracefs.clock import Snapshot
from hyptracefs.events import Event, Formats
from hyptracefs.filters import ACCEPT, CPU, REJECT, Predicate
from hyptracefs.print_fmt import Number, Op, String, Symbol, symbol_texts

log = logging.getLogger(__name__)

PAGE_SIZE: int = lib.RB_PAGE_SIZE
PAGE_HEADER: int = lib.RB_PAGE_HEADER
MIN_PAGES: int = lib.RB_MIN_PAGES
MAX_SPARES: int = lib.RB_MAX_TAKEN - 1
ALL_CPUS: int = lib.READER_ALL_CPUS

# The largest read that the kernel's FUSE passes on as one request.
MAX_READ = 1 << 20

_U32_MAX = 2**32 - 1


class Hvc(IntEnum):
    """Numbers of the hypercalls. The swap is made in C."""

    TRACING_LOAD = lib.HVC_TRACING_LOAD
    TRACING_UNLOAD = lib.HVC_TRACING_UNLOAD
    TRACING_ENABLE = lib.HVC_TRACING_ENABLE
    TRACING_SWAP_READER = lib.HVC_TRACING_SWAP_READER
    TRACING_RESET = lib.HVC_TRACING_RESET
    TRACING_UPDATE_CLOCK = lib.HVC_TRACING_UPDATE_CLOCK
    TRACING_ENABLE_EVENT = lib.HVC_TRACING_ENABLE_EVENT
    TRACING_WRITE_EVENT = lib.HVC_TRACING_WRITE_EVENT
    TRACING_STATISTICS = lib.HVC_TRACING_STATISTICS
    TRACING_SWAP_READERS = lib.HVC_TRACING_SWAP_READERS
    TRACING_DOORBELL = lib.HVC_TRACING_DOORBELL


class DoorbellOp(IntEnum):
    """What Hvc.TRACING_DOORBELL is asked for."""

    REMOVE = lib.HYP_DOORBELL_REMOVE
    HANG = lib.HYP_DOORBELL_HANG
    ARM = lib.HYP_DOORBELL_ARM


def hvc_call(conduit: int, cpu: int, nr: Hvc, args: Sequence[int]) -> int:
    """Make a hypercall on `cpu`; 0 or -errno."""
    result: int = lib.hvc_call(conduit, cpu, nr, [*args, *[0] * (4 - len(args))])
    return result


def hvc_statistics(conduit: int, cpu: int) -> tuple[int, bytes]:
    """What the hypervisor has counted, asked on `cpu`: 0 or -errno, and a hyp_statistics_msg."""
    room = ffi.new("uint8_t[]", lib.HYP_MAX_STATISTICS)
    result = hvc_call(conduit, cpu, Hvc.TRACING_STATISTICS, [int(ffi.cast("uintptr_t", room))])
    (size,) = struct.unpack_from("<I", ffi.buffer(room))
    return result, bytes(ffi.buffer(room)[:size])


class Counter(IntEnum):
    """Which counter stamps a producer's events (hypervisor_model/protocol.h)."""

    CPU = lib.HYP_COUNTER_CPU
    MONOTONIC_RAW = lib.HYP_COUNTER_MONOTONIC_RAW


def clock_snapshot(counter: int = Counter.CPU) -> Snapshot:
    """Boot time and the counter at one instant, to some ten nanoseconds.

    Raises OSError EINVAL for a counter that this host cannot read.
    """
    instant = ffi.new("struct clock_instant *")
    result: int = lib.clock_snapshot(counter, instant)
    if result:
        raise OSError(-result, f"counter {counter} cannot be read: {os.strerror(-result)}")
    return Snapshot(instant.boot_ns, instant.cycles, instant.error_ns)


def pages_for(size_kb: int) -> int:
    """Data pages per CPU for a buffer of `size_kb` KiB, the reader page included (SPEC A.4).

    Raises OSError E2BIG when their number does not fit the descriptor.
    """
    payload = PAGE_SIZE - PAGE_HEADER
    pages = max(-(-size_kb * 1024 // payload), MIN_PAGES - 1) + 1
    if pages > _U32_MAX:
        raise OSError(errno.E2BIG, f"buffer of {size_kb} KiB: {pages} pages per CPU are too many")
    return pages


# --- the table of operations ----------------------------------------------------------

_KINDS = {
    "signed": lib.RENDER_SIGNED,
    "unsigned": lib.RENDER_UNSIGNED,
    "hex": lib.RENDER_HEX,
}
_FLAGS = {"-": lib.RENDER_LEFT, "0": lib.RENDER_ZERO, "X": lib.RENDER_UPPER}

# What render_event_check() says.
_REFUSALS = {
    errno.E2BIG: "its lines could be too long",
    errno.EINVAL: "a field has not the size, or the place, of a number",
}

# Texts in all tables of symbols: what a hypervisor describes cannot fill our memory.
_MAX_TEXTS = 1 << 20


class RenderTable:
    """Events by id, compiled for C. Keeps alive what the C structures point to.

    An event that C refuses to render is shown in a simpler form, with a warning.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._alive: list[Any] = []
        self._texts: dict[str, tuple[Any, int]] = {}
        self._symbols: dict[tuple[SymbolTable, int, bool], Any] = {}
        self._nr_texts = 0
        nr = max((event.id for event in events), default=-1) + 1
        self._events = self._new("struct render_event[]", nr)
        for event in events:
            self._fill(event)
        self.table = ffi.new("struct render_table *", (self._events, nr))

    @property
    def address(self) -> int:
        """Where `table` is, for other modules of C."""
        return int(ffi.cast("uintptr_t", self.table))

    def _new(self, ctype: str, init: object) -> Any:
        made = ffi.new(ctype, init)
        self._alive.append(made)
        return made

    def _text(self, text: str) -> tuple[Any, int]:
        if text not in self._texts:
            data = text.encode("ascii")
            # Zero bytes up to what the renderer may copy at once.
            padded = f"char[{len(data) + lib.RENDER_TEXT_ALIGN}]"
            self._texts[text] = self._new(padded, data), len(data)
        return self._texts[text]

    def _new_symbols(self, op: Symbol) -> Any:
        texts = symbol_texts(op.table, op.field)
        fallback = op.table.fallback or ""
        self._nr_texts += len(texts)
        if self._nr_texts > _MAX_TEXTS:
            raise OSError(
                errno.E2BIG, f"more than {_MAX_TEXTS} values in the symbols of all events"
            )
        array = self._new("struct render_text[]", [self._text(text) for text in texts])
        return self._new("struct render_symbols *", (array, len(texts), self._text(fallback)))

    def _symbols_of(self, op: Symbol) -> Any:
        key = (op.table, op.field.size, op.field.signed)
        if key not in self._symbols:
            self._symbols[key] = self._new_symbols(op)
        return self._symbols[key]

    def _op(self, before: str, op: Number | Symbol | String | None) -> dict[str, Any]:
        """The text before a field, and the field; None: no field."""
        text = self._text(before)
        if op is None:
            return {"kind": lib.RENDER_TEXT, "text": text}
        common = {
            "text": text,
            "size": op.field.size,
            "offset": op.field.offset,
            "width": op.width,
            "flags": sum(_FLAGS[flag] for flag in set(op.flags)),
        }
        if isinstance(op, Number):
            return {"kind": _KINDS[op.base], **common}
        if isinstance(op, String):
            return {"kind": lib.RENDER_STRING, **common}
        symbols = self._symbols_of(op)
        if op.table.fallback is not None:
            return {"kind": lib.RENDER_SYMBOL, "symbols": symbols, **common}
        common["flags"] |= lib.RENDER_EXTEND * op.field.signed
        return {"kind": lib.RENDER_SYMBOL_OR_HEX, "symbols": symbols, **common}

    def _ops(self, ops: Iterable[Op]) -> Iterator[dict[str, Any]]:
        before = ""
        for op in ops:
            if isinstance(op, str):
                before += op
                continue
            yield self._op(before, op)
            before = ""
        if before:
            yield self._op(before, None)

    def _formats(self, formats: Formats | None) -> Any:
        if formats is None:
            return ffi.NULL
        events = self._new("struct render_event[]", len(formats.lines))
        for slot, ops in zip(events, formats.lines, strict=True):
            self._render(slot, ops, ffi.NULL)
        index = formats.index
        return self._new("struct render_formats *", (events, len(events), index.offset, index.size))

    def _render(self, slot: Any, ops: Sequence[Op], formats: Any) -> None:
        made = list(self._ops(ops))
        slot.formats = formats
        slot.nr_ops = len(made)
        slot.ops = self._new("struct render_op[]", made)
        result = lib.render_event_check(ffi.addressof(slot))
        if result:
            raise OSError(-result, _REFUSALS[-result])

    def _fill(self, event: Event) -> None:
        forms = (event.ops, *event.simpler_ops)
        instead = ("raw", "by its name alone", "as an unknown one")[-len(forms) :]
        for ops, next_form in zip(forms, instead, strict=True):
            try:
                # Its simpler forms are of the fields, whatever the format.
                formats = event.formats if ops is event.ops else None
                self._render(self._events[event.id], ops, self._formats(formats))
            except OSError as error:
                log.warning("event %s: %s: shown %s", event.name, error.strerror, next_form)
            else:
                return
        self._events[event.id] = (ffi.NULL, 0, 0, 0, 0, ffi.NULL)


# --- the table of filters ---------------------------------------------------------------

_FILTER_OPS = {
    "==": lib.FILTER_EQ,
    "!=": lib.FILTER_NE,
    "<": lib.FILTER_LT,
    "<=": lib.FILTER_LE,
    ">": lib.FILTER_GT,
    ">=": lib.FILTER_GE,
    "&": lib.FILTER_AND,
}
_FILTER_ENDS = {ACCEPT: lib.FILTER_ACCEPT, REJECT: lib.FILTER_REJECT}


class FilterTable:
    """Filters by event id, for C. Keeps alive what the C structures point to.

    Raises OSError EINVAL for one that C refuses to run.
    """

    def __init__(self, filters: Mapping[int, Sequence[Predicate]]) -> None:
        self._alive: list[Any] = []
        nr = max(filters, default=-1) + 1
        self._filters = ffi.new("struct filter[]", nr)
        for event, predicates in filters.items():
            self._fill(event, predicates)
        self.table = ffi.new("struct filter_table *", (self._filters, nr))

    def _fill(self, event: int, predicates: Sequence[Predicate]) -> None:
        made = ffi.new("struct filter_pred[]", list(map(self._pred, predicates)))
        self._alive.append(made)
        self._filters[event] = (made, len(predicates))
        if lib.filter_check(ffi.addressof(self._filters, event)):
            raise OSError(errno.EINVAL, f"event {event}: its filter cannot be run")

    @staticmethod
    def _pred(pred: Predicate) -> dict[str, Any]:
        return {
            "op": _FILTER_OPS[pred.op],
            "source": lib.FILTER_CPU if pred.field is CPU else lib.FILTER_FIELD,
            "size": pred.field.size,
            "is_signed": pred.field.signed,
            "offset": pred.field.offset,
            "value": pred.value % (1 << 64),
            "if_true": _FILTER_ENDS.get(pred.if_true, pred.if_true),
            "if_false": _FILTER_ENDS.get(pred.if_false, pred.if_false),
        }

    def __bool__(self) -> bool:
        """Whether there is any."""
        return len(self._filters) > 0

    def matches(self, event: int, payload: bytes, cpu: int) -> bool:
        """Whether an event passes."""
        if event >= len(self._filters):
            return True
        one = ffi.addressof(self._filters, event)
        matches: bool = lib.filter_match(one, payload, len(payload), cpu)
        return matches


# --- memory -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """How the memory of a buffer is divided: for each CPU its meta page, then its pages."""

    cpus: int
    pages: int  # data pages per CPU
    spares: int = 0  # of these, the last ones: the host has them beside its reader page

    @property
    def size(self) -> int:
        """Bytes of all pages; the descriptor lies behind them."""
        return self.cpus * self._cpu_size

    @property
    def _cpu_size(self) -> int:
        return (1 + self.pages) * PAGE_SIZE

    def meta(self, cpu: int) -> int:
        """Offset of the meta page of `cpu`."""
        return cpu * self._cpu_size

    def page(self, cpu: int, page: int) -> int:
        """Offset of data page `page` of `cpu`."""
        return self.meta(cpu) + (1 + page) * PAGE_SIZE

    def descriptor(self) -> bytes:
        """The hyp_trace_desc for the load call, in whole pages (SPEC A.2)."""
        records = b"".join(self._record(cpu) for cpu in range(self.cpus))
        container = struct.pack("<iIQ", self.cpus, 0, 16 + len(records))
        no_backing = struct.pack("<QQ", 0, 0)
        desc = no_backing + container + records
        return desc.ljust(-(-len(desc) // PAGE_SIZE) * PAGE_SIZE, b"\0")

    def _record(self, cpu: int) -> bytes:
        first = self.page(cpu, 0)
        pages = range(first, first + self.pages * PAGE_SIZE, PAGE_SIZE)
        return struct.pack(f"<iIQ{self.pages}Q", cpu, self.pages, self.meta(cpu), *pages)


def _meminfo(wanted: str) -> int:
    """Bytes that proc(5) gives for `wanted` in /proc/meminfo."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) * 1024
    return 0


def physical_memory() -> int:
    """Bytes of memory that the machine has."""
    return _meminfo("MemTotal")


def check_memory(size: int) -> None:
    """Refuse what the machine does not have: the kernel would end processes to find it."""
    available = _meminfo("MemAvailable")  # could be allocated without swapping
    if size > available:
        raise OSError(
            errno.ENOMEM,
            f"buffer: {size >> 20} MiB wanted, {available >> 20} MiB of memory are available",
        )


class Memory:
    """A sealed memfd of `size` bytes and `behind` them, mapped here for reading only.

    It is there until all who hold it have closed it; who makes it is the first of them. Raises
    OSError ENOMEM. Takes as long as clearing the memory does.
    """

    def __init__(self, size: int, behind: bytes = b"") -> None:
        size += len(behind)
        check_memory(size)
        try:
            self._allocate(size, behind)
        except OSError as error:
            raise OSError(errno.ENOMEM, f"buffer: {size} bytes: {error.strerror}") from error
        self._holders = 1
        self._lock = threading.Lock()

    def _allocate(self, size: int, behind: bytes) -> None:
        with ExitStack() as undo:
            self.fd = os.memfd_create("hyptracefs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            undo.callback(os.close, self.fd)
            os.posix_fallocate(self.fd, 0, size)
            os.pwrite(self.fd, behind, size - len(behind))
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            undo.callback(self._map.close)
            self._view = ffi.from_buffer("uint8_t[]", self._map)
            undo.pop_all()

    def at(self, offset: int) -> Any:
        """Pointer to byte `offset`."""
        return self._view + offset

    def hold(self) -> None:
        """One more who will close it."""
        with self._lock:
            self._holders += 1

    def close(self) -> None:
        """Let go; the last one gives the memory back."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        ffi.release(self._view)
        self._map.close()
        os.close(self.fd)


# --- the buffer ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stats:
    """Counters of one CPU, as last polled: entries = read + overrun + unread."""

    entries: int
    overrun: int
    read: int
    unread: int
    lost: int
    skipped: int
    filtered: int
    abandoned: int
    unreported: int
    broken_pages: int
    pages_lost: int
    pages_touched: int
    dropped: int
    swap_error: int


class Carry:
    """What an open file still owes to its reader: the rest of a line or of a page."""

    def __init__(self) -> None:
        self.c = ffi.new("struct reader_carry *")

    def __bool__(self) -> bool:
        """Whether anything is owed."""
        owed: bool = self.c.offset < self.c.length
        return owed

    def forget(self, cpu: int) -> None:
        """What it owes of `cpu` is no loss when nobody reads it: that was reset."""
        if self.c.cpu == cpu:
            self.c.lost = self.c.events = 0
            self.c.gap = False


class RingBuffer:
    """The loaded buffers of all CPUs, for reading.

    `conduit`: where the swap calls go; `hvc_cpu`: the CPU that they are made from.
    """

    def __init__(
        self, memory: Memory, geometry: Geometry, table: RenderTable, conduit: int, hvc_cpu: int
    ) -> None:
        self._memory = memory
        self._table = table
        self._cpus = ffi.new("struct reader_cpu[]", geometry.cpus)
        for cpu in range(geometry.cpus):
            slot = self._cpus[cpu]
            slot.meta = ffi.cast("const struct trace_buffer_meta *", memory.at(geometry.meta(cpu)))
            slot.pages = memory.at(geometry.page(cpu, 0))
            slot.nr_pages = geometry.pages
            slot.nr_spares = geometry.spares
        self._reader = ffi.new("struct reader *")
        self._reader.conduit = ffi.cast("struct hvc_conduit *", conduit)
        self._reader.hvc_cpu = hvc_cpu
        self._reader.max_taken = 1 + geometry.spares
        self._reader.nr_cpus = geometry.cpus
        self._reader.cpus = self._cpus
        self._reader.events = table.table[0]
        self._orders = [
            ffi.new("uint32_t[]", 2 * geometry.pages + geometry.spares)
            for _ in range(geometry.cpus)
        ]
        for cpu, order in enumerate(self._orders):
            lib.reader_keep_order(self._reader, cpu, order)
        # Now, because these are wanted where nobody could be told that there is no memory.
        self._heirs = [ffi.new("uint32_t[]", geometry.pages) for _ in range(geometry.cpus)]
        self._stats = ffi.new("struct reader_stats *")
        self._filters = FilterTable({})
        self._out = bytearray(MAX_READ)
        self._c_out = ffi.from_buffer("uint8_t[]", self._out)

    def poll(self) -> bool:
        """Copy the counters of all CPUs; True if there are unread events."""
        unread: bool = lib.reader_poll(self._reader)
        return unread

    def unread(self, cpu: int = ALL_CPUS) -> int:
        """Events unread at the last poll."""
        unread: int = lib.reader_unread(self._reader, cpu)
        return unread

    def read_text(self, cpu: int, carry: Carry, size: int) -> memoryview:
        """Consume events as text, up to `size` bytes; empty when there are none.

        The view is valid until the next read of any file.
        """
        out = ffi.cast("char *", self._c_out)
        return self._read(lib.reader_text(self._reader, cpu, carry.c, out, min(size, MAX_READ)))

    def read_raw(self, cpu: int, carry: Carry, size: int) -> memoryview:
        """Consume events as page images; otherwise like read_text()."""
        done = lib.reader_raw(self._reader, cpu, carry.c, self._c_out, min(size, MAX_READ))
        return self._read(done)

    def abandon(self, carry: Carry) -> None:
        """Nobody will read what `carry` still owes of this buffer: it is lost, and will be told."""
        lib.reader_abandon(self._reader, carry.c)

    def fill(self, slot: Any) -> None:
        """Let a struct buffer_slot be this buffer's."""
        slot.out = self._c_out
        slot.room = MAX_READ
        slot.reader = self._reader

    def _read(self, done: int) -> memoryview:
        return memoryview(self._out)[:done]

    def dump(self, cpu: int = ALL_CPUS) -> Dump:
        """What is unread now, as text, without consuming it. Close it with close()."""
        return Dump(self._reader, self._memory, (self._table, self._filters), cpu)

    def set_filters(self, filters: FilterTable) -> None:
        """From now on, pass over events that do not match."""
        self._filters = filters
        lib.reader_set_filters(self._reader, filters.table[0])

    @property
    def unfinished(self) -> bool:
        """Whether the last read ended early: there may be more, even if it was empty."""
        unfinished: bool = lib.reader_unfinished(self._reader)
        return unfinished

    def ready(self, cpu: int = ALL_CPUS) -> bool:
        """Whether a read would give something now, or be unfinished. Polls.

        With filters, it takes a look at the events, and passes over those that do not match.
        """
        if not self._filters:
            return self.poll() and self.unread(cpu) > 0
        ready: bool = lib.reader_ready(self._reader, cpu)
        return ready

    def reset(self, cpu: int) -> None:
        """The hypervisor has reset `cpu`: forget the position there."""
        lib.reader_reset(self._reader, cpu)

    def inherit(self) -> None:
        """The hypervisor is gone: read what it has left, without it."""
        for cpu, heirs in enumerate(self._heirs):
            lib.reader_inherit(self._reader, cpu, heirs)

    def statistics(self, cpu: int) -> Stats:
        """Counters of `cpu`, as last polled."""
        lib.reader_stats(self._reader, cpu, self._stats)
        return Stats(*(getattr(self._stats, name) for name in Stats.__dataclass_fields__))

    def close(self) -> None:
        """Give the memory back, or leave that to the last dump. The hypervisor must have let go."""
        self._memory.close()


class Slot:
    """The place of the buffer that is loaded, if any, for pipes."""

    def __init__(self) -> None:
        self.c = ffi.new("struct buffer_slot *")
        self._buffer: RingBuffer | None = None

    @property
    def buffer(self) -> RingBuffer | None:
        """What is loaded."""
        return self._buffer

    @buffer.setter
    def buffer(self, buffer: RingBuffer | None) -> None:
        self._buffer = buffer
        if buffer is None:
            self.c.reader = ffi.NULL
        else:
            buffer.fill(self.c)


# Between two looks for events.
SHORTEST_NS: int = lib.EVENTS_SHORTEST_NS
LONGEST_NS: int = lib.EVENTS_LONGEST_NS


def interval_ns(waited_ns: int, fixed_ns: int) -> int:
    """When to look next, after so long without events; `fixed_ns`: always so, 0: it adapts."""
    interval: int = lib.events_interval(min(waited_ns, 1 << 62), fixed_ns)
    return interval


class EventSource:
    """Where the events of the buffer in `slot` come from, for the pump, which waits for them.

    What is set here is in force at once: it and we do not run at the same time. Without a pump
    nothing happens.
    """

    def __init__(self, slot: Slot) -> None:
        self._alive = slot
        self.c = ffi.new("struct buffer_source *", {"slot": slot.c})
        lib.source_init(self.c)
        self.told_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self.told_fd)
        self.c.events.told_fd = self.told_fd

    @property
    def address(self) -> int:
        """Of its struct event_source."""
        return int(ffi.cast("uintptr_t", self.c))

    @property
    def attended(self) -> bool:
        """Whether a pump waits for them."""
        attended: bool = lib.source_attended(self.c)
        return attended

    def listen(self, alive_fd: int, bell_fd: int, interval_ns: int) -> None:
        """Serve who waits while `alive_fd` does not hang up, without our help.

        Whenever the socket `bell_fd` is rung, or each `interval_ns`; -1: there is no such thing;
        0: as often as seems good.
        """
        events = self.c.events
        events.alive_fd, events.bell_fd, events.interval_ns = alive_fd, bell_fd, interval_ns
        events.gone = False
        lib.source_changed(self.c)

    def give_up(self) -> None:
        """Nobody writes any more: what can still be read is ours to know."""
        self.c.events.gone = True
        self.c.events.bell_fd = self.c.events.alive_fd = -1
        lib.source_changed(self.c)

    def look(self) -> None:
        """Look now."""
        lib.source_changed(self.c)

    def want(self, cpu: int) -> None:
        """Make `told_fd` readable, once, when there are events of `cpu`; or when it gives up."""
        self.c.events.wanted_cpu = cpu
        self.c.events.wanted = True
        lib.source_changed(self.c)

    @property
    def gone(self) -> bool:
        """Whether it has given up."""
        gone: bool = self.c.events.gone
        return gone

    @property
    def has_bell(self) -> bool:
        """Whether there is one, and it has not been let go of."""
        return int(self.c.events.bell_fd) >= 0

    @property
    def parked(self) -> int:
        """Reads that wait."""
        return int(self.c.events.nr_parked)

    @property
    def looks(self) -> int:
        """How often it has looked."""
        return int(self.c.events.nr_looks)

    @property
    def armed(self) -> int:
        """How often it has asked for a ring."""
        return int(self.c.events.nr_armed)


class Pipe:
    """The end of a pipe that C reads without Python; at `address` as long as this object lives.

    It gives what read_text() or read_raw() of the buffer in `slot` would give, and shares `carry`
    with them.
    """

    def __init__(self, slot: Slot, source: EventSource, cpu: int, carry: Carry, raw: bool) -> None:
        self._alive = slot, source, carry
        self._pipe = ffi.new("struct buffer_pipe *", {"slot": slot.c, "cpu": cpu, "carry": carry.c})
        self._c = ffi.gc(self._pipe, lib.pipe_end)
        lib.pipe_init(self._c, source.c, raw)

    @property
    def address(self) -> int:
        """For the hook into libfuse."""
        return int(ffi.cast("uintptr_t", self._c))

    @property
    def cached(self) -> int:
        """Inode whose page cache has asked for something; 0: none has."""
        return int(self._c.end.cached)

    def read_cached(self, size: int, offset: int) -> bytes:
        """What belongs at `offset` of the page cache: asked again, it is the same.

        Raises OSError EAGAIN when there is none, EINVAL for text, and after read() of part of a
        page, EIO for an offset of long ago.
        """
        data = ffi.new("const uint8_t **")
        done: int = lib.pipe_cache(self._c, size, offset, data)
        if done < 0:
            raise OSError(-done, f"a splice from {offset}: {os.strerror(-done)}")
        return bytes(ffi.buffer(data[0], done))


# --- without consuming --------------------------------------------------------------------

# Pages that are measured, or made into text, in about 0.5 ms.
_QUICK_PAGES = 64

# Bytes of text that are made at once where nobody wants to see them.
_SCRATCH = 1 << 16


class _Cursor:
    """A position in the text of a dump."""

    def __init__(self, dump: Any, nr_cpus: int) -> None:
        cpus = ffi.new("struct reader_cpu[]", nr_cpus)
        sources = ffi.new("struct dump_source[]", nr_cpus)
        self._alive = dump, cpus, sources
        self.c = ffi.new("struct dump_cursor *", {"dump": dump, "cpus": cpus, "sources": sources})
        lib.dump_rewind(self.c)


def _data_bytes(cpu: Any) -> int:
    """Of the pages of a dump_cpu that are shown and have events."""
    shown = (*range(cpu.ring), *range(cpu.first, cpu.nr))
    pages = [cpu.index[number] for number in shown if cpu.index[number].entries]
    consumed: int = cpu.offset if pages and cpu.index[0].entries else 0
    return sum(int(page.commit) for page in pages) - consumed


class Dump:
    """What was unread at one instant: a text that can be read from any offset, again and again.

    It is made when it is read. Events that are overwritten meanwhile are told as lost, also
    those that a reset overwrites; those that are consumed meanwhile are still there as long as
    their pages are. It outlives its buffer.

    Where `large`, read() and length() can take longer than the event loop should wait: call
    them in a thread. They run while consuming readers read in another, and hold no lock of
    Python's meanwhile; but one call at a time for each dump, and close() behind the last one.
    """

    def __init__(self, reader: Any, memory: Memory, tables: object, cpu: int) -> None:
        nr_cpus = reader.nr_cpus
        cpus = ffi.new("struct dump_cpu[]", nr_cpus)
        indexes = []
        for each in range(nr_cpus) if cpu == ALL_CPUS else [cpu]:
            indexes.append(ffi.new("struct dump_page[]", reader.cpus[each].nr_pages))
            cpus[each].index = indexes[-1]
        self._alive = cpus, indexes, tables
        self._dump = ffi.new("struct dump *", {"nr_cpus": nr_cpus, "cpus": cpus})
        lib.dump_begin(self._dump, reader)
        self._cursor: _Cursor | None = None
        self._closed = False
        self._memory = memory
        # A cursor has room for a page of each CPU, whichever are wanted.
        self.large = max(nr_cpus, sum(each.nr for each in cpus)) > _QUICK_PAGES
        if not self.large:
            self._measured()
        memory.hold()  # last: who gets no dump cannot close it

    def _measured(self) -> _Cursor:
        """The cursor that read() moves on. Events have been counted."""
        if self._cursor is None:
            lib.dump_measure(self._dump)
            self._cursor = self._new_cursor()
        return self._cursor

    def _new_cursor(self) -> _Cursor:
        return _Cursor(self._dump, self._dump.nr_cpus)

    def read(self, size: int, offset: int) -> memoryview:
        """`size` bytes of the text, 1 MiB at most, from `offset` on; fewer only at its end.

        Reading on where the last read ended is fast; elsewhere takes as long as making all
        text before `offset`.
        """
        if self._closed:
            return memoryview(b"")
        size = min(size, MAX_READ)
        out = bytearray(max(size, _SCRATCH))
        done = lib.dump_read(
            self._measured().c, offset, ffi.from_buffer("char[]", out), len(out), size
        )
        return memoryview(out)[:done]

    def length(self) -> int:
        """Bytes of the text if it is made now."""
        if self._closed:
            return 0
        self._measured()
        out = bytearray(_SCRATCH)
        cursor = self._new_cursor()  # has a name, so that it lives until C is done with it
        length: int = lib.dump_length(cursor.c, ffi.from_buffer("char[]", out), len(out))
        return length

    def data_bytes(self) -> int:
        """How much of the pages the events take."""
        if self._closed:
            return 0
        self._measured()
        return sum(_data_bytes(self._dump.cpus[cpu]) for cpu in range(self._dump.nr_cpus))

    def close(self) -> None:
        """Let go of the memory; nothing can be read any more. Fine when already closed."""
        if not self._closed:
            self._closed = True
            self._memory.close()
