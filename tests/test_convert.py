"""`hyptrace convert`: what comes out has the events, times and fields that went in."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb2

from hypervisor_model import EventInfo, FormatTable
from hypervisor_model.model import Format
from hyptrace.decoder import Style
from hyptrace.inputs import decoder_of, open_capture
from hyptrace.lines import LineSink
from hyptrace.output import OutFile
from hyptracefs.event_table import MAX_PRINT_FMT
from hyptracefs.events import compile_events
from tests import perfetto_check
from tests.captures import (
    EVENTS,
    PAGE,
    Made,
    hyptrace,
    page,
    pages,
    payload,
    record,
    visits,
    write_directory,
)
from tests.decoder import REASONS, Decoder, RawEvent, RawLost
from tests.support import running, start_with

_RECORDED = Path(__file__).parents[1] / "hypervisor_model" / "data" / "pkvm-guest-session.txt"
_FORMATS = [event.format() for event in EVENTS.values()]

# What each CPU had; the second has lost events, once so many and once nobody knows how many.
_SECOND = visits(120, start=5_000_100_000)
_SECOND[60] = _SECOND[60]._replace(lost=7)
_SECOND[90] = _SECOND[90]._replace(lost=-1)
_FFA = dict.fromkeys(("func_id", "res_a1", "res_a2", "res_a3", "res_a4"), (1 << 64) - 1)
_LONE = [
    Made(4_000_000_000, "host_ffa_call", {**_FFA, "handled": -1, "err": -22}),
    Made(4_000_000_000, "selftest", {"id": 1 << 40}),
    # hours later
    Made(4_000_000_000 + (1 << 43), "vcpu_illegal_trap", {"esr": 3}),
]  # fmt: skip
_CPUS = [visits(200), _SECOND, _LONE]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "made", [pages(made) for made in _CPUS])


def expected() -> list[tuple[int, int, Made]]:
    """Time, CPU and event, in the order of a trace_pipe."""
    events = [(made.time, cpu, made) for cpu, each in enumerate(_CPUS) for made in each]
    return sorted(events, key=lambda event: event[:2])


def converted(capture: Path, name: str, *args: str) -> Path:
    out = capture.parent / name
    assert hyptrace("convert", capture, out, *args) == 0
    return out


# --- lines ------------------------------------------------------------------------------------


def test_text_is_what_trace_pipe_printed(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    assert hyptrace("convert", _RECORDED, out) == 0
    assert out.read_bytes() == _RECORDED.read_bytes()


def test_text_of_all_events_comes_back(capture: Path) -> None:
    """The catalogue's events, in the words of a mount: symbols, losses and all."""
    text = converted(capture, "one.txt")
    again = capture.parent / "two.txt"
    assert hyptrace("convert", text, again) == 0
    assert again.read_bytes() == text.read_bytes()
    assert b"CPU:1 [LOST 7 EVENTS]\n[001]" in text.read_bytes()
    assert b"CPU:1 [LOST EVENTS]\n[001]" in text.read_bytes()


def _fields(made: Made) -> dict[str, Any]:
    fields: dict[str, Any] = dict(made.fields)
    if "reason" in fields:
        fields["reason"] = REASONS[made.fields["reason"]]
    return fields


def test_json_has_all_fields(capture: Path) -> None:
    lines = [json.loads(line) for line in converted(capture, "out.jsonl").read_text().splitlines()]
    losses = [line["lost"] for line in lines if "lost" in line]
    assert losses == [7, None]
    got = [line for line in lines if "event" in line]
    assert got == [
        {"time_ns": time, "cpu": cpu, "event": made.name, **_fields(made)}
        for time, cpu, made in expected()
    ]


