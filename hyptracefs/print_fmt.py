r"""Print formats, compiled to operations.

A print format is what the `format` file shows behind `print fmt:`, C strings and arguments:

    "reason=%s vcpu=%d", __hyp_enter_exit_reason_str(REC->reason), REC->vcpu

What is understood prints what printf() of the kernel would, but for what is said here:

    %d %i %u %x    a field, with hh h l ll z: hh and h cut it, the others say nothing; a
                   negative one in %u and %x as many bits as the field has
    %X             likewise, with the digits of %x
    %c             a field's low byte; \x00 to \x1f and \x7f to \xff in this form
    %p %px %pK     a field, as %016llx
    %s             name(REC->field), `name` a symbol table;
                   __print_symbolic(REC->field, { value, "text" }, ...): others as 0x%lx,
                   but `0x?` what is over 255 and over all named values
    %%

Widths up to 255; the flags `0`, `-` and `#` (with a width only if with `0` or `-`); the escapes
\" \\ \n \t. Fields have 1, 2, 4 or 8 bytes; named values are below 4096. Casts of fields are
accepted and not applied, parentheses around fields accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from hypervisor_model import EventInfo, FieldInfo, SymbolTable

Base = Literal["signed", "unsigned", "hex"]


class Number(NamedTuple):
    """Print a field as a number of at least `width` characters."""

    field: FieldInfo
    base: Base
    width: int
    flags: str  # of "0" and "-"


class Symbol(NamedTuple):
    """Print a field as what `table` has for its value."""

    field: FieldInfo
    table: SymbolTable
    width: int
    flags: str


Op = str | Number | Symbol
"""A string is printed as it is."""

MAX_SYMBOLS = 4096
"""A symbol table names values below this."""

_MAX_WIDTH = 255
_MAX_SHOWN = 120  # characters of a print format in a message
_FIELD_SIZES = (1, 2, 4, 8)
_U64 = 1 << 64


# --- values and their texts -----------------------------------------------------------


def _in_field(value: int, field: FieldInfo) -> int | None:
    """What the bytes of `field` hold, as unsigned, when it is the u64 `value`; None: never."""
    bits = 8 * field.size
    if not field.signed:
        return value if value < 1 << bits else None
    half = 1 << (bits - 1)
    value = (value + half) % _U64  # the least of the field's values becomes 0
    return (value - half) % (1 << bits) if value < 1 << bits else None


def _hex(held: int, field: FieldInfo) -> str:
    """`held`, the unsigned content of `field`, as the kernel's 0x%lx shows it."""
    bits = 8 * field.size
    negative = field.signed and held >> (bits - 1)
    return f"{(held - (1 << bits)) % _U64 if negative else held:#x}"


def _named(table: SymbolTable, field: FieldInfo) -> dict[int, str]:
    """Texts by what `field` then holds, unsigned. Raises ValueError from MAX_SYMBOLS on."""
    named: dict[int, str] = {}
    for value, text in table.symbols:
        held = _in_field(value, field)
        if held is not None:
            named.setdefault(held, text)
    largest = max(named, default=0)
    if largest >= MAX_SYMBOLS:
        raise ValueError(f"{table.function} names {largest:#x}, and {MAX_SYMBOLS:#x} is too large")
    return named


def symbol_texts(table: SymbolTable, field: FieldInfo) -> tuple[list[str], str]:
    """Texts for 0, 1, ... as `field` holds them, unsigned; and the text for all others.

    Raises ValueError when `table` names a value from MAX_SYMBOLS on.
    """
    named = _named(table, field)
    nr = 1 + max(named, default=-1)
    if table.fallback is not None:
        return [named.get(held, table.fallback) for held in range(nr)], table.fallback
    # The kernel takes an empty text for none.
    return [named.get(held) or _hex(held, field) for held in range(max(nr, 256))], "0x?"


def _character(code: int) -> str:
    return chr(code) if chr(code).isascii() and chr(code).isprintable() else f"\\x{code:02x}"


_CHARACTERS = SymbolTable("%c", tuple((code, _character(code)) for code in range(256)), "")


