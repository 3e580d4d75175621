"""What a hypervisor says of itself and its events: decoded, and doubted.

The messages are those of hypervisor_model/protocol.h. Who sends them is not trusted: each
length is checked before it is used, and check_table() asks for what the tree, the renderer
and the tools that read the files take for granted. Errors are OSError EPROTO.
"""

from __future__ import annotations

import errno
import logging
import re
import struct
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from hypervisor_model import EventInfo, FieldInfo, Format, FormatTable, SymbolTable

log = logging.getLogger(__name__)

# protocol.h
MAGIC = b"HYPTRACE"
VERSION = 1
MAX_MESSAGE = 65536  # bytes
MAX_CPUS = 1024
MAX_EVENTS = 4096
MAX_SYMBOLS = 256  # tables
MAX_FIELDS = 64  # of an event
MAX_FORMATS = 65536  # of all events together
MAX_FORMATS_MSGS = 512
MAX_FORMAT_ARGS = 8  # of a format
MAX_FORMAT = 247  # characters of one
MAX_NAME = 63  # characters of a text that has an array
HAS_DOORBELL = 1  # of the flags of a hello

MAX_ID = 2**16 - 1
MAX_PAYLOAD = 4072  # bytes; RB_MAX_PAYLOAD
MAX_PRINT_FMT = 4096  # characters
# Characters of all print formats, and of all formats: to compile them takes time, and memory.
MAX_PRINT_FMTS = 1 << 20

_COUNTERS = (1, 2)  # enum hyp_counter
_PAGE_SIZE = 4096
_MAX_ERRNO = 4095
_ID_SIZE = 2  # of the id that every payload begins with

_T = TypeVar("_T")


class Hello(NamedTuple):
    """The first message. If `error`, an errno, is not 0, nothing but it means anything."""

    error: int
    name: str
    cpus: int
    page_size: int  # bytes
    counter: int  # enum hyp_counter
    nr_events: int  # messages that follow
    nr_symbols: int  # messages that follow those
    nr_formats: int  # messages that follow those
    counter_hz: int  # about; 0: unknown
    nr_spares: int = 0  # pages of each CPU that it takes as spares
    flags: int = 0  # HAS_*


def _broken(why: str) -> OSError:
    return OSError(errno.EPROTO, why)


# --- what must hold -----------------------------------------------------------------------

_Rules = tuple[tuple[str, Callable[[_T], bool]], ...]
"""What must hold, and the complaint if it does not. Each may rely on those before it."""

_IDENTIFIER = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
_NOT_NAME = f"the name is no C identifier of at most {MAX_NAME} characters"

# What stands, now or in any kernel, beside the directories of events, and of hypervisors.
_BESIDE_EVENTS = frozenset({"enable", "filter", "header_page", "header_event", "ftrace"})
_TAKEN = "the name is that of something else there"


def _ask(rules: _Rules[_T], of: _T, where: str) -> None:
    for complaint, holds in rules:
        if not holds(of):
            raise _broken(f"{where}: {complaint}")


