"""Captures in batches of events: columns, lines, stays and packets, made by C; and their pages.

The one module of hyptrace that touches ffi. What it gives out as bytes is a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from hypervisor_model import FieldInfo
from hyptrace._decode import ffi, lib
from hyptrace.capture import PAGE_SIZE, Capture
from hyptrace.formats import Described, needed
from hyptracefs.events import Event
from hyptracefs.ring_buffer import RenderTable

BATCH_EVENTS = 1 << 16
REASONS: int = lib.STAY_REASONS
_NUMBER_SIZES = (1, 2, 4, 8)
_IDS = 1 << 16
_LINES = 1 << 20  # bytes that are made at a time
_LOST_UNKNOWN = 2**64 - 1


def is_number(field: FieldInfo) -> bool:
    """Whether `field` is a number, and no array."""
    return field.size in _NUMBER_SIZES and "[" not in field.type


@dataclass(frozen=True)
class CpuCount:
    """What a capture has of a CPU, once all of it is decoded."""

    cpu: int
    events: int
    lost: int  # those that somebody has counted
    uncounted: int  # times that events were lost, and nobody has counted them
    broken_pages: int  # whose rest was skipped
    odd_events: int  # of unknown id, or too short for their event
    lost_at_end: int  # those of `lost` that no event follows; -1: nobody has counted them


class Batch:
    """Events in the order of their times. Valid until the next one is asked for.

    Events are told by index: their place in the capture's `events`; one more is for those of
    unknown id, or too short for their event.
    """

    def __init__(self, nr_events: int, capacity: int = BATCH_EVENTS) -> None:
        self.nr_events = nr_events
        self.capacity = capacity
        self.arrays = {
            name: ffi.new(f"{ctype}[]", capacity)
            for name, ctype in (
                ("time", "uint64_t"), ("lost", "uint64_t"), ("payload", "const uint8_t *"),
                ("cpu", "uint16_t"), ("id", "uint16_t"), ("event", "uint16_t"),
                ("length", "uint16_t"),
            )
        }  # fmt: skip
        self.c = ffi.new("struct decode_batch *", {**self.arrays, "capacity": capacity})
        self._rows = ffi.new("uint32_t[]", capacity)
        self._cpu_rows = ffi.new("uint32_t[]", capacity)
        self._starts = ffi.new("uint32_t[]", nr_events + 2)

    def __len__(self) -> int:
        nr: int = self.c.nr
        return nr

    def column(self, name: str) -> bytes:
        """A column of struct decode_batch, of all rows."""
        array = self.arrays[name]
        return bytes(ffi.buffer(array, len(self) * ffi.sizeof(ffi.typeof(array).item)))

    def cpus(self) -> bytearray:
        """The CPU of each row, as u32."""
        return _widened(self.arrays["cpu"], ffi.NULL, len(self))

    def ids(self) -> bytearray:
        """The id of each row, as u32."""
        return _widened(self.arrays["id"], ffi.NULL, len(self))

    def by_event(self) -> list[Rows]:
        """Rows of each event that there is, and of those that are none."""
        nr_keys = self.nr_events + 1
        lib.decode_group(self.c, self.c.event, nr_keys, self._rows, self._starts)
        starts = self._starts
        return [
            Rows(self, key, self._rows + starts[key], starts[key + 1] - starts[key])
            for key in range(nr_keys)
            if starts[key + 1] > starts[key]
        ]

    def by_cpu(self, nr_cpus: int) -> list[Rows]:
        """Rows of each CPU that there is, below `nr_cpus`."""
        starts = ffi.new("uint32_t[]", nr_cpus + 1)
        lib.decode_group(self.c, self.c.cpu, nr_cpus, self._cpu_rows, starts)
        return [
            Rows(self, key, self._cpu_rows + starts[key], starts[key + 1] - starts[key])
            for key in range(nr_cpus)
            if starts[key + 1] > starts[key]
        ]


def _widened(column: Any, rows: Any, nr: int) -> bytearray:
    out = bytearray(4 * nr)
    lib.decode_u16(column, rows, nr, ffi.from_buffer("uint32_t[]", out))
    return out


@dataclass(frozen=True)
class Rows:
    """Some rows of a batch: those of `key`, an event or a CPU."""

    batch: Batch
    key: int
    c: Any
    nr: int

    def times(self) -> bytearray:
        """The time of each row, as u64."""
        out = bytearray(8 * self.nr)
        to = ffi.from_buffer("uint64_t[]", out)
        lib.decode_u64(self.batch.arrays["time"], self.c, self.nr, to)
        return out

    def cpus(self) -> bytearray:
        """The CPU of each row, as u32."""
        return _widened(self.batch.arrays["cpu"], self.c, self.nr)

    def numbers(self, field: FieldInfo, size: int) -> bytearray:
        """A column of `field`, a number, widened to 2, 4 or 8 bytes."""
        out = bytearray(self.nr * size)
        of = ffi.new("struct decode_field *", (field.offset, field.size, field.signed))
        to = ffi.from_buffer("uint8_t[]", out)
        lib.decode_numbers(self.batch.c, self.c, self.nr, of, size, to)
        return out

    def bytes(self, field: FieldInfo) -> bytearray:
        """A column of `field`, of any size, as it is."""
        out = bytearray(self.nr * field.size)
        to = ffi.from_buffer("uint8_t[]", out)
        lib.decode_bytes(self.batch.c, self.c, self.nr, field.offset, field.size, to)
        return out

    def tails(self, field: FieldInfo, item: int) -> tuple[bytearray, bytearray]:
        """Where in the items each row ends (s32, from 0 on), and the items of `item` bytes."""
        ends = bytearray(4 * (self.nr + 1))
        c_ends = ffi.from_buffer("int32_t[]", ends)

        def tails(out: Any) -> int:
            count: int = lib.decode_tails(
                self.batch.c, self.c, self.nr, field.offset, item, c_ends, out
            )
            return count

        out = bytearray(tails(ffi.NULL) * item)
        tails(ffi.from_buffer("uint8_t[]", out))
        return ends, out


class Decoder:
    """Decodes `capture` once. `read`: how many bytes of it have been."""

    def __init__(self, capture: Capture) -> None:
        events = capture.events
        self.read = 0
        self._capture = capture
        self._chunks = [pages.chunks() for pages in capture.cpus]
        self._fed: list[bytes] = [b""] * len(self._chunks)
        nr_cpus = len(self._chunks)
        self._cpus = ffi.new("struct decode_cpu[]", max(nr_cpus, 1))
        for nr, pages in enumerate(capture.cpus):
            self._cpus[nr].nr = pages.cpu
        self._heap = ffi.new("uint32_t[]", max(nr_cpus, 1))
        self._event_of = index_by_id(events)
        self._needs = ffi.new("uint16_t[]", [needed(each.event.info) for each in events] or [0])
        self._c = ffi.new(
            "struct decoder *",
            {
                "cpus": self._cpus,
                "nr_cpus": nr_cpus,
                "heap": self._heap,
                "event_of": self._event_of,
                "needs": self._needs,
                "nr_events": len(events),
            },
        )
        self.batch = Batch(len(events))

    def _feed(self, nr: int) -> None:
        data = next(self._chunks[nr], b"")
        self._fed[nr] = data  # C points into it
        self.read += len(data)
        pages = ffi.from_buffer("uint8_t[]", data) if data else ffi.NULL
        lib.decode_feed(ffi.addressof(self._cpus, nr), pages, len(data))

    def _feed_hungry(self) -> None:
        for nr in range(len(self._chunks)):
            if self._cpus[nr].state == lib.DECODE_HUNGRY:
                self._feed(nr)

    def batches(self) -> Iterator[Batch]:
        """All events, none of the batches empty."""
        while True:
            hungry = lib.decode_next(self._c, self.batch.c)
            if len(self.batch):
                yield self.batch
            elif not hungry:
                return
            if hungry:
                self._feed_hungry()

    def counts(self) -> list[CpuCount]:
        """What each CPU had, so far."""
        return [
            CpuCount(
                cpu.nr, cpu.events, cpu.lost_events, cpu.uncounted, cpu.broken_pages,
                cpu.odd_events, -1 if cpu.lost == _LOST_UNKNOWN else cpu.lost,
            )
            for cpu in self._cpus[0 : len(self._chunks)]
        ]  # fmt: skip


# --- pages -----------------------------------------------------------------------------------


class PagePacker:
    """Makes pages of one CPU fewer, each as it comes: see src/pack.h."""

    def __init__(self) -> None:
        self._c = ffi.new("struct pack_cpu *")

    @property
    def is_open(self) -> bool:
        """Whether what pack() gives begins with what shall replace the last page before."""
        is_open: bool = self._c.open
        return is_open

    def pack(self, pages: memoryview) -> bytearray:
        """What `pages` become."""
        out = bytearray(len(pages) + PAGE_SIZE)
        size = lib.pack_pages(
            self._c,
            ffi.from_buffer("uint8_t[]", pages),
            len(pages),
            ffi.from_buffer("uint8_t[]", out),
        )
        del out[size:]
        return out


# --- text ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextField:
    """A field of a record, as a line says it; `symbols`: values by what is said for them."""

    field: FieldInfo
    base: Literal["signed", "unsigned", "hex", "symbol"]
    padded: bool = False
    symbols: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class TextPattern:
    """What a line says of an event, and how long its records are.

    `index`: a field that no line says but by which of the event's patterns it is, and its value.
    """

    event: Event
    ops: Sequence[str | TextField]
    length: int
    index: tuple[FieldInfo, int] | None = None


_TEXT_KINDS = {
    "signed": lib.TEXT_SIGNED,
    "unsigned": lib.TEXT_UNSIGNED,
    "hex": lib.TEXT_HEX,
    "symbol": lib.TEXT_SYMBOL,
}


class TextParser:
    """Makes lines events again. `patterns` are of `events`; CPUs are below `nr_cpus`."""

    def __init__(
        self, events: Sequence[Described], patterns: Sequence[TextPattern], nr_cpus: int
    ) -> None:
        self._alive: list[Any] = []
        self.batch = Batch(len(events))
        self._indices = {each.event.id: index for index, each in enumerate(events)}
        stride = max((pattern.length for pattern in patterns), default=0)
        self._cpus = self._new("struct text_cpu[]", nr_cpus)
        self._c = self._new(
            "struct text_decoder *",
            {
                "patterns": self._new("struct text_pattern[]", [*map(self._pattern, patterns)]),
                "nr_patterns": len(patterns),
                "cpus": self._cpus,
                "nr_cpus": nr_cpus,
                "records": self._new("uint8_t[]", self.batch.capacity * stride),
                "stride": stride,
            },
        )

    def _new(self, ctype: str, init: object) -> Any:
        made = ffi.new(ctype, init)
        self._alive.append(made)
        return made

    def _text(self, text: str) -> tuple[Any, int]:
        data = text.encode()
        return self._new("char[]", data), len(data)

    def _op(self, op: str | TextField) -> dict[str, Any]:
        if isinstance(op, str):
            return {"kind": lib.TEXT_LITERAL, "literal": self._text(op)}
        symbols = [(self._text(text), value) for text, value in op.symbols]
        return {
            "kind": _TEXT_KINDS[op.base],
            "size": op.field.size,
            "padded": op.padded,
            "offset": op.field.offset,
            "symbols": self._new("struct text_symbol[]", symbols),
            "nr_symbols": len(symbols),
        }

    def _pattern(self, pattern: TextPattern) -> dict[str, Any]:
        own = {
            "id": pattern.event.id,
            "event": self._indices[pattern.event.id],
            "length": pattern.length,
            "ops": self._new("struct text_op[]", [*map(self._op, pattern.ops)]),
            "nr_ops": len(pattern.ops),
        }
        if pattern.index is None:
            return own
        field, value = pattern.index
        return {**own, "index_size": field.size, "index_offset": field.offset, "index": value}

    def take(self, text: bytes, at: int) -> int:
        """Append what the lines of `text` from `at` on say; gives where it has not been used.

        That is behind the last newline, or where the batch is full: then call clear().
        """
        used: int = lib.text_next(self._c, ffi.from_buffer(text) + at, len(text) - at, self.batch.c)
        return at + used

    def clear(self) -> None:
        """Begin the next batch."""
        self.batch.c.nr = 0

    @property
    def odd(self) -> int:
        """How many lines say nothing that is known."""
        odd: int = self._c.odd
        return odd

    def counts(self) -> list[CpuCount]:
        """What each CPU had, so far; those that had anything."""
        return [
            CpuCount(
                nr, cpu.events, cpu.lost_events, cpu.uncounted, 0, 0,
                -1 if cpu.lost == _LOST_UNKNOWN else cpu.lost,
            )
            for nr, cpu in enumerate(self._cpus)
            if cpu.events or cpu.lost
        ]  # fmt: skip


def index_by_id(events: Sequence[Described]) -> Any:
    """For each id the index of its event; of all others, their number."""
    indices = [len(events)] * _IDS
    for index, each in enumerate(events):
        indices[each.event.id] = index
    return ffi.new("uint16_t[]", indices)


# --- lines ---------------------------------------------------------------------------------


class Style(IntEnum):
    """What lines look like (ringbuf_c/decode.h)."""

    TRACE_PIPE = lib.DECODE_TRACE_PIPE
    JSON = lib.DECODE_JSON
    CSV = lib.DECODE_CSV


@dataclass(frozen=True)
class Tail:
    """An array that ends a record, of items of `size` bytes, and what stands around them."""

    field: FieldInfo
    size: int
    before: str
    between: str
    behind: str


class Lines:
    """Batches as lines in `style`, of what the operations of `events` say.

    `around_id`: what stands before and behind the id of an event that there is none of.
    `tails`: the arrays of events, by index; what is not text shows them.
    """

    def __init__(
        self,
        style: Style,
        events: Sequence[Event],
        max_cpu: int,
        around_id: tuple[str, str],
        tails: Sequence[Tail | None] = (),
    ) -> None:
        self._table = RenderTable(events)
        self._alive: list[Any] = []
        self._tails = ffi.new("struct decode_tail[]", [*map(self._tail, tails), self._tail(None)])
        self._prefixes = ffi.new("struct render_prefix[]", max_cpu + 1)
        self._text = ffi.new(
            "struct decode_text *",
            {
                "style": style,
                "events": ffi.cast("struct render_table *", self._table.address)[0],
                "prefixes": self._prefixes,
                "before_id": self._text_of(around_id[0]),
                "behind_id": self._text_of(around_id[1]),
                "tails": self._tails,
                "nr_tails": len(tails),
            },
        )
        self._out = bytearray(_LINES)
        self._c_out = ffi.from_buffer("char[]", self._out)
        self._row = ffi.new("uint32_t *")

    def _text_of(self, text: str) -> tuple[Any, int]:
        data = text.encode()
        # Zero bytes up to what the renderer may copy at once.
        padded = ffi.new("char[]", data + bytes(16))
        self._alive.append(padded)
        return padded, len(data)

    def _tail(self, tail: Tail | None) -> tuple[Any, ...]:
        if tail is None:
            return ((0, 0, False),)
        field = (tail.field.offset, tail.size, tail.field.signed)
        return (field, *map(self._text_of, (tail.before, tail.between, tail.behind)))

    def lines(self, batch: Batch) -> Iterator[memoryview]:
        """All lines of `batch`; each piece is valid until the next one."""
        self._row[0] = 0
        while self._row[0] < len(batch):
            length = lib.decode_lines(batch.c, self._row, self._text, self._c_out, _LINES)
            yield memoryview(self._out)[:length]


# --- stays ---------------------------------------------------------------------------------


HYP: int = lib.STAY_HYP
GUEST: int = lib.STAY_GUEST

_ENTER, _EXIT = "hyp_enter", "hyp_exit"
_NO_FIELD = (0, 0, False)


@dataclass(frozen=True)
class StayStats:
    """How long the stays for one reason were; ns, quantiles to 1 %."""

    reason: int
    count: int
    total: int
    p50: int
    p99: int
    longest: int


def _index(events: Sequence[Described], name: str) -> int:
    """Index of the event `name`; of no event if there is none."""
    return next((i for i, each in enumerate(events) if each.event.name == name), len(events) + 1)


def _where(events: Sequence[Described], index: int, name: str) -> tuple[int, int, bool]:
    fields = events[index].fields if index < len(events) else ()
    places = (
        (field.offset, field.size, field.signed)
        for field in fields
        if field.name == name and is_number(field)
    )
    return next(places, _NO_FIELD)


class Stays:
    """Stays in the hypervisor and in guests, as they end in one batch after the other."""

    def __init__(self, events: Sequence[Described], max_cpu: int, to_guest: int) -> None:
        self._rules = ffi.new(
            "struct stay_rules *",
            {
                "enter": self._event(events, _ENTER),
                "exit": self._event(events, _EXIT),
                "to_guest": to_guest,
            },
        )
        self._cpus = ffi.new("struct stay_cpu[]", max_cpu + 1)
        self._arrays = {
            name: ffi.new(f"{ctype}[]", BATCH_EVENTS)
            for name, ctype in (
                ("start", "uint64_t"), ("duration", "uint64_t"), ("reason", "int32_t"),
                ("exit_reason", "int32_t"), ("vcpu", "int32_t"), ("cpu", "uint16_t"),
                ("place", "uint8_t"), ("reason_slot", "uint8_t"), ("exit_slot", "uint8_t"),
            )
        }  # fmt: skip
        self.c = ffi.new("struct stay_batch *", self._arrays)
        self._max_cpu = max_cpu
        self._stats: Any = None

    @staticmethod
    def _event(events: Sequence[Described], name: str) -> dict[str, Any]:
        index = _index(events, name)
        return {
            "event": index,
            "reason": _where(events, index, "reason"),
            "vcpu": _where(events, index, "vcpu"),
        }

    def __len__(self) -> int:
        nr: int = self.c.nr
        return nr

    def take(self, batch: Batch) -> None:
        """Those that end in `batch`."""
        lib.stays_next(batch.c, self._rules, self._cpus, self.c)

    def column(self, name: str) -> bytes:
        """A column of struct stay_batch."""
        array = self._arrays[name]
        return bytes(ffi.buffer(array, len(self) * ffi.sizeof(ffi.typeof(array).item)))

    def cpus(self) -> bytearray:
        """The CPU of each, as u32."""
        return _widened(self._arrays["cpu"], ffi.NULL, len(self))

    def count(self) -> None:
        """Add those of now to the statistics."""
        if self._stats is None:
            self._stats = ffi.new("struct stay_stats[]", REASONS)
            self._busy = ffi.new("uint64_t[]", self._max_cpu + 1)
        lib.stays_count(self.c, self._stats, self._busy)

    def statistics(self) -> list[StayStats]:
        """Of those in the hypervisor, by reason of entering."""
        if self._stats is None:
            return []
        return [self._stats_of(reason) for reason in range(REASONS) if self._stats[reason].count]

    def _stats_of(self, reason: int) -> StayStats:
        stats = self._stats[reason]

        def quantile(percent: int) -> int:
            rank = -(-stats.count * percent // 100)
            ns: int = lib.stay_quantile(ffi.addressof(self._stats, reason), rank)
            return ns

        return StayStats(
            reason, stats.count, stats.total, quantile(50), quantile(99), stats.longest
        )

    def histogram(self, reason: int) -> list[tuple[int, int]]:
        """Of stays for `reason`: in each power of two, its ns and how many there are."""
        octaves: dict[int, int] = {}
        for bucket, count in enumerate(self._stats[reason].buckets):
            if count:
                start: int = lib.stay_bucket_start(bucket)
                octave = 1 << max(start.bit_length() - 1, 0)
                octaves[octave] = octaves.get(octave, 0) + count
        return sorted(octaves.items())

    def busy(self, cpu: int) -> int:
        """Ns that `cpu` was in the hypervisor."""
        ns: int = 0 if self._stats is None else self._busy[cpu]
        return ns


@dataclass(frozen=True)
class Bins:
    """Time in bins of `width` ns from `origin` on: ns by CPU, kind and bin."""

    origin: int
    width: int
    nr: int
    ns: memoryview  # of u64: [cpu][kind][bin]


@dataclass(frozen=True)
class Strip:
    """Time in more bins: of each CPU and bin what most of it went to, and how much went in all."""

    width: int  # ns
    nr: int
    kinds: memoryview  # of u8: [cpu][bin]
    shares: memoryview  # of u16, 65535 is all of the bin: [cpu][bin]


class Timeline:
    """Stays in bins, of `kinds`: of each reason, which one; the last is that in a guest.

    `nr_bins` with all kinds of each, `nr_fine` with one; both powers of two, of each CPU.
    """

    def __init__(
        self,
        cpus: Sequence[int],
        max_cpu: int,
        kind_of: Sequence[int],
        nr_bins: int,
        nr_fine: int,
    ) -> None:
        self._kind_of = ffi.new("uint8_t[]", [*kind_of])
        slots = [0] * (max_cpu + 1)
        for slot, cpu in enumerate(cpus):
            slots[cpu] = slot
        self._slot_of = ffi.new("uint16_t[]", slots)
        self.nr_kinds = max(kind_of, default=0) + 2
        self._ns = ffi.new("uint64_t[]", max(len(cpus), 1) * self.nr_kinds * nr_bins)
        self._c = ffi.new(
            "struct stay_bins *",
            {
                "shift": 10,
                "nr_bins": nr_bins,
                "nr_cpus": len(cpus),
                "nr_kinds": self.nr_kinds,
                "kind_of": self._kind_of,
                "slot_of": self._slot_of,
                "ns": self._ns,
            },
        )
        rows = max(len(cpus), 1)
        self._fine = {
            "bin_of": ffi.new("uint64_t[]", rows),
            "ns": ffi.new("uint64_t[]", rows * self.nr_kinds),
            "kinds": ffi.new("uint8_t[]", rows * nr_fine),
            "shares": ffi.new("uint16_t[]", rows * nr_fine),
        }
        self._c_strip = ffi.new(
            "struct stay_strip *",
            {
                "shift": 6,
                "nr_bins": nr_fine,
                "nr_cpus": len(cpus),
                "nr_kinds": self.nr_kinds,
                "kind_of": self._kind_of,
                "slot_of": self._slot_of,
                **self._fine,
            },
        )
        self._begun = False

    def add(self, batch: Batch, stays: Stays) -> None:
        """Those of `batch`."""
        if not self._begun:
            self._begun = True
            self._c.origin = self._c_strip.origin = batch.arrays["time"][0]
        lib.stays_bin(stays.c, self._c)
        lib.stays_strip(stays.c, self._c_strip)

    def strip(self) -> Strip:
        """What there is so far, in the many bins."""
        lib.stays_strip_end(self._c_strip)
        kinds, shares = (memoryview(ffi.buffer(self._fine[name])) for name in ("kinds", "shares"))
        of = self._c_strip
        return Strip(1 << of.shift, of.nr_bins, kinds, shares.cast("B").cast("H"))

    def bins(self) -> Bins:
        """What there is so far."""
        ns = memoryview(ffi.buffer(self._ns)).cast("B").cast("Q")
        return Bins(self._c.origin, 1 << self._c.shift, self._c.nr_bins, ns)


# --- Perfetto --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PacketField:
    """A field of an event in packets; `number` 0: not in the message of its event."""

    field: FieldInfo
    number: int
    name_iid: int


@dataclass(frozen=True)
class PacketEvent:
    """An event in packets; `number` 0: no message, `name_iid` 0: no instant."""

    number: int
    name_iid: int
    fields: Sequence[PacketField]


CPU_SHIFT: int = lib.PF_CPU_SHIFT


@dataclass(frozen=True)
class Packets:
    """What packets are made of; names as in src/perfetto.h."""

    schema: dict[str, int]
    sequence_id: int
    events: Sequence[PacketEvent]
    reason_iids: Sequence[int]
    guest_iid: int
    cpu_iid: int
    vcpu_iid: int
    cpu_tracks: int
    lost_tracks: int
    vcpu_tracks: int
    descriptors: bytes


_PACKET_ROOM = 256
_FIELD_ROOM = 64


class PacketEncoder:
    """Batches and stays as packets of a Perfetto trace."""

    def __init__(self, packets: Packets, max_cpu: int) -> None:
        most_fields = max((len(event.fields) for event in packets.events), default=0)
        self._room = _PACKET_ROOM + _FIELD_ROOM * most_fields
        self._nr_cpus = max_cpu + 1
        self._alive: list[Any] = []
        events = [self._event(event) for event in packets.events]
        no_event = (0, 0, 0, ffi.NULL)
        names = ("sequence_id", "guest_iid", "cpu_iid", "vcpu_iid", "cpu_tracks", "lost_tracks",
                 "vcpu_tracks")  # fmt: skip
        self._trace = self._new(
            "struct pf_trace *",
            {
                **{name: getattr(packets, name) for name in names},
                "schema": packets.schema,
                "events": self._new("struct pf_event[]", [*events, no_event]),
                "reason_iids": self._new("uint32_t[]", [*packets.reason_iids]),
                "descriptors": self._new("uint8_t[]", packets.descriptors or b"\0"),
                "descriptors_size": len(packets.descriptors),
                "lost": self._new("uint64_t[]", self._nr_cpus),
            },
        )
        self._out = bytearray(_LINES + len(packets.descriptors) + self._room)
        self._c_out = ffi.from_buffer("uint8_t[]", self._out)
        self._row = ffi.new("uint32_t *")

    def _new(self, ctype: str, init: object) -> Any:
        made = ffi.new(ctype, init)
        self._alive.append(made)
        return made

    def _event(self, event: PacketEvent) -> tuple[Any, ...]:
        fields = [
            ((each.field.offset, each.field.size, each.field.signed), each.number, each.name_iid)
            for each in event.fields
        ]
        c_fields = self._new("struct pf_field[]", fields or 1)
        return event.number, event.name_iid, len(fields), c_fields

    def _pieces(self, nr: int, make: Callable[[], int]) -> Iterator[memoryview]:
        self._row[0] = 0
        while self._row[0] < nr:
            length = make()
            yield memoryview(self._out)[:length]

    def _bundles(self, rows: Rows) -> Iterator[memoryview]:
        at = 0
        while at < rows.nr:
            length = lib.pf_bundle(
                self._trace, rows.batch.c, rows.c + at, rows.nr - at, self._room,
                self._c_out, len(self._out), self._row,
            )  # fmt: skip
            at += self._row[0]
            yield memoryview(self._out)[:length]

    def packets(self, batch: Batch, stays: Stays) -> Iterator[memoryview]:
        """Whole packets; each piece is valid until the next one."""
        size = len(self._out)
        for rows in batch.by_cpu(self._nr_cpus):
            yield from self._bundles(rows)
        yield from self._pieces(
            len(batch),
            lambda: lib.pf_instants(self._trace, batch.c, self._row, self._room, self._c_out, size),
        )
        yield from self._pieces(
            len(stays), lambda: lib.pf_slices(self._trace, stays.c, self._row, self._c_out, size)
        )