# --- tokens ------------------------------------------------------------------------------

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\w+|->|[^\s"]|$)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}

_OPENING = "({["
_CLOSING = ")}]"


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError("a string does not end")
        if match[1]:
            yield match[1]
        at = match.end()


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise ValueError(f"escape {match[0]} is not supported")
        return _ESCAPES[match[1]]

    return _ESCAPE.sub(character, text)


def _string(tokens: Sequence[str]) -> str:
    """The strings that `tokens` are, as one."""
    if not tokens or not all(token.startswith('"') for token in tokens):
        raise ValueError("no string in quotes")
    return "".join(_unescape(token[1:-1]) for token in tokens)


def _split(tokens: Sequence[str]) -> list[list[str]]:
    """What stands between commas that are in no brackets; nothing behind the last one is fine."""
    parts: list[list[str]] = [[]]
    depth = 0
    for each in tokens:
        depth += (each in _OPENING) - (each in _CLOSING)
        if each == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(each)
    return parts if parts[-1] else parts[:-1]


# --- arguments ---------------------------------------------------------------------------

# Of tokens with a blank between them.
_CAST = re.compile(r"\( \w+(?: \w+)*(?: \*)* \) (?=\( |REC )")
_FIELD = re.compile(r"((?:\( )*)REC -> (\w+)((?: \))*)")
_VALUE = re.compile(r"(- )?(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)[uUlL]*")


def _field_name(tokens: Sequence[str]) -> str | None:
    """Name of the field that `tokens` are, with its casts and parentheses; None: no field."""
    match = _FIELD.fullmatch(_CAST.sub("", " ".join(tokens)))
    return match[2] if match and len(match[1]) == len(match[3]) else None


def _value(tokens: Sequence[str]) -> int:
    """The number that `tokens` are, as u64."""
    match = _VALUE.fullmatch(" ".join(tokens))
    value = int(match[2], 0) if match else _U64
    if value >= _U64:
        raise ValueError(f"value {' '.join(tokens)!r} is not supported")
    return -value % _U64 if match and match[1] else value


def _pair(tokens: Sequence[str]) -> tuple[int, str]:
    """The value and the text of `{ value, "text" }`."""
    parts = _split(tokens[1:-1])
    if tokens[:1] != ["{"] or tokens[-1:] != ["}"] or len(parts) != 2:  # noqa: PLR2004
        raise ValueError(f'{" ".join(tokens)!r} is no {{ value, "text" }}')
    return _value(parts[0]), _string(parts[1])


class _Arguments:
    """The arguments of a format, taken one after the other."""

    def __init__(
        self, tokens: Sequence[str], event: EventInfo, tables: Sequence[SymbolTable]
    ) -> None:
        self._left = iter(_split(tokens))
        self._fields = {field.name: field for field in event.fields}
        self._tables = {table.function: table for table in tables}

    def _take(self) -> list[str]:
        argument = next(self._left, None)
        if argument is None:
            raise ValueError("fewer arguments than conversions")
        return argument

    def _field(self, tokens: Sequence[str]) -> FieldInfo:
        name = _field_name(tokens)
        if name is None:
            raise ValueError(f"argument {''.join(tokens)!r} is not supported")
        if name not in self._fields:
            raise ValueError(f"no field {name!r}")
        field = self._fields[name]
        if field.size not in _FIELD_SIZES:
            raise ValueError(f"field {name!r} has {field.size} bytes")
        return field

    def _table(self, function: str, pairs: Sequence[Sequence[str]]) -> SymbolTable:
        if function == "__print_symbolic":
            return SymbolTable(function, tuple(map(_pair, pairs)), None)
        if function not in self._tables or pairs:
            raise ValueError(f"no symbol table {function!r}")
        return self._tables[function]

    def number(self) -> FieldInfo:
        return self._field(self._take())

    def symbol(self) -> tuple[FieldInfo, SymbolTable]:
        argument = self._take()
        if argument[1:2] != ["("] or argument[-1] != ")":
            raise ValueError(f"argument {''.join(argument)!r} is no text")
        of, *pairs = _split(argument[2:-1]) or [[]]
        field, table = self._field(of), self._table(argument[0], pairs)
        _named(table, field)  # or it cannot be rendered
        return field, table

    def end(self) -> None:
        if left := len(list(self._left)):
            raise ValueError(f"{left} arguments too many")


# --- conversions ---------------------------------------------------------------------------


class _Conversion(NamedTuple):
    """What stands behind a %; `flags` of "-", "0" and "#"."""

    flags: str
    width: int
    length: str
    letter: str

    @property
    def alignment(self) -> str:
        """The flags that go with the width of a number."""
        return "".join(flag for flag in "-0" if flag in self.flags)

    @property
    def text_alignment(self) -> str:
        """Likewise, of a text: blanks only."""
        return self.alignment.replace("0", "")


_PIECE = re.compile(
    r"(?P<text>[^%]+)|%%|"
    r"%(?P<flags>[-0#]*)(?P<width>[1-9][0-9]*|)(?P<length>hh|h|ll|l|z|)"
    r"(?P<letter>[diuxXcs]|p[A-Za-z0-9]*)"
)
_SIZES = {"hh": 1, "h": 2, "": 4, "l": 8, "ll": 8, "z": 8}  # of what is printed, bytes


def _cut(field: FieldInfo, length: str) -> FieldInfo:
    """What hh and h leave of `field`: its low bytes come first."""
    return field._replace(size=min(field.size, _SIZES[length])) if "h" in length else field


def _signed(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    field = _cut(arguments.number(), conversion.length)
    # C makes what is narrower than the conversion wider first, by its own sign.
    narrower = field.size < _SIZES[conversion.length]
    base: Base = "unsigned" if narrower and not field.signed else "signed"
    yield Number(field, base, conversion.width, conversion.alignment)


def _unsigned(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    field = _cut(arguments.number(), conversion.length)
    yield Number(field, "unsigned", conversion.width, conversion.alignment)


def _hexadecimal(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    field = _cut(arguments.number(), conversion.length)
    width = conversion.width
    if "#" in conversion.flags:
        if width and not conversion.alignment:
            raise ValueError("# with a width, and neither 0 nor -, is not supported")
        width = max(width - len("0x"), 0)
        yield "0x"
    yield Number(field, "hex", width, conversion.alignment)


def _pointer(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    width, alignment = conversion.width, conversion.alignment
    yield Number(arguments.number(), "hex", width or 16, alignment if width else "0")


def _char(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    low = arguments.number()._replace(size=1, signed=False)
    yield Symbol(low, _CHARACTERS, conversion.width, conversion.text_alignment)


def _text(conversion: _Conversion, arguments: _Arguments) -> Iterator[Op]:
    yield Symbol(*arguments.symbol(), conversion.width, conversion.text_alignment)


_CONVERSIONS: dict[str, Callable[[_Conversion, _Arguments], Iterator[Op]]] = {
    "d": _signed,
    "i": _signed,
    "u": _unsigned,
    "x": _hexadecimal,
    "X": _hexadecimal,
    "c": _char,
    "s": _text,
    "p": _pointer,
    "px": _pointer,
    "pK": _pointer,
}


_LETTERS = {None, *_CONVERSIONS}


def _pieces(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None or match["letter"] not in _LETTERS:
            raise ValueError(f"conversion {text[at : at + 8]!r} is not supported")
        yield match
        at = match.end()


def _piece_operations(piece: re.Match[str], arguments: _Arguments) -> Iterator[Op]:
    if piece["letter"] is None:
        yield piece["text"] or "%"
        return
    width = int(piece["width"] or 0)
    if width > _MAX_WIDTH:
        raise ValueError(f"width {width} is over {_MAX_WIDTH}")
    conversion = _Conversion(piece["flags"], width, piece["length"], piece["letter"])
    yield from _CONVERSIONS[conversion.letter](conversion, arguments)


def _operations(event: EventInfo, tables: Sequence[SymbolTable]) -> Iterator[Op]:
    tokens = list(_tokens(event.print_fmt))
    strings = 0
    while strings < len(tokens) and tokens[strings].startswith('"'):
        strings += 1
    text = _string(tokens[:strings])
    if tokens[strings : strings + 1] not in ([], [","]):
        raise ValueError(f"{tokens[strings]!r} behind the string, and no comma")
    arguments = _Arguments(tokens[strings + 1 :], event, tables)
    for piece in _pieces(text):
        yield from _piece_operations(piece, arguments)
    arguments.end()


def _shown(print_fmt: str) -> str:
    return print_fmt if len(print_fmt) <= _MAX_SHOWN else f"{print_fmt[:_MAX_SHOWN]}..."


def compile_print_fmt(event: EventInfo, tables: Sequence[SymbolTable]) -> tuple[Op, ...]:
    """Operations that print `event`; none for an empty format.

    Raises ValueError that names the event and what in its print format cannot be rendered.
    """
    try:
        return tuple(_operations(event, tables))
    except ValueError as error:
        why = f"event {event.name}: print fmt {_shown(event.print_fmt)}: {error}"
        raise ValueError(why) from None


# --- without a print format ------------------------------------------------------------------


def _raw_value(field: FieldInfo) -> tuple[Op, ...]:
    if field.size not in _FIELD_SIZES:
        return (f"[{field.size} bytes]",)
    if field.signed:
        return (Number(field, "signed", 0, ""),)
    if field.size < 8:  # noqa: PLR2004 - what has 64 bits is an address or a register
        return (Number(field, "unsigned", 0, ""),)
    return ("0x", Number(field, "hex", 0, ""))


def raw_operations(event: EventInfo) -> tuple[Op, ...]:
    """Operations that print each field as `name=value`, as its size and sign alone say.

    Decimal; unsigned ones of 8 bytes as 0x%llx; `name=[32 bytes]` for what is no number.
    """
    ops: list[Op] = []
    for field in event.fields:
        ops += [f"{' ' if ops else ''}{field.name}=", *_raw_value(field)]
    return tuple(ops)


# --- for others -----------------------------------------------------------------------------


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    )
    return f'"{escaped}"'


def _print_symbolic(table: SymbolTable, argument: str) -> str:
    pairs = (f"{{ {value}, {_quoted(text)} }}" for value, text in table.symbols)
    return f"__print_symbolic({', '.join((argument.strip(), *pairs))})"


def portable_print_fmt(print_fmt: str, tables: Sequence[SymbolTable]) -> str:
    """`print_fmt` as tools understand it that know the kernel's functions, and not `tables`.

    A call of a table becomes a __print_symbolic(), whose other values are numbers; a comma
    that nothing follows goes.
    """
    by_name = {table.function: table for table in tables}

    def replace(match: re.Match[str]) -> str:
        table = by_name.get(match[1] or "")
        return _print_symbolic(table, match[2]) if table else match[0]

    return re.sub(r'"(?:[^"\\]|\\.)*"|(\w+)\(([^()"]*)\)', replace, print_fmt).rstrip(", ")