def test_csv_has_a_column_for_each_field(capture: Path) -> None:
    text = converted(capture, "out.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(expected())
    for row, (time, cpu, made) in zip(rows, expected(), strict=True):
        assert (int(row["time_ns"]), int(row["cpu"]), row["event"]) == (time, cpu, made.name)
        assert {name: str(value) for name, value in _fields(made).items()} == {
            name: row[name] for name in made.fields
        }
        assert row["lost"] == {0: "0", 7: "7", -1: ""}[made.lost]


def test_arrays_are_lists(tmp_path: Path) -> None:
    printk = EVENTS["hyp_printk"].info
    data = bytearray(payload(Made(1, "hyp_printk", {"fmt_id": 2})))
    [args] = (field for field in printk.fields if field.name == "args")
    data = data.ljust(args.offset, b"\0") + (1 << 63).to_bytes(8, "little") + bytes(8)
    capture = write_directory(tmp_path / "made", [page(9, record(bytes(data), 0))])
    assert json.loads(converted(capture, "out.json").read_text()) == {
        "time_ns": 9, "cpu": 0, "event": "hyp_printk", "fmt_id": 2, "args": [1 << 63, 0],
    }  # fmt: skip
    out = converted(capture, "out.parquet")
    assert rows_of(out, "hyp_printk", "fmt_id, args") == [(2, [1 << 63, 0])]
    assert converted(capture, "out.csv").read_text().endswith(f",{1 << 63} 0\n")


def printk_page(number: int, *args: int) -> bytes:
    """A page with a record that names the format `number`."""
    data = payload(Made(1, "hyp_printk", {"fmt_id": number})).ljust(8, b"\0")
    words = b"".join((arg % 2**64).to_bytes(8, "little") for arg in args)
    return page(9000, record(data + words, 0))


@pytest.mark.parametrize(
    ("number", "args", "said"),
    [
        (1, (0x7000, 4096, -16), "hyp_printk load of 0x7000, 4096 bytes: refused: -16"),
        (5, (3,), "hyp_printk CPU 3 is back"),
        (999, (3,), "hyp_printk Unknown hyp_string_fmt ID 999"),
    ],
)
def test_text_has_the_format_that_a_record_names(
    tmp_path: Path, number: int, args: tuple[int, ...], said: str
) -> None:
    capture = write_directory(tmp_path / "made", [printk_page(number, *args)])
    text = converted(capture, "out.txt").read_text()
    assert text == f"[000]\t    0.000009: {said}\n"


def test_a_record_with_too_few_arguments_for_its_format_is_short(tmp_path: Path) -> None:
    capture = write_directory(tmp_path / "made", [printk_page(1, 0x7000)])
    assert "[SHORT EVENT id=" in converted(capture, "out.txt").read_text()


def test_more_formats_than_a_print_format_has_room_for(tmp_path: Path) -> None:
    """What the capture says of them is checked as what a hypervisor says."""
    capture = write_directory(tmp_path / "made", [printk_page(70, 7)])
    info = EVENTS["hyp_printk"].info
    texts = tuple(Format(f"what is said as number {number}: %u", 1) for number in range(100))
    table = FormatTable("hyp_printk", "fmt_id", "args", texts)
    [event] = compile_events([info], (), (table,))
    (capture / "events/hypervisor/hyp_printk/format").write_text(event.portable_format())
    assert len(event.portable_fmt) > MAX_PRINT_FMT
    text = converted(capture, "out.txt").read_text()
    assert text == "[000]\t    0.000009: hyp_printk what is said as number 70: 7\n"


def test_two_events_of_one_name_of_which_one_has_formats(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capture = write_directory(tmp_path / "made", [printk_page(5, 3)])
    other = capture / "events/hypervisor/other"
    other.mkdir()
    bare = EventInfo(77, "hyp_printk", (), '"bare"')
    [event] = compile_events([bare], ())
    (other / "format").write_text(event.portable_format())
    assert converted(capture, "out.txt").read_text().endswith("hyp_printk CPU 3 is back\n")
    assert "Traceback" not in capfd.readouterr().err


async def test_as_a_live_remote_wrote_it(tmp_path: Path) -> None:
    """Pages of trace_pipe_raw, against a decoder that shares no code with ours."""
    async with running("storm:20000:all", cpus=1) as made:
        await start_with(made.remote, *EVENTS, size_kb=64)
        reader = await made.remote.open_reader(0)
        raw = b""
        while len(raw) < 20 * PAGE:
            await reader.wait()
            raw += bytes(reader.try_read_raw(1 << 16))
    capture = write_directory(tmp_path / "made", [raw])
    lines = [json.loads(line) for line in converted(capture, "out.json").read_text().splitlines()]
    oracle = [each for each in Decoder(_FORMATS).pages(raw) if isinstance(each, RawEvent)]
    got = [(line["time_ns"], line["event"]) for line in lines if "event" in line]
    assert got == [(event.time, event.name) for event in oracle]
    assert len(got) > 1000


# --- Parquet --------------------------------------------------------------------------------------


def query(sql: str) -> list[tuple[Any, ...]]:
    return duckdb.execute(sql).fetchall()


def rows_of(out: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    return query(f"SELECT {columns} FROM '{out}/{table}/**/*.parquet'")  # noqa: S608


def test_parquet_has_all_events(capture: Path) -> None:
    out = converted(capture, "out.parquet")
    lost = {0: 0, 7: 7, -1: None}
    assert rows_of(out, "all-events") == [
        (time, cpu, made.name, EVENTS[made.name].id, lost[made.lost])
        for time, cpu, made in expected()
    ]


@pytest.mark.parametrize("name", sorted({made.name for each in _CPUS for made in each}))
def test_parquet_has_typed_tables(name: str, capture: Path) -> None:
    out = converted(capture, "out.parquet")
    fields = [field.name for field in EVENTS[name].info.fields]
    quoted = ", ".join(f'"{field}"' for field in ("time_ns", "cpu", *fields))
    assert rows_of(out, name, quoted) == [
        (time, cpu, *(made.fields[field] for field in fields))
        for time, cpu, made in expected()
        if made.name == name
    ]
    if "reason" in fields:
        assert rows_of(out, name, "reason_name") == [
            (REASONS[made.fields["reason"]],) for _, _, made in expected() if made.name == name
        ]


def stays() -> list[tuple[int, int, int, str, int, int, int]]:
    """Start, duration, CPU, place, reasons and vCPU of each, by brute force."""
    found = []
    for cpu, each in enumerate(_CPUS):
        since: Made | None = None
        for made in each:
            if made.lost:
                since = None
            if made.name not in {"hyp_enter", "hyp_exit"}:
                continue
            place = "hypervisor" if made.name == "hyp_exit" else "guest"
            is_stay = since is not None and since.name != made.name
            if since and is_stay and (place == "hypervisor" or since.fields["reason"] == 7):
                found.append((
                    since.time, made.time - since.time, cpu, place, since.fields["reason"],
                    made.fields["reason"], since.fields["vcpu"],
                ))  # fmt: skip
            since = made
    return sorted(found)


def test_parquet_has_stays(capture: Path) -> None:
    out = converted(capture, "out.parquet")
    columns = "start_ns, duration_ns, cpu, place, reason, exit_reason, vcpu"
    assert sorted(rows_of(out, "hyp-stays", columns)) == stays()
    names = rows_of(out, "hyp-stays", "reason, reason_name, exit_reason, exit_reason_name")
    assert all((REASONS[a], REASONS[c]) == (b, d) for a, b, c, d in names)


def readme_queries() -> list[str]:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    return re.findall(r"    (SELECT [^;]*hyp-stays[^;]*);", readme)


def test_the_queries_of_the_readme(capture: Path) -> None:
    out = converted(capture, "trace.parquet")
    by_reason, longest = (query(sql.replace("trace.parquet", str(out))) for sql in readme_queries())
    in_hyp = [stay for stay in stays() if stay[3] == "hypervisor"]
    totals: Counter[str] = Counter()
    for stay in in_hyp:
        totals[REASONS[stay[4]]] += stay[1]
    assert {row[0]: round(row[2] * 1e6) for row in by_reason} == totals
    most: dict[int, int] = {}
    for stay in in_hyp:
        most[stay[6]] = max(most.get(stay[6], 0), stay[1])
    assert {row[0]: round(row[1] * 1e3) for row in longest} == most


def test_partitions_of_a_fleet_make_one_table(capture: Path) -> None:
    lake = capture.parent / "lake"
    for host in ("one", "two/../three"):
        assert hyptrace("convert", capture, lake, "--to", "parquet", "--partition", "--host", host,
                        "--day", "2026-11-23") == 0  # fmt: skip
    files = f"read_parquet('{lake}/all-events/**/*.parquet', hive_partitioning = true)"
    counts = query(
        f"SELECT host, CAST(day AS VARCHAR), count(*) FROM {files} GROUP BY ALL ORDER BY host"  # noqa: S608
    )
    nr = len(expected())
    assert counts == [("one", "2026-11-23", nr), ("two_.._three", "2026-11-23", nr)]


# --- Perfetto -------------------------------------------------------------------------------------


def perfetto(path: Path) -> list[Any]:
    trace = pb2.Trace()
    trace.ParseFromString(path.read_bytes())
    return list(trace.packet)


def _value(event: Any, name: str) -> dict[str, int]:
    message = getattr(event, f"hypervisor_{name}")
    return {field.name: value for field, value in message.ListFields()}


def test_perfetto_has_typed_ftrace_events(capture: Path) -> None:
    bundles = [
        packet.ftrace_events
        for packet in perfetto(converted(capture, "out.pftrace"))
        if packet.HasField("ftrace_events")
    ]
    typed = {"hyp_enter", "hyp_exit", "host_mem_abort", "iommu_idmap", "vcpu_illegal_trap"}
    got = Counter(
        (bundle.cpu, event.timestamp, event.WhichOneof("event"))
        for bundle in bundles
        for event in bundle.event
    )
    assert got == Counter(
        (cpu, time, f"hypervisor_{made.name}" if made.name in typed else None)
        for time, cpu, made in expected()
    )
    assert all(event.HasField("pid") and not event.pid for b in bundles for event in b.event)
    assert sum(bundle.lost_events for bundle in bundles) == 2
    aborts = [
        _value(event, "host_mem_abort")
        for bundle in bundles
        for event in bundle.event
        if event.HasField("hypervisor_host_mem_abort")
    ]
    assert sorted(map(sorted, map(dict.items, aborts))) == sorted(
        sorted(made.fields.items()) for _, _, made in expected() if made.name == "host_mem_abort"
    )


def test_perfetto_describes_events_that_it_does_not_know(capture: Path) -> None:
    from google.protobuf import descriptor_pb2  # noqa: PLC0415

    described: dict[int, str] = {}
    for packet in perfetto(converted(capture, "out.pftrace")):
        for each in packet.ftrace_events.generic_event_descriptors:
            descriptor = descriptor_pb2.DescriptorProto()
            descriptor.ParseFromString(each.event_descriptor)
            described[each.field_id] = descriptor.name
    assert {"selftest", "host_ffa_call"} <= set(described.values())
    assert min(described) >= 65536


def test_perfetto_shows_all_events_slices_and_losses(capture: Path) -> None:
    """To a reader that pairs slices in the order of time; vCPUs run on two CPUs at once here."""
    lines = [
        line
        for time, cpu, made in expected()
        for line in (
            *([{"cpu": cpu, "time_ns": time, "lost": max(made.lost, 0) or None}] * bool(made.lost)),
            {"cpu": cpu, "time_ns": time, "event": made.name, **_fields(made)},
        )
    ]
    want = perfetto_check.expected(lines)
    got = perfetto_check.read_schema(converted(capture, "out.pftrace"))
    assert list(perfetto_check.differences(want, got)) == []
    assert sorted(
        (each.start_ns, each.duration_ns, each.track, each.name, each.args)
        for each in got.slices.elements()
        if each.name in {"guest", *REASONS}
    ) == sorted(
        (start, length, f"Hypervisor CPU {cpu}", REASONS[reason], (("vcpu", vcpu),))
        if place == "hypervisor"
        else (start, length, f"vCPU {vcpu}", "guest", (("cpu", cpu),))
        for start, length, cpu, place, reason, _, vcpu in stays()
    )
    assert sorted(got.counted) == [(1, _SECOND[60].time, 7), (1, _SECOND[90].time, 8)]


def test_perfetto_of_the_recorded_session(tmp_path: Path) -> None:
    """Text, without fields of events that it does not have."""
    want = perfetto_check.expected_of(_RECORDED, tmp_path)
    out = tmp_path / "out.pftrace"
    assert hyptrace("convert", _RECORDED, out) == 0
    assert list(perfetto_check.differences(want, perfetto_check.read_schema(out))) == []
    assert want.events.total() == 3864


# --- any pages -----------------------------------------------------------------------------


def lines_of(capture: Path, style: Style) -> bytes:
    opened = open_capture(capture)
    decoder = decoder_of(opened)
    out = capture.parent / "lines"
    sink = LineSink(opened, OutFile(out, force=True), style)
    for batch in decoder.batches():
        batch.by_event()
        sink.add(batch)
    sink.close(decoder.counts())
    return out.read_bytes()


_SELFTEST = EVENTS["selftest"].id
_PAYLOADS = st.integers(0, 2**64 - 1).map(
    lambda number: payload(Made(0, "selftest", {"id": number}))
)
_RECORDS = st.lists(st.tuples(st.integers(0, 2**58), _PAYLOADS), min_size=1, max_size=60)


@given(st.lists(st.tuples(st.integers(0, 2**62), _RECORDS, st.integers(0, 99)), max_size=6))
def test_well_formed_pages_are_read_as_the_oracle_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[int, list[tuple[int, bytes]], int]],
) -> None:
    data = b""
    for time, records, lost in made:
        items = [
            record(payload, 0 if not i else delta) for i, (delta, payload) in enumerate(records)
        ]
        data += page(time, b"".join(items), lost)
    oracle: list[tuple[str, int]] = []
    for each in Decoder(_FORMATS).pages(data):
        if isinstance(each, RawLost):
            oracle.append(("lost", each.events or 0))
        else:
            oracle.append(("id", each.fields["id"]))
    top = tmp_path_factory.getbasetemp() / "wellformed"
    text = lines_of(write_directory(top, [data]), Style.JSON)
    got = [json.loads(line) for line in text.splitlines()]
    assert [
        ("lost", line["lost"]) if "lost" in line else ("id", line["id"]) for line in got
    ] == oracle


@given(st.data())
def test_any_pages_are_read_to_their_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Noise: in valid pages, and nothing but."""
    mutant = bytearray(pages(visits(100)))
    for _ in range(data.draw(st.integers(0, 20))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        mutant[at : at + len(patch)] = patch
    noise = data.draw(st.binary(max_size=64)) * 64
    whole = [bytes(mutant[: len(mutant) // PAGE * PAGE]), noise.ljust(PAGE, b"\xff")[:PAGE]]
    top = tmp_path_factory.getbasetemp() / "noise"
    capture = write_directory(top, whole)
    for style in Style:
        lines_of(capture, style)
    for line in lines_of(capture, Style.JSON).splitlines():
        json.loads(line)
    assert hyptrace("convert", capture, top / "o.pftrace", "--force") == 0
    perfetto(top / "o.pftrace")
    assert hyptrace("convert", capture, top.parent / "noise.parquet", "--force") == 0


# --- outputs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["o.txt", "o.csv", "o.json", "o.pftrace", "o.parquet"])
def test_what_exists_is_not_overwritten(
    name: str, capture: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    converted(capture, name)
    capfd.readouterr()
    assert hyptrace("convert", capture, capture.parent / name) == 1
    err = capfd.readouterr().err
    assert "--force" in err
    assert err.count("\n") == 1
    converted(capture, name, "--force")


def test_the_tables_of_another_capture_go(capture: Path) -> None:
    other = write_directory(capture.parent / "other", [pages(visits(5))])
    converted(other, "o.parquet")
    out = converted(capture, "o.parquet", "--force")
    assert len(rows_of(out, "all-events")) == len(expected())


def test_a_capture_is_not_overwritten_by_itself(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(_RECORDED.read_bytes())
    assert hyptrace("convert", text, text, "--force") == 2
    assert hyptrace("report", text, "--html", text, "--force") == 2
    assert text.read_bytes() == _RECORDED.read_bytes()


def test_a_format_that_nobody_says(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert hyptrace("convert", capture, capture.parent / "what") == 2
    assert "--to" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("package", "name"), [("pyarrow", "o.parquet"), ("perfetto.protos", "o.pftrace")]
)
def test_a_package_that_is_missing(
    package: str,
    name: str,
    capture: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert hyptrace("convert", capture, capture.parent / name) == 1
    assert "pip install 'hyptracefs[convert]'" in capfd.readouterr().err


@contextmanager
def small_disk(top: Path, size: str) -> Iterator[Path]:
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", top], check=True)
    try:
        yield top
    finally:
        subprocess.run(["umount", top], check=True)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "large", [pages(visits(60_000))])


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.mount
@needs_root
@pytest.mark.parametrize("name", ["o.txt", "o.json", "o.csv", "o.pftrace"])
def test_of_a_full_disk_whole_lines_and_packets_are_kept(
    name: str, large: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = converted(large, name).read_bytes()
    capfd.readouterr()
    with small_disk(tmp_path / "small", "3m") as small:
        assert hyptrace("convert", large, small / name) == 1
        err = capfd.readouterr().err
        assert "No space left on device" in err
        assert err.count("\n") == 1
        kept = (small / name).read_bytes()
    assert 0 < len(kept) < len(whole)
    assert whole.startswith(kept)
    if name == "o.pftrace":
        pb2.Trace().ParseFromString(kept)
    else:
        assert kept.endswith(b"\n")


@pytest.mark.mount
@needs_root
def test_of_a_full_disk_parquet_can_be_read(
    large: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyptrace.parquet_out.MAX_PENDING", 1 << 20)
    monkeypatch.setattr("hyptrace.parquet_out.FOOTER", 64 << 10)
    whole = rows_of(converted(large, "o.parquet"), "all-events")
    capfd.readouterr()
    with small_disk(tmp_path / "small", "4m") as small:
        out = small / "o.parquet"
        assert hyptrace("convert", large, out) == 1
        err = capfd.readouterr().err
        assert "what was written before can be read" in err
        assert err.count("\n") == 1
        kept = rows_of(out, "all-events")
        for table in out.iterdir():
            rows_of(out, table.name)
    assert 0 < len(kept) < len(whole)
    assert whole[: len(kept)] == kept


def test_what_is_left_of_an_array_is_no_item(tmp_path: Path) -> None:
    """Of 12 bytes, one u64."""
    data = payload(Made(1, "hyp_printk", {"fmt_id": 2})).ljust(8, b"\0")
    odd = data + (5).to_bytes(8, "little") + b"\xff" * 4
    capture = write_directory(tmp_path / "made", [page(9, record(odd, 0))])
    assert json.loads(converted(capture, "out.json").read_text())["args"] == [5]
    assert rows_of(converted(capture, "out.parquet"), "hyp_printk", "args") == [([5],)]
