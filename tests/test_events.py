"""Events as the model describes them, against the files of the reference."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hypervisor_model import EventInfo, Hypervisor
from hyptracefs import files
from hyptracefs.events import Event, compile_events
from hyptracefs.files import Place
from tests.support import GOLDEN, Calls, hypervisor, make_remote

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


def test_error_of_one_event_names_it() -> None:
    infos = [EventInfo(1, "good", (), '""'), EventInfo(2, "bad", (), '"%d"')]
    with pytest.raises(ValueError, match=r"event bad: .*fewer arguments"):
        compile_events(infos, [])


def test_ids_count_from_1_by_name_and_leave_out_5(events: dict[str, Event]) -> None:
    allowed = [number for number in range(1, 100) if number != 5]
    assert [events[name].id for name in sorted(events)] == allowed[: len(events)]


def test_events_are_those_of_the_reference(events: dict[str, Event]) -> None:
    assert tuple(events) == _NAMES


def test_header_page_is_that_of_the_reference(place: Place) -> None:
    assert files.show_header_page(place) == _golden("header_page")


def test_header_event_is_that_of_the_reference(place: Place) -> None:
    assert files.show_header_event(place) == _golden("header_event")
