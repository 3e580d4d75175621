"""trace.dat: ours read by trace-cmd, trace-cmd's read by us, and files that are broken."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyptrace.capture import read_metadata
from hyptrace.dat_layout import CPUSTAT
from hyptrace.inputs import decoder_of, open_capture
from hyptrace.trace_dat import _COMMON_OPTIONS, _of_bytes, _Parts, open_trace_dat
from hyptrace.trace_dat_writer import TraceDatWriter
from tests.captures import Made, hyptrace, pages, visits, write_directory

needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")

_CPUS = (pages(visits(300)), pages(visits(500, start=5_000_100_000)), b"")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "made", _CPUS)


def write_dat(
    directory: Path,
    path: Path,
    uname: str = "Linux box 7.3 aarch64",
    stats: Mapping[int, str] = MappingProxyType({0: "entries: 7\n"}),
) -> Path:
    capture = open_capture(directory)
    writer = TraceDatWriter(path, len(capture.cpus))
    for cpu in capture.cpus:
        for chunk in cpu.chunks():
            writer.write(cpu.cpu, chunk)
    metadata = replace(read_metadata(directory, uname=uname), stats=stats)
    writer.close(metadata)
    return path


@pytest.fixture
def ours(directory: Path, tmp_path: Path) -> Path:
    return write_dat(directory, tmp_path / "ours.dat")


def text_of(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert hyptrace("report", path) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


def trace_cmd(*args: str | os.PathLike[str]) -> str:
    done = subprocess.run(
        ["trace-cmd", *args], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


_OURS = re.compile(r"\[(\d+)\]\t *(\d+)\.(\d{6}): (\w+) ?(.*)")
_THEIRS = re.compile(r" *<idle>-0 +\[(\d+)\] +(\d+)\.(\d{6}): (\w+): +(.*)")


def _events(text: str, line: re.Pattern[str]) -> list[tuple[str, int, str, str]]:
    found = map(line.fullmatch, text.splitlines())
    return [(m[1], int(m[2] + m[3]), m[4], m[5]) for m in found if m]


def test_what_is_written_is_read(
    ours: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = text_of(ours, capfd)
    assert len(text.splitlines()) > 1600
    assert text == text_of(directory, capfd)
    metadata = open_capture(ours).metadata
    assert (metadata.clock, metadata.node, metadata.stats) == ("mono", "box", {0: "entries: 7\n"})
    assert sorted(path.name for path in ours.parent.iterdir()) == ["made", "ours.dat"]


@needs_trace_cmd
def test_trace_cmd_reads_ours(ours: Path, capfd: pytest.CaptureFixture[str]) -> None:
    theirs = _events(trace_cmd("report", "-i", ours), _THEIRS)
    own = _events(text_of(ours, capfd), _OURS)
    assert len(own) == len(theirs) > 1600
    for one, other in zip(own, theirs, strict=True):
        assert one[0].zfill(3) == other[0]
        assert 0 <= other[1] - one[1] <= 1  # it rounds
        assert one[2:] == other[2:]


@needs_trace_cmd
@pytest.mark.parametrize(
    "form", [("7", "none"), ("7", "zstd"), ("6", "none")], ids=["v7", "v7-zstd", "v6"]
)
def test_ours_reads_trace_cmds(
    form: tuple[str, str], ours: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    version, compression = form
    theirs = tmp_path / "theirs.dat"
    trace_cmd(
        "convert", "-i", ours, "-o", theirs, "--file-version", version,
        "--compression", compression,
    )  # fmt: skip
    assert theirs.read_bytes()[10:11] == version.encode()
    assert text_of(theirs, capfd) == text_of(ours, capfd)


@needs_trace_cmd
def test_lost_events_are_said_by_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    some = visits(10)
    made = [*some, some[-1]._replace(time=some[-1].time + 5, lost=43)]
    directory = write_directory(tmp_path / "lossy", [pages(made)])
    path = write_dat(directory, tmp_path / "lossy.dat")
    assert "CPU:0 [LOST 43 EVENTS]\n[000]" in text_of(path, capfd)
    assert "[43 EVENTS DROPPED]" in trace_cmd("report", "-i", path)


STATS = "entries: 0\noverrun: {}\nbytes: 0\nnow ts: 1.0\nread events: 9\n"


def lossy(tmp_path: Path, lost: int, overrun: int, said: str = STATS) -> Path:
    """Lost once: `lost` (-1: not counted); and what stats say in all."""
    some = visits(10)
    made = [*some, some[-1]._replace(time=some[-1].time + 5, lost=lost)]
    directory = write_directory(tmp_path / "lossy", [pages(made), pages(visits(3))])
    (directory / "per_cpu/cpu0").mkdir(parents=True)
    (directory / "per_cpu/cpu0/stats").write_text(said.format(overrun))
    return directory


def lost_of(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What --stats says that CPU 0 has lost."""
    capfd.readouterr()
    assert hyptrace("report", path, "--stats") == 0
    rows = capfd.readouterr().out.rpartition("\ncpu ")[2].splitlines()
    return rows[1].split()[2]


