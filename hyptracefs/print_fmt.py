r"""Print formats, compiled to operations.

A print format is what the `format` file shows behind `print fmt:`, C strings and arguments:

    "reason=%s vcpu=%d", __hyp_enter_exit_reason_str(REC->reason), REC->vcpu

What is understood prints what printf() of the kernel would, but for what is said here:

    %d %i %u %x    a field, with hh h l ll z: hh and h cut it, the others say nothing; a
                   negative one in %u and %x as many bits as the field has
    %X             likewise, in upper case
    %c             a field's low byte; \x00 to \x1f and \x7f to \xff in this form
    %p %px %pK     a field, as %016llx
    %s             name(REC->field), `name` a symbol table;
                   __print_symbolic(REC->field, { value, "text" }, ...): others as 0x%lx;
                   REC->field, a char array of up to 255 bytes: to its first zero byte, with
                   `.` for what cannot be printed
    %%

Widths up to 255; the flags `0`, `-` and `#` (with a width only if with `0` or `-`); the escapes
\" \\ \n \t. Fields have 1, 2, 4 or 8 bytes; named values are below 4096. Casts of fields are
accepted and not applied, parentheses around fields accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from hypervisor_model import EventInfo, FieldInfo, Format, FormatTable, SymbolTable

Base = Literal["signed", "unsigned", "hex"]


class Number(NamedTuple):
    """Print a field as a number of at least `width` characters."""

    field: FieldInfo
    base: Base
    width: int
    flags: str  # of "0" and "-"; "X": in upper case


class Symbol(NamedTuple):
    """Print a field as what `table` has for its value."""

    field: FieldInfo
    table: SymbolTable
    width: int
    flags: str


class String(NamedTuple):
    """Print a field, an array of characters, up to its first zero byte."""

    field: FieldInfo
    width: int
    flags: str


Op = str | Number | Symbol | String
"""A string is printed as it is."""

MAX_SYMBOLS = 4096
"""A symbol table names values below this."""

_MAX_WIDTH = 255
_MAX_SHOWN = 120  # characters of a print format in a message
_FIELD_SIZES = (1, 2, 4, 8)
_MAX_STRING = 255
_CHARACTER_ARRAY = re.compile(r"(?:(?:un)?signed )?char ?\[\d*\]|[us]8 ?\[\d*\]")
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


def symbol_texts(table: SymbolTable, field: FieldInfo) -> list[str]:
    """Texts for 0, 1, ... as `field` holds them, unsigned; all others have the fallback.

    Without a fallback "" stands for what has no text: the kernel takes an empty one for none.

    Raises ValueError when `table` names a value from MAX_SYMBOLS on.
    """
    named = _named(table, field)
    nr = 1 + max(named, default=-1)
    return [named.get(held, table.fallback or "") for held in range(nr)]


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

    def _any_field(self, tokens: Sequence[str]) -> FieldInfo:
        name = _field_name(tokens)
        if name is None:
            raise ValueError(f"argument {''.join(tokens)!r} is not supported")
        if name not in self._fields:
            raise ValueError(f"no field {name!r}")
        return self._fields[name]

    def _string(self, tokens: Sequence[str]) -> FieldInfo:
        field = self._any_field(tokens)
        if not _CHARACTER_ARRAY.fullmatch(field.type) or not 1 <= field.size <= _MAX_STRING:
            raise ValueError(f"field {field.name!r} is no char array of 1 to {_MAX_STRING} bytes")
        return field

    def _field(self, tokens: Sequence[str]) -> FieldInfo:
        field = self._any_field(tokens)
        name = field.name
        if field.size not in _FIELD_SIZES:
            raise ValueError(f"field {name!r} has {field.size} bytes")
        return field

    def _table(self, function: str, pairs: Sequence[Sequence[str]]) -> SymbolTable:
        if function == "__print_symbolic":
            return SymbolTable(function, tuple(map(_pair, pairs)), None)
        if function not in self._tables or pairs:
            raise ValueError(f"no symbol table {function!r}")
        return self._tables[function]

    def number(self, length: str) -> FieldInfo:
        return _cut(self._field(self._take()), length)

    def text(self) -> tuple[FieldInfo, SymbolTable | None]:
        argument = self._take()
        if _field_name(argument):
            return self._string(argument), None
        if argument[1:2] != ["("] or argument[-1] != ")":
            raise ValueError(f"argument {''.join(argument)!r} is no text")
        of, *pairs = _split(argument[2:-1]) or [[]]
        field, table = self._field(of), self._table(argument[0], pairs)
        _named(table, field)  # or it cannot be rendered
        return field, table

    def end(self) -> None:
        if left := len(list(self._left)):
            raise ValueError(f"{left} arguments too many")


class _Word:
    """An argument of a format of printk-like events: the u64 at `offset` of the record."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def number(self, length: str) -> FieldInfo:
        """As in C, a conversion takes the low bytes that it has a use for."""
        return FieldInfo("u64", "", self._offset, _SIZES[length], signed=False)

    def text(self) -> tuple[FieldInfo, SymbolTable | None]:
        raise ValueError("an argument is no text")


class _Taken(Protocol):
    """Arguments, taken one after the other."""

    def number(self, length: str) -> FieldInfo:
        """What a conversion with the length modifier `length` prints."""

    def text(self) -> tuple[FieldInfo, SymbolTable | None]:
        """What %s prints: a field by a table; None: an array of characters."""


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
_WORD = 8
_SIZES = {"hh": 1, "h": 2, "": 4, "l": 8, "ll": 8, "z": 8}  # of what is printed, bytes


def _cut(field: FieldInfo, length: str) -> FieldInfo:
    """What hh and h leave of `field`: its low bytes come first."""
    return field._replace(size=min(field.size, _SIZES[length])) if "h" in length else field


