"""Print formats compile to operations, or say what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo, FormatTable, SymbolTable
from hypervisor_model.model import Format
from hyptracefs.print_fmt import (
    Number,
    Op,
    String,
    Symbol,
    compile_print_fmt,
    formats_in,
    portable_formats,
    raw_operations,
    symbol_texts,
)

_A = FieldInfo("u64", "a", 8, 8, signed=False)
_B = FieldInfo("int", "b", 16, 4, signed=True)
_C = FieldInfo("u8", "c", 20, 1, signed=False)
_D = FieldInfo("u32", "d", 24, 4, signed=False)
_E = FieldInfo("char[32]", "e", 28, 32, signed=True)
_NAMES = SymbolTable("name_of", ((0, "zero"), (1, "one")), "unknown")


def _compile(print_fmt: str) -> tuple[Op, ...]:
    return compile_print_fmt(EventInfo(1, "probe", (_A, _B, _C, _D, _E), print_fmt), [_NAMES])


def _symbolic(*pairs: tuple[int, str]) -> SymbolTable:
    return SymbolTable("__print_symbolic", pairs, None)


@pytest.mark.parametrize(
    ("print_fmt", "ops"),
    [
        ('""', ()),
        ('" "', (" ",)),
        ('" ", ', (" ",)),
        ('"100%%"', ("100", "%")),
        (r'"\"\\\n\t"', ('"\\\n\t',)),
        ('"%llu", REC->a', (Number(_A, "unsigned", 0, ""),)),
        ('"%u", REC->a', (Number(_A, "unsigned", 0, ""),)),
        ('"%hhx", REC->a', (Number(_A._replace(size=1), "hex", 0, ""),)),
        ('"%hd", REC->b', (Number(_B._replace(size=2), "signed", 0, ""),)),
        ('"%hd", REC->c', (Number(_C, "unsigned", 0, ""),)),
        ('"%X", REC->a', (Number(_A, "hex", 0, "X"),)),
        ('"%#-8X", REC->a', ("0X", Number(_A, "hex", 6, "-X"))),
        ('"%s", REC->e', (String(_E, 0, ""),)),
        ('"%-8s", (char *)REC->e', (String(_E, 8, "-"),)),
        # What is narrower than the conversion keeps its own sign.
        ('"%d", REC->c', (Number(_C, "unsigned", 0, ""),)),
        ('"%hhd", REC->c', (Number(_C, "signed", 0, ""),)),
        ('"%d", REC->d', (Number(_D, "signed", 0, ""),)),
        ('"%lld", REC->d', (Number(_D, "unsigned", 0, ""),)),
        ('"%lld", REC->a', (Number(_A, "signed", 0, ""),)),
        ('"%d", REC->a', (Number(_A, "signed", 0, ""),)),
        ('"%zx", REC->a', (Number(_A, "hex", 0, ""),)),
        ('"%d", REC->b', (Number(_B, "signed", 0, ""),)),
        ('"%li", REC->b', (Number(_B, "signed", 0, ""),)),
        ('"0x%08lx", REC->a', ("0x", Number(_A, "hex", 8, "0"))),
        ('"%#x", REC->a', ("0x", Number(_A, "hex", 0, ""))),
        ('"%#018llx", REC->a', ("0x", Number(_A, "hex", 16, "0"))),
        ('"%-#6x", REC->a', ("0x", Number(_A, "hex", 4, "-"))),
        ('"%#-1x", REC->a', ("0x", Number(_A, "hex", 0, "-"))),
        ('"%#d", REC->b', (Number(_B, "signed", 0, ""),)),
        ('"%0-4d", REC->b', (Number(_B, "signed", 4, "-0"),)),
        ('"%p", REC->a', (Number(_A, "hex", 16, "0"),)),
        (
            '"%px %pK", REC->a, REC->b',
            (Number(_A, "hex", 16, "0"), " ", Number(_B, "hex", 16, "0")),
        ),
        ('"%20p", REC->a', (Number(_A, "hex", 20, ""),)),
        ('"%-5d|", REC->b', (Number(_B, "signed", 5, "-"), "|")),
        ('"%s", name_of(REC->b)', (Symbol(_B, _NAMES, 0, ""),)),
        ('"%6s", name_of(REC->b)', (Symbol(_B, _NAMES, 6, ""),)),
        ('"%-06s", name_of(REC->b)', (Symbol(_B, _NAMES, 6, "-"),)),
        (
            '"%s", __print_symbolic(REC->a, { 0, "smc" }, { 0x1F, "a, \\"b\\" }" })',
            (Symbol(_A, _symbolic((0, "smc"), (31, 'a, "b" }')), 0, ""),),
        ),
        (
            '"%s", __print_symbolic((u8)(REC->c),{7UL,"x" "y"},{-1,"z"},)',
            (Symbol(_C, _symbolic((7, "xy"), (2**64 - 1, "z")), 0, ""),),
        ),
        ('"%s", __print_symbolic(REC->a)', (Symbol(_A, _symbolic(), 0, ""),)),
        ('"%d", (REC->b)', (Number(_B, "signed", 0, ""),)),
        ('"%d", ( ( REC -> b ) )', (Number(_B, "signed", 0, ""),)),
        ('"%lu", (unsigned long)REC->a', (Number(_A, "unsigned", 0, ""),)),
        ('"%lu", (unsigned long)(REC->a)', (Number(_A, "unsigned", 0, ""),)),
        ('"%p", ((const void *)(unsigned long)REC->a)', (Number(_A, "hex", 16, "0"),)),
        ('"%s", name_of((int)(REC->b))', (Symbol(_B, _NAMES, 0, ""),)),
        ('"a=" "%u" "!", REC->a', ("a=", Number(_A, "unsigned", 0, ""), "!")),
        (
            '"a=%llu b=%d", REC->a, REC->b',
            ("a=", Number(_A, "unsigned", 0, ""), " b=", Number(_B, "signed", 0, "")),
        ),
        ('"%255u", REC->a', (Number(_A, "unsigned", 255, ""),)),
    ],
)
def test_print_fmt_compiles_to_operations(print_fmt: str, ops: tuple[Op, ...]) -> None:
    assert _compile(print_fmt) == ops


@pytest.mark.parametrize(
    ("print_fmt", "reason"),
    [
        ("", "no string in quotes"),
        ("REC->a", "no string in quotes"),
        ('"open', "a string does not end"),
        ('""id=%llu", REC->a", ', "'id' behind the string"),  # the reference's malformed selftest
        ('"x" REC->a', "'REC' behind the string"),
        ('"%d", REC->b, "open', "a string does not end"),
        ('"%d", ,REC->b', "argument '' is not supported"),
        ('"%d"', "fewer arguments"),
        ('"%d %d", REC->b', "fewer arguments"),
        ('"x", REC->a', "1 arguments too many"),
        ('"%d", REC->z', "no field 'z'"),
        ('"%d", REC->a + 1', "argument 'REC->a+1' is not supported"),
        ('"%s", REC->a', "field 'a' is no char array of 1 to 255 bytes"),
        ('"%s", REC->z', "no field 'z'"),
        ('"%s", __get_str(e)', "argument 'e' is not supported"),
        ('"%s", REC->b ? "a" : "b"', "is no text"),
        ('"%s", other(REC->a)', "no symbol table 'other'"),
        ('"%s", name_of(REC->a, REC->b)', "no symbol table 'name_of'"),
        ('"%s", name_of()', "argument '' is not supported"),
        ('"%s", name_of(REC->c', "is no text"),
        ('"%s", __print_flags(REC->a, "|", { 1, "x" })', "no symbol table '__print_flags'"),
        ('"%s", __print_symbolic(REC->a, { ONE, "x" })', "value 'ONE' is not supported"),
        ('"%s", __print_symbolic(REC->a, { 010, "x" })', "value '010' is not supported"),
        ('"%s", __print_symbolic(REC->a, { 1 << 3, "x" })', "value '1 < < 3' is not supported"),
        ('"%s", __print_symbolic(REC->a, { 0x10000000000000000, "x" })', "is not supported"),
        ('"%s", __print_symbolic(REC->a, { 1, x })', "no string in quotes"),
        ('"%s", __print_symbolic(REC->a, { 1 })', 'is no { value, "text" }'),
        ('"%s", __print_symbolic(REC->a, 1, "x")', 'is no { value, "text" }'),
        ('"%s", __print_symbolic(REC->a, { 4096, "x" })', "names 0x1000, and 0x1000 is too"),
        ('"%s", __print_symbolic(REC->a, { -1, "x" })', "names 0xffffffffffffffff"),
        ('"%d", name_of(REC->b)', "argument 'name_of(REC->b)' is not supported"),
        ('"%d", ((REC->b)', "is not supported"),
        ('"%d", *REC->b', "is not supported"),
        ('"%d", REC->e', "field 'e' has 32 bytes"),
        ('"%d", REC->e[0]', "is not supported"),
        ('"%pS", REC->a', "conversion '%pS' is not supported"),
        ('"%o", REC->a', "conversion '%o' is not supported"),
        ('"%.8x", REC->a', "conversion '%.8x' is not supported"),
        ('"%+d", REC->a', "conversion '%+d' is not supported"),
        ('"%#8x", REC->a', "# with a width"),
        ('"%*d", REC->a', "conversion '%*d' is not supported"),
        ('"%', "a string does not end"),
        ('"50%"', "conversion '%' is not supported"),
        (r'"\x41"', r"escape \x is not supported"),
        ('"%256u", REC->a', "width 256 is over 255"),
    ],
)
def test_error_names_the_event_and_the_reason(print_fmt: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^event probe: ") as raised:
        _compile(print_fmt)
    assert reason in str(raised.value)


def test_long_print_format_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="not supported") as raised:
        _compile(f'"%o{"x" * 4000}"')
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("nested", ["(" * 2000, "(a)" * 1000, "f(" * 1500, "{" * 2000, "a " * 2000])
def test_nonsense_ends_soon(nested: str) -> None:
    for argument in (nested, f"{nested}REC->a", f"f({nested})", f"__print_symbolic({nested}"):
        with pytest.raises(ValueError, match="event probe"):
            _compile(f'"%s", {argument}')


# --- symbols ------------------------------------------------------------------------------


def test_symbols_are_named_where_they_are_and_the_rest_is_the_fallback() -> None:
    table = SymbolTable("f", ((3, "three"), (1, "one")), "?")
    assert symbol_texts(table, _A) == ["?", "one", "?", "three"]


def test_values_that_a_field_cannot_hold_have_no_text() -> None:
    table = SymbolTable("f", ((1, "one"), (256, "more"), (2**64 - 1, "minus one")), "?")
    assert symbol_texts(table, _C) == ["?", "one"]


def test_negative_values_are_those_of_a_signed_field() -> None:
    signed = _C._replace(signed=True)
    texts = symbol_texts(_symbolic((2**64 - 1, "minus one"), (255, "never")), signed)
    assert len(texts) == 256
    assert texts[255] == "minus one"
    assert not any(texts[:255])


def test_where_there_is_no_fallback_nothing_stands_for_the_number() -> None:
    assert symbol_texts(_symbolic((1, "one"), (2, "")), _C) == ["", "one", ""]


def test_symbol_that_is_too_large_for_the_renderer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^f names 0x84000001, and 0x1000 is too large$"):
        symbol_texts(SymbolTable("f", ((0x84000001, "CPU_SUSPEND"),), "?"), _A)


# --- raw ----------------------------------------------------------------------------------


def test_raw_form_shows_each_field_by_its_size_and_sign() -> None:
    fields = (_A, _B, _C, _D, _E, FieldInfo("u24", "f", 60, 3, signed=False))
    assert raw_operations(EventInfo(1, "probe", fields, "")) == (
        "a=",
        "0x",
        Number(_A, "hex", 0, ""),
        " b=",
        Number(_B, "signed", 0, ""),
        " c=",
        Number(_C, "unsigned", 0, ""),
        " d=",
        Number(_D, "unsigned", 0, ""),
        " e=",
        "[32 bytes]",
        " f=",
        "[3 bytes]",
    )


def test_raw_form_of_an_event_without_fields_is_empty() -> None:
    assert raw_operations(EventInfo(1, "probe", (), '"%d"')) == ()


# --- formats, for others --------------------------------------------------------------------


def _event(print_fmt: str) -> EventInfo:
    return EventInfo(1, "probe", (), print_fmt)


def test_portable_formats_are_texts_and_as_many_arguments_as_each_takes() -> None:
    formats = (Format('a "%u"\n', 1), Format("b", 0), Format("%d, %d", 2))
    assert portable_formats(FormatTable("probe", "nr", "values", formats)) == (
        '"%s (%s)", '
        '__print_symbolic(REC->nr, { 0, "a \\"%u\\"" }, { 1, "b" }, { 2, "%d, %d" }), '
        "__print_array(REC->values, (((REC->nr == 0) * 1) + ((REC->nr == 2) * 2)), 8)"
    )


_TEXTS = st.text(
    st.sampled_from(" ab%\"\\{}(),\t\n'0u") | st.characters(codec="ascii"), max_size=12
)


@given(st.lists(st.builds(Format, _TEXTS.map(str.rstrip), st.integers(0, 8)), min_size=1))
def test_portable_formats_tell_the_formats(formats: list[Format]) -> None:
    table = FormatTable("probe", "nr", "values", tuple(formats))
    assert formats_in(_event(portable_formats(table))) == table


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{ 1,", "{ 2,"),
        ("== 1) * 2", "== 1) * 3) + ((REC->nr == 1) * 2"),
        (", 8)", ", 4)"),
        ("(%s)", "[%s]"),
        ('"a"', '"a\\q"'),
        ("REC->nr, {", "REC->other, {"),
    ],
)
def test_print_formats_that_only_look_like_those_of_formats(old: str, new: str) -> None:
    table = FormatTable("probe", "nr", "values", (Format("a", 0), Format("%u %u", 2)))
    print_fmt = portable_formats(table)
    assert old in print_fmt
    assert formats_in(_event(print_fmt)) == table
    assert formats_in(_event(print_fmt.replace(old, new))) is None


def test_portable_formats_nest_no_deeper_than_a_stack_is() -> None:
    """libtraceevent calls itself for each bracket and for each term."""
    table = FormatTable("probe", "nr", "values", (Format("%u", 1),) * 65536)
    depth = deepest = 0
    for character in portable_formats(table):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    assert deepest < 30
