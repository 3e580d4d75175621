"""Print formats compile to operations, or say what is wrong."""

from __future__ import annotations

import pytest

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs.print_fmt import Number, Op, Symbol, compile_print_fmt

_A = FieldInfo("u64", "a", 8, 8, signed=False)
_B = FieldInfo("int", "b", 16, 4, signed=True)
_NAMES = SymbolTable("name_of", ("zero", "one"), "unknown")


def _compile(print_fmt: str) -> tuple[Op, ...]:
    return compile_print_fmt(EventInfo(1, "probe", (_A, _B), print_fmt), [_NAMES])


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
        ('"%hhx", REC->a', (Number(_A, "hex", 0, ""),)),
        ('"%zx", REC->a', (Number(_A, "hex", 0, ""),)),
        ('"%d", REC->b', (Number(_B, "signed", 0, ""),)),
        ('"%li", REC->b', (Number(_B, "signed", 0, ""),)),
        ('"0x%08lx", REC->a', ("0x", Number(_A, "hex", 8, "0"))),
        ('"%-5d|", REC->b', (Number(_B, "signed", 5, "-"), "|")),
        ('"%s", name_of(REC->b)', (Symbol(_B, _NAMES, 0, ""),)),
        ('"%6s", name_of(REC->b)', (Symbol(_B, _NAMES, 6, ""),)),
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
        ('"open', "no string in quotes"),
        ('""id=%llu", REC->a", ', "no string in quotes"),  # the reference's malformed selftest
        ('"%d"', "fewer arguments"),
        ('"%d %d", REC->b', "fewer arguments"),
        ('"x", REC->a', "1 arguments too many"),
        ('"%d", REC->c', "no field 'c'"),
        ('"%d", REC->a + 1', "argument 'REC->a + 1' is not supported"),
        ('"%s", REC->a', "'REC->a' is no text"),
        ('"%s", other(REC->a)', "'other(REC->a)' is no text"),
        ('"%d", name_of(REC->b)', "'name_of(REC->b)' is no number"),
        ('"%p", REC->a', "conversion '%p' is not supported"),
        ('"%*d", REC->a', "conversion '%*d' is not supported"),
        ('"%', "no string in quotes"),
        ('"50%"', "conversion '%' is not supported"),
        (r'"\x41"', r"escape \x is not supported"),
        ('"%256u", REC->a', "width 256 is over 255"),
    ],
)
def test_error_names_the_event_and_the_reason(print_fmt: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^event probe: ") as raised:
        _compile(print_fmt)
    assert reason in str(raised.value)