@pytest.mark.parametrize(
    ("lost", "overrun", "shown"),
    [
        (-1, 40, "40"),  # pages do not say how many, and stats do
        (-1, -2, "0+"),  # makes no sense
        (7, 40, "7"),  # pages say it
    ],
)
def test_losses_that_no_page_counts_are_those_of_the_counters(
    lost: int, overrun: int, shown: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = lossy(tmp_path, lost, overrun)
    assert lost_of(directory, capfd) == shown
    stats = read_metadata(directory).stats
    path = write_dat(directory, tmp_path / "lossy.dat", stats=stats)
    assert lost_of(path, capfd) == shown


def test_counters_of_other_buffers_are_not_ours(tmp_path: Path) -> None:
    """Behind `Buffer: NAME` trace-cmd writes those of that one."""
    parts = _Parts()
    for text in ("CPU: 0\nentries: 1\n", "\nBuffer: other\n\n", "CPU: 0\nentries: 2\n", "?"):
        data = text.encode() + b"\0"
        _COMMON_OPTIONS[CPUSTAT](_of_bytes(tmp_path, data), len(data), parts)
    assert parts.stats == {"": {0: "entries: 1\n"}, "other": {0: "entries: 2\n"}}


# --- broken files ------------------------------------------------------------------------------


def one_line(path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What is said of a file that cannot be used."""
    capfd.readouterr()
    assert hyptrace("report", path) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


_PATCHES = {
    "version": (10, b"5", "version '5', not 6 or 7"),
    "byte order": (12, b"\x01", "big-endian"),
    "page size": (14, struct.pack("<I", 65536), "65536 bytes, not 4096"),
    "magic": (0, b"\x18", "no trace.dat"),
    "header": (18, b"X", "no 'header_page'"),
}


@pytest.mark.parametrize("what", _PATCHES)
def test_other_files_are_refused(what: str, ours: Path, capfd: pytest.CaptureFixture[str]) -> None:
    offset, patch, complaint = _PATCHES[what]
    data = bytearray(ours.read_bytes())
    data[offset : offset + len(patch)] = patch
    ours.write_bytes(data)
    assert complaint in one_line(ours, capfd)


def test_pages_of_another_size_are_refused(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    header = directory / "events" / "header_page"
    header.write_text(header.read_text().replace("4080", "65520"))
    assert "65520" in one_line(directory, capfd)


def test_nothing_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.dat"
    empty.touch()
    assert "is empty" in one_line(empty, capfd)
    assert "no such file" in one_line(tmp_path / "none.dat", capfd)
    assert "header_page" in one_line(tmp_path, capfd)


def test_of_a_file_that_is_cut_short_the_rest_is_used(
    ours: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = text_of(ours, capfd).splitlines()
    os.truncate(ours, ours.stat().st_size - 3 * 4096 - 100)
    assert hyptrace("report", ours) == 0
    out, err = capfd.readouterr()
    assert "cut short: 12388 of" in err
    assert "of CPU 1" in err
    lines = out.splitlines()
    assert 0 < len(lines) < len(whole)
    assert set(lines) < set(whole)


def test_a_header_that_is_cut_short_is_said(ours: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.truncate(ours, 3000)
    assert "cut short: its header does not end" in one_line(ours, capfd)


def test_an_unknown_event_is_shown_by_its_id(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(directory / "events" / "hypervisor" / "iommu_idmap")
    assert hyptrace("report", directory) == 0
    out, err = capfd.readouterr()
    assert "UNKNOWN id=" in out
    assert "iommu_idmap" not in out
    assert "events are of an unknown id" in err


def test_a_format_that_is_none_is_said(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    form = directory / "events" / "hypervisor" / "iommu_idmap" / "format"
    form.write_text(form.read_text().replace("offset:8;", "offset:1;"))
    assert hyptrace("report", directory) == 0
    assert "it lies over the id" in capfd.readouterr().err


def _use(path: Path) -> None:
    """Read all that can be read."""
    capture = open_trace_dat(path)
    decoder = decoder_of(capture)
    for batch in decoder.batches():
        assert len(batch)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    top = tmp_path_factory.mktemp("originals")
    made = write_directory(
        top / "made", [pages(visits(20)), pages([Made(9, "selftest", {"id": 1})])]
    )
    ours = write_dat(made, top / "ours.dat")
    files = [ours]
    if shutil.which("trace-cmd"):
        for compression in ("none", "zstd"):
            other = top / f"{compression}.dat"
            trace_cmd("convert", "-i", ours, "-o", other, "--compression", compression)
            files.append(other)
    return [file.read_bytes() for file in files]


@given(st.data())
def test_mutated_files_are_read_or_refused(
    originals: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutant = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        mutant[at : at + len(patch)] = patch
    if data.draw(st.booleans()):
        del mutant[data.draw(st.integers(0, len(mutant))) :]
    path = tmp_path_factory.getbasetemp() / "mutant.dat"
    path.write_bytes(mutant)
    with suppress(OSError):
        _use(path)


# --- writing -------------------------------------------------------------------------------------


def write_many(writer: TraceDatWriter, chunk: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(0, chunk)


def test_what_another_one_has_collected_is_kept_whatever_happens(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.dat"
    first = TraceDatWriter(path, 1)
    first.write(0, _CPUS[0])

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space"):
        TraceDatWriter(path, 1, collected=True)
    monkeypatch.undo()
    assert first.spool(0).read_bytes() == _CPUS[0]
    second = TraceDatWriter(path, 1, collected=True)
    assert second.sizes == [len(_CPUS[0])]
    second.close(read_metadata(directory))
    assert b"".join(open_capture(path).cpus[0].chunks()) == _CPUS[0]


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_of_a_full_disk_what_fits_is_kept(directory: Path, tmp_path: Path) -> None:
    """In a tmpfs with room for some of the pages, and not for two copies of them."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "none", small], check=True)
    try:
        writer = TraceDatWriter(small / "trace.dat", 2)
        chunk = pages(visits(200))
        with pytest.raises(OSError, match="No space"):
            write_many(writer, chunk, 1000)
        collected = writer.spool(0).stat().st_size // 4096 * 4096
        writer.close(read_metadata(directory))
        capture = open_capture(small / "trace.dat")
        got = b"".join(capture.cpus[0].chunks())
        assert len(got) == collected > 0
        assert (chunk * 1000).startswith(got)
    finally:
        subprocess.run(["umount", small], check=True)