def _is_name(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None


def _is_printable(text: str, most: int) -> bool:
    return len(text) <= most and text.isascii() and text.isprintable()


def _unique(values: Iterable[Hashable]) -> bool:
    seen = list(values)
    return len(seen) == len(set(seen))


def _are_apart(fields: Iterable[FieldInfo]) -> bool:
    in_order = sorted(fields, key=lambda field: field.offset)
    return all(a.offset + a.size <= b.offset for a, b in pairwise(in_order))


_HELLO_RULES: _Rules[Hello] = (
    (_NOT_NAME, lambda hello: _is_name(hello.name)),
    (_TAKEN, lambda hello: hello.name not in _BESIDE_EVENTS),
    (f"not 1 to {MAX_CPUS} CPUs", lambda hello: 1 <= hello.cpus <= MAX_CPUS),
    (f"not pages of {_PAGE_SIZE} bytes", lambda hello: hello.page_size == _PAGE_SIZE),
    ("the counter is unknown", lambda hello: hello.counter in _COUNTERS),
    (f"over {MAX_EVENTS} events", lambda hello: hello.nr_events <= MAX_EVENTS),
    (f"over {MAX_SYMBOLS} symbol tables", lambda hello: hello.nr_symbols <= MAX_SYMBOLS),
    (
        f"over {MAX_FORMATS_MSGS} messages of formats",
        lambda hello: hello.nr_formats <= MAX_FORMATS_MSGS,
    ),
)

_FIELD_RULES: _Rules[FieldInfo] = (
    (_NOT_NAME, lambda field: _is_name(field.name)),
    ("the name is that of the id", lambda field: field.name != "common_type"),
    ("there is no type", lambda field: field.type.strip() != ""),
    (
        f"the type is no printable text of at most {MAX_NAME} characters without ;",
        lambda field: _is_printable(field.type, MAX_NAME) and ";" not in field.type,
    ),
    ("it has no size", lambda field: field.size > 0 or field.type.endswith("[]")),
    ("it lies over the id", lambda field: field.offset >= _ID_SIZE),
    (
        f"it ends behind the {MAX_PAYLOAD} bytes of a payload",
        lambda field: field.offset + field.size <= MAX_PAYLOAD,
    ),
)

_EVENT_RULES: _Rules[EventInfo] = (
    (_NOT_NAME, lambda event: _is_name(event.name)),
    (_TAKEN, lambda event: event.name not in _BESIDE_EVENTS),
    # Readers take 0 for no event.
    (f"the id is not from 1 to {MAX_ID}", lambda event: 1 <= event.id <= MAX_ID),
    (
        f"the print fmt is no printable text of at most {MAX_PRINT_FMT} characters",
        lambda event: _is_printable(event.print_fmt, MAX_PRINT_FMT),
    ),
    (f"over {MAX_FIELDS} fields", lambda event: len(event.fields) <= MAX_FIELDS),
    ("two fields of one name", lambda event: _unique(field.name for field in event.fields)),
)

# Once each field is known to be one.
_LAYOUT_RULES: _Rules[EventInfo] = (
    ("fields lie over each other", lambda event: _are_apart(event.fields)),
)


def _are_texts(table: SymbolTable) -> bool:
    texts = (table.fallback or "", *(text for _, text in table.symbols))
    return all(_is_printable(text, MAX_NAME) for text in texts)


_SYMBOLS_RULES: _Rules[SymbolTable] = (
    (_NOT_NAME, lambda table: _is_name(table.function)),
    (f"a text is not printable, or over {MAX_NAME} characters", _are_texts),
    ("a value is not of 64 bits", lambda table: all(0 <= v < 2**64 for v, _ in table.symbols)),
    ("two texts for one value", lambda table: _unique(value for value, _ in table.symbols)),
)

_Table = tuple[Sequence[EventInfo], Sequence[SymbolTable]]

_TABLE_RULES: _Rules[_Table] = (
    (f"over {MAX_EVENTS} events", lambda table: len(table[0]) <= MAX_EVENTS),
    (f"over {MAX_SYMBOLS} symbol tables", lambda table: len(table[1]) <= MAX_SYMBOLS),
    ("two events of one name", lambda table: _unique(event.name for event in table[0])),
    ("two events of one id", lambda table: _unique(event.id for event in table[0])),
    ("two symbol tables of one name", lambda table: _unique(each.function for each in table[1])),
    (
        f"print fmts of over {MAX_PRINT_FMTS} characters in all",
        lambda table: sum(len(event.print_fmt) for event in table[0]) <= MAX_PRINT_FMTS,
    ),
)


# --- formats ------------------------------------------------------------------------------

_FormatsOf = tuple[FormatTable, EventInfo | None]
"""A table, and the event that it is about, if there is one."""

_INDEX_SIZES = (1, 2, 4, 8)


def _field(of: _FormatsOf, name: str) -> FieldInfo | None:
    _, event = of
    fields = event.fields if event else ()
    return next((field for field in fields if field.name == name), None)


def _has_index(of: _FormatsOf) -> bool:
    index = _field(of, of[0].index)
    return index is not None and index.size in _INDEX_SIZES and not index.signed


def _has_args(of: _FormatsOf) -> bool:
    args = _field(of, of[0].args)
    return args is not None and args.offset + 8 * MAX_FORMAT_ARGS <= MAX_PAYLOAD


def _is_format(form: Format) -> bool:
    return _is_printable(form.text.translate({ord("\n"): " ", ord("\t"): " "}), MAX_FORMAT)


_FORMATS_RULES: _Rules[_FormatsOf] = (
    ("there is no such event", lambda of: of[1] is not None),
    ("the index is no unsigned field of 1, 2, 4 or 8 bytes", _has_index),
    (f"no field has room for {MAX_FORMAT_ARGS} arguments", _has_args),
    (
        f"a format takes over {MAX_FORMAT_ARGS} arguments",
        lambda of: all(form.nr_args <= MAX_FORMAT_ARGS for form in of[0].formats),
    ),
    (
        f"a format is not printable, or over {MAX_FORMAT} characters",
        lambda of: all(map(_is_format, of[0].formats)),
    ),
)

_ALL_FORMATS_RULES: _Rules[Sequence[FormatTable]] = (
    ("two tables of formats for one event", lambda of: _unique(table.event for table in of)),
    (
        f"over {MAX_FORMATS} formats",
        lambda of: sum(len(table.formats) for table in of) <= MAX_FORMATS,
    ),
    (
        f"formats of over {MAX_PRINT_FMTS} characters in all",
        lambda of: sum(len(form.text) for table in of for form in table.formats) <= MAX_PRINT_FMTS,
    ),
)


def _check_formats(tables: Sequence[FormatTable], infos: Sequence[EventInfo], who: str) -> None:
    by_name = {event.name: event for event in infos}
    for table in tables:
        of = (table, by_name.get(table.event))
        _ask(_FORMATS_RULES, of, f"{who}: formats of {table.event!r}")
    _ask(_ALL_FORMATS_RULES, tables, who)


def join_formats(parts: Iterable[FormatTable]) -> tuple[FormatTable, ...]:
    """One table for each event: what comes later about it goes on where the first one ended."""
    joined: dict[tuple[str, str, str], list[Format]] = {}
    for part in parts:
        joined.setdefault((part.event, part.index, part.args), []).extend(part.formats)
    return tuple(FormatTable(*key, tuple(formats)) for key, formats in joined.items())


_ODD_IDS = {5: "perfetto may take it for ftrace/print"}


def _check_event(event: EventInfo, where: str) -> None:
    _ask(_EVENT_RULES, event, where)
    for field in event.fields:
        _ask(_FIELD_RULES, field, f"{where}: field {field.name!r}")
    _ask(_LAYOUT_RULES, event, where)


def check_table(
    infos: Sequence[EventInfo],
    tables: Sequence[SymbolTable],
    formats: Sequence[FormatTable] = (),
    who: str = "hypervisor",
) -> None:
    """Make sure that all of it can be shown as files, rendered, and read by tools.

    `who` begins messages. Raises OSError EPROTO that names the event and what is wrong.
    """
    for event in infos:
        _check_event(event, f"{who}: event {event.name!r}")
    for table in tables:
        _ask(_SYMBOLS_RULES, table, f"{who}: symbols {table.function!r}")
    _ask(_TABLE_RULES, (infos, tables), who)
    _check_formats(formats, infos, who)
    for event in infos:
        if event.id in _ODD_IDS:
            log.warning("%s: event %s: id %d: %s", who, event.name, event.id, _ODD_IDS[event.id])


# --- from bytes -----------------------------------------------------------------------------

_HELLO = struct.Struct("<8sIi64sIIIIIIQ")
_HELLO_MORE = struct.Struct("<II")  # behind it, but not from the first producers
_EVENT = struct.Struct("<64sIIII")
_FIELD = struct.Struct("<64s64sIIII")
_SYMBOLS = struct.Struct("<64s64sII")
_SYMBOL = struct.Struct("<Q64s")
_FORMATS = struct.Struct("<64s64s64sII")
_FORMAT = struct.Struct("<II248s")


def _begin(message: bytes, layout: struct.Struct, what: str) -> tuple[Any, ...]:
    """What `message` begins with."""
    if not layout.size <= len(message) <= MAX_MESSAGE:
        raise _broken(f"{what}: {len(message)} bytes, not {layout.size} to {MAX_MESSAGE}")
    return layout.unpack_from(message)


def _check_size(message: bytes, size: int, what: str) -> None:
    if len(message) != size:
        raise _broken(f"{what}: {len(message)} bytes, not {size}")


def _text(data: bytes, what: str) -> str:
    """The text that ends with the first zero byte of `data`."""
    text, zero, _ = data.partition(b"\0")
    if not zero:
        raise _broken(f"{what}: a text has no end")
    if not text.isascii():
        raise _broken(f"{what}: a text is not ASCII")
    return text.decode("ascii")


def decode_hello(message: bytes) -> Hello:
    """What a hyp_hello says. Raises OSError EPROTO, also for what is not supported."""
    what = "hello"
    magic, version, error, name, *numbers = _begin(message, _HELLO, what)
    if magic != MAGIC:
        raise _broken(f"{what}: this is no hypervisor")
    if version != VERSION:
        raise _broken(f"{what}: version {version} of the protocol, not {VERSION}")
    more = message[_HELLO.size :]
    if more:
        _check_size(message, _HELLO.size + _HELLO_MORE.size, what)
        numbers += _HELLO_MORE.unpack(more)
    if not -_MAX_ERRNO <= error <= 0:
        raise _broken(f"{what}: {error} is no error")
    hello = Hello(-error, _text(name, what), *numbers)
    if not hello.error:
        _ask(_HELLO_RULES, hello, f"{what} of {hello.name!r}")
    return hello


def _decode_field(field: tuple[Any, ...], what: str) -> FieldInfo:
    kind, name, offset, size, is_signed, _ = field
    return FieldInfo(_text(kind, what), _text(name, what), offset, size, bool(is_signed))


def decode_event(message: bytes) -> EventInfo:
    """What a hyp_event_msg says; check_table() has yet to ask. Raises OSError EPROTO."""
    name, number, nr_fields, print_fmt_size, _ = _begin(message, _EVENT, "event")
    what = f"event {_text(name, 'event')!r}"
    print_fmt_at = _EVENT.size + nr_fields * _FIELD.size
    _check_size(message, print_fmt_at + print_fmt_size, what)
    fields = _FIELD.iter_unpack(message[_EVENT.size : print_fmt_at])
    print_fmt = _text(message[print_fmt_at:], what)
    if len(print_fmt) + 1 != print_fmt_size:
        raise _broken(f"{what}: the print fmt ends before its size")
    return EventInfo(
        number,
        _text(name, what),
        tuple(_decode_field(field, what) for field in fields),
        print_fmt,
    )


def decode_symbols(message: bytes) -> SymbolTable:
    """What a hyp_symbols_msg says; check_table() has yet to ask. Raises OSError EPROTO."""
    function, fallback, nr_symbols, _ = _begin(message, _SYMBOLS, "symbols")
    what = f"symbols {_text(function, 'symbols')!r}"
    _check_size(message, _SYMBOLS.size + nr_symbols * _SYMBOL.size, what)
    symbols = _SYMBOL.iter_unpack(message[_SYMBOLS.size :])
    return SymbolTable(
        _text(function, what),
        tuple((value, _text(text, what)) for value, text in symbols),
        _text(fallback, what),
    )


def decode_formats(message: bytes) -> FormatTable:
    """What a hyp_formats_msg says; check_table() has yet to ask. Raises OSError EPROTO."""
    event, index, args, nr_formats, _ = _begin(message, _FORMATS, "formats")
    what = f"formats of {_text(event, 'formats')!r}"
    _check_size(message, _FORMATS.size + nr_formats * _FORMAT.size, what)
    formats = _FORMAT.iter_unpack(message[_FORMATS.size :])
    return FormatTable(
        _text(event, what),
        _text(index, what),
        _text(args, what),
        tuple(Format(_text(text, what), nr_args) for nr_args, _, text in formats),
    )