def _signed(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    field = arguments.number(conversion.length)
    # C makes what is narrower than the conversion wider first, by its own sign.
    narrower = field.size < _SIZES[conversion.length]
    base: Base = "unsigned" if narrower and not field.signed else "signed"
    yield Number(field, base, conversion.width, conversion.alignment)


def _unsigned(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    field = arguments.number(conversion.length)
    yield Number(field, "unsigned", conversion.width, conversion.alignment)


def _hexadecimal(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    field = arguments.number(conversion.length)
    width, upper = conversion.width, conversion.letter == "X"
    if "#" in conversion.flags:
        if width and not conversion.alignment:
            raise ValueError("# with a width, and neither 0 nor -, is not supported")
        width = max(width - len("0x"), 0)
        yield "0X" if upper else "0x"
    yield Number(field, "hex", width, conversion.alignment + "X" * upper)


def _pointer(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    width, alignment = conversion.width, conversion.alignment
    yield Number(arguments.number("ll"), "hex", width or 16, alignment if width else "0")


def _char(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    low = arguments.number("ll")._replace(size=1, signed=False)
    yield Symbol(low, _CHARACTERS, conversion.width, conversion.text_alignment)


def _text(conversion: _Conversion, arguments: _Taken) -> Iterator[Op]:
    field, table = arguments.text()
    if table is None:
        yield String(field, conversion.width, conversion.text_alignment)
    else:
        yield Symbol(field, table, conversion.width, conversion.text_alignment)


_CONVERSIONS: dict[str, Callable[[_Conversion, _Taken], Iterator[Op]]] = {
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


def _piece_operations(piece: re.Match[str], arguments: _Taken) -> Iterator[Op]:
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


# --- formats of printk-like events -----------------------------------------------------------


def _line_of(form: Format) -> str:
    """Without the newline that every line gets anyway."""
    return form.text.rstrip("\n")


# Formats are many, and their conversions few.
@lru_cache(1024)
def _word_operations(conversion: str, offset: int) -> tuple[Op, ...]:
    [piece] = _pieces(conversion)
    return tuple(_piece_operations(piece, _Word(offset)))


def _format_operations(form: Format, offset: int) -> Iterator[Op]:
    taken = 0
    for piece in _pieces(_line_of(form)):
        yield from _word_operations(piece[0], offset + _WORD * taken)
        taken += piece["letter"] is not None
    if taken != form.nr_args:
        raise ValueError(f"{taken} conversions for {form.nr_args} arguments")


def compile_format(form: Format, offset: int) -> tuple[Op, ...]:
    """Operations that print `form` with the u64s that begin at `offset` of the record.

    Conversions are those of print formats, but no %s; they take as many bytes as in C.
    Raises ValueError that says what cannot be rendered.
    """
    try:
        return tuple(_format_operations(form, offset))
    except ValueError as error:
        raise ValueError(f"{_shown(form.text)!r}: {error}") from None


def raw_format(form: Format, offset: int) -> tuple[Op, ...]:
    """Operations that print the text as it is, and its arguments behind it: `text (0x1, 0x2)`."""
    ops: list[Op] = [_line_of(form)]
    for nr in range(form.nr_args):
        word = _Word(offset + _WORD * nr).number("ll")
        ops += [", 0x" if nr else " (0x", Number(word, "hex", 0, "")]
    return (*ops, ")") if form.nr_args else tuple(ops)


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


# libtraceevent knows no strings that arguments go into, but arrays whose length is an expression.
_FORMATTED = '"%s (%s)", {}, __print_array(REC->{}, {}, 8)'
_TEXTS = re.compile(r'"%s \(%s\)", __print_symbolic\(REC->(?P<index>\w+), (?P<pairs>.*)', re.DOTALL)
_ARGS = re.compile(r'(?P<args>\w+), (?P<count>[^"]*), 8\)')
_BETWEEN = "), __print_array(REC->"
_PAIR = re.compile(r'\{ \d+, "((?:[^"\\]|\\.)*)" \}')
_TERM = re.compile(r"\(\(REC->\w+ == (\d{1,5})\) \* (\d)\)")


def _sum(terms: Sequence[str]) -> str:
    """In pairs of pairs: a parser calls itself for what is in brackets, and has one stack."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_sum(terms[:half])} + {_sum(terms[half:])})"


def portable_formats(table: FormatTable) -> str:
    """A print format for tools: the text that a record names, and the arguments that it takes.

    As in `CPU %u is back (3)`. Of a table with formats.
    """
    texts = SymbolTable("", tuple(enumerate(map(_line_of, table.formats))), None)
    terms = [
        f"((REC->{table.index} == {number}) * {form.nr_args})"
        for number, form in enumerate(table.formats)
        if form.nr_args
    ]
    symbolic = _print_symbolic(texts, f"REC->{table.index}")
    return _FORMATTED.format(symbolic, table.args, _sum(terms or ["0"]))


def formats_in(event: EventInfo) -> FormatTable | None:
    """The table that portable_formats() has made the print format of `event` from, if it did."""
    head, _, tail = event.print_fmt.rpartition(_BETWEEN)
    texts, args = _TEXTS.fullmatch(head), _ARGS.fullmatch(tail)
    if texts is None or args is None:
        return None
    nr_args = {int(number): int(nr) for number, nr in _TERM.findall(args["count"])}
    try:
        formats = tuple(
            Format(_unescape(text), nr_args.get(number, 0))
            for number, text in enumerate(_PAIR.findall(texts["pairs"]))
        )
    except ValueError:
        return None
    table = FormatTable(event.name, texts["index"], args["args"], formats)
    return table if formats and portable_formats(table) == event.print_fmt else None
