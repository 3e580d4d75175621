"""Events as the model describes them, against the files of the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hypervisor_model import EventInfo, FieldInfo, Hypervisor, SymbolTable
from hyptracefs import controls
from hyptracefs.events import Event, compile_events, print_event_format
from hyptracefs.files import Place
from hyptracefs.print_fmt import Number, portable_print_fmt
from tests.support import EVENTS, GOLDEN, Calls, hypervisor, make_remote

# Those that the reference had.
_NAMES = ("hyp_enter", "hyp_exit", "selftest")


@pytest.fixture(scope="module")
def model() -> Iterator[Hypervisor]:
    with hypervisor() as made:
        yield made


@pytest.fixture
def events(model: Hypervisor) -> dict[str, Event]:
    compiled = compile_events(model.events, model.symbol_tables)
    return {event.name: event for event in compiled}


@pytest.fixture
def place(model: Hypervisor) -> Place:
    return Place(make_remote(model, Calls(model.conduit, model.cpus)))


def _masked(text: str) -> str:
    """Without what golden/README.md calls quirks of the reference, and the ids."""
    text = re.sub(r"^ID: \d+$", "ID: -", text, flags=re.MULTILINE)
    return re.sub(r"(field:(?!unsigned short common_type).*)\toffset:\d+;", r"\1", text)


def _golden(path: str) -> str:
    return (GOLDEN / "files" / "events" / path).read_text(encoding="ascii")


@pytest.mark.parametrize("name", _NAMES)
def test_format_is_that_of_the_reference(events: dict[str, Event], name: str) -> None:
    malformed = '""id=%llu", REC->id", '
    golden = _golden(f"hypervisor/{name}/format").replace(malformed, '"id=%llu", REC->id')
    assert _masked(events[name].format()) == _masked(golden)


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("hyp_enter", {"reason": 2, "vcpu": 4}),
        ("hyp_exit", {"reason": 2, "vcpu": 4}),
        ("selftest", {"id": 8}),
        ("host_hcall", {"id": 4, "invalid": 8}),
        ("iommu_idmap", {"from": 8, "to": 16, "prot": 24}),
    ],
)
def test_format_has_the_real_offsets(
    events: dict[str, Event], name: str, offsets: dict[str, int]
) -> None:
    found = re.findall(r"field:\w+ (\w+);\toffset:(\d+);", events[name].format())
    assert {field: int(offset) for field, offset in found} == offsets


def test_format_of_an_event_without_fields_has_no_empty_section() -> None:
    [event] = compile_events([EventInfo(9, "bare", (), '" ", ')], [])
    assert event.format() == (
        "name: bare\nID: 9\nformat:\n"
        "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
        "\n"
        'print fmt: " ", \n'
    )


def test_event_without_a_format_prints_its_name_alone() -> None:
    [event] = compile_events([EventInfo(9, "bare", (), '""')], [])
    assert event.ops == ("bare",)


def test_events_are_sorted_by_name() -> None:
    infos = [EventInfo(number, name, (), '""') for number, name in enumerate("cab", 1)]
    assert [event.name for event in compile_events(infos, [])] == ["a", "b", "c"]


def test_event_that_cannot_be_rendered_is_shown_raw_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    field = FieldInfo("int", "a", 4, 4, signed=True)
    infos = [EventInfo(1, "good", (), '""'), EventInfo(2, "odd", (field,), '"%pS", REC->a')]
    odd, good = sorted(compile_events(infos, []), key=lambda event: -event.id)
    assert odd.ops == ("odd ", "a=", Number(field, "signed", 0, ""))
    assert good.ops == ("good",)
    assert caplog.messages == [
        "event odd: print fmt \"%pS\", REC->a: conversion '%pS' is not supported: shown raw"
    ]
    assert odd.format().endswith('print fmt: "%pS", REC->a\n')


def test_event_without_fields_that_cannot_be_rendered_prints_its_name_alone() -> None:
    [event] = compile_events([EventInfo(2, "odd", (), '"%d"')], [])
    assert event.ops == ("odd",)


@pytest.mark.parametrize(
    ("kind", "declaration"),
    [
        ("u64", "u64 a"),
        ("char[16]", "char a[16]"),
        ("u8[2][3]", "u8 a[2][3]"),
        ("__data_loc char[]", "__data_loc char[] a"),
    ],
)
def test_arrays_are_declared_as_in_c(kind: str, declaration: str) -> None:
    field = FieldInfo(kind, "a", 2, 16, signed=False)
    [event] = compile_events([EventInfo(1, "probe", (field,), '""')], [])
    assert f"\tfield:{declaration};\toffset:2;\tsize:16;\tsigned:0;\n" in event.format()


def test_ids_count_from_1_by_name_and_leave_out_5(events: dict[str, Event]) -> None:
    allowed = [number for number in range(1, 100) if number != 5]
    assert [events[name].id for name in sorted(events)] == allowed[: len(events)]


def test_events_are_those_of_the_catalogue(events: dict[str, Event]) -> None:
    assert tuple(events) == EVENTS
    assert set(_NAMES) < set(EVENTS)


def test_header_page_is_that_of_the_reference(place: Place) -> None:
    assert controls.show_header_page(place) == _golden("header_page")


def test_header_event_is_that_of_the_reference(place: Place) -> None:
    assert controls.show_header_event(place) == _golden("header_event")


# --- for tools ----------------------------------------------------------------------------------


def test_portable_format_has_symbols_that_tools_understand(place: Place) -> None:
    by_name = {event.name: event for event in place.remote.events}
    text = by_name["hyp_enter"].portable_format()
    [line] = (line for line in text.splitlines() if line.startswith("print fmt"))
    assert '__print_symbolic(REC->reason, { 0, "smc" }, { 1, "hvc" }' in line
    assert line.endswith('{ 7, "eret_guest" }), REC->vcpu')


def test_portable_format_has_common_fields_without_bytes(place: Place) -> None:
    for event in place.remote.events:
        fields = re.findall(
            r"field:.*? (\w+)[\[\]]*;\toffset:(\d+);\tsize:(\d+);", event.portable_format()
        )
        assert fields[:4] == [
            ("common_type", "0", "2"),
            ("common_flags", "2", "0"),
            ("common_preempt_count", "2", "0"),
            ("common_pid", "2", "0"),
        ]
        assert len(fields) == 4 + len(event.info.fields)


@pytest.mark.parametrize(
    ("print_fmt", "portable"),
    [
        ('" ", ', '" "'),
        ('"id=%llu", REC->id', '"id=%llu", REC->id'),
        ('"f(x) %s", f(REC->x)', '"f(x) %s", __print_symbolic(REC->x, { 1, "a\\"\\\\" })'),
        ('"\\"f(x)", g(REC->x)', '"\\"f(x)", g(REC->x)'),
    ],
)
def test_portable_print_fmt(print_fmt: str, portable: str) -> None:
    table = SymbolTable("f", ((1, 'a"\\'),), "other")
    assert portable_print_fmt(print_fmt, [table]) == portable


def test_event_without_fields_has_two_empty_lines() -> None:
    [event] = compile_events([EventInfo(1, "probe", (), '" ", ')], ())
    assert event.portable_format().endswith('signed:1;\n\n\nprint fmt: " "\n')


def test_print_event_has_a_number_that_is_free() -> None:
    assert "ID: 65535\n" in print_event_format(())
    assert "ID: 65533\n" in print_event_format({65535, 65534, 1})
